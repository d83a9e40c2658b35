#include "reward_service/multiplication/multiplication_verifier.h"

#include <gmpxx.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "reward_service/math/extraction.h"
#include "reward_service/math/parser.h"

namespace e3 {

absl::StatusOr<std::unique_ptr<MultiplicationVerifier>> MultiplicationVerifier::Create(
    absl::string_view a, absl::string_view b) {
  for (absl::string_view factor : {a, b}) {
    absl::string_view digits = !factor.empty() && factor[0] == '-' ? factor.substr(1) : factor;
    if (digits.empty() || digits.size() > 1000 ||
        !std::all_of(digits.begin(), digits.end(),
                     [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); })) {
      return absl::InvalidArgumentError("a factor is not a whole number of at most 1000 digits");
    }
  }
  mpz_class product = mpz_class(std::string(a), 10) * mpz_class(std::string(b), 10);
  return std::unique_ptr<MultiplicationVerifier>(new MultiplicationVerifier(product.get_str()));
}

std::optional<Answer> MultiplicationVerifier::FindAnswer(absl::string_view text) const {
  return FindBoxed(text);
}

std::string MultiplicationVerifier::Key() const { return product_; }

absl::StatusOr<Verdict> MultiplicationVerifier::Judge(const Answer& answer) const {
  const std::string& text = answer.readings[0];
  Verdict verdict;
  verdict.extracted = text.substr(0, 4096);
  math::Arena arena;
  math::Limits limits;
  auto parsed = math::Parse(text, {}, limits, &arena);
  const math::Node* node = parsed.ok() ? *parsed : nullptr;
  const bool negative = node != nullptr && node->kind == math::Kind::kNegative;
  if (negative) node = node->args[0];
  // "12,345", "12 345" and "12345.0" are integers as written; "3 · 4115" is not.
  if (node == nullptr || node->kind != math::Kind::kNumber || !node->number.IsInteger() ||
      text.find("frac") != std::string::npos) {
    verdict.rule = "not-an-integer";
    verdict.reason = "the box does not hold an integer";
    return verdict;
  }
  char* digits = fmpz_get_str(nullptr, 10, node->number.numerator());
  const std::string value = absl::StrCat(negative && !node->number.IsZero() ? "-" : "", digits);
  flint_free(digits);
  verdict.score = value == product_ ? 1 : 0;
  verdict.rule = "integer";
  verdict.reason = verdict.score == 1 ? "the product" : "not the product";
  return verdict;
}

}  // namespace e3
