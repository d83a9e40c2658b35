#include "reward_service/multiplication/multiplication_verifier.h"

#include <gmpxx.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "reward_service/math/math_verifier.h"

namespace e3 {

absl::StatusOr<Verdict> VerifyMultiplication(absl::string_view response, absl::string_view a,
                                             absl::string_view b) {
  for (absl::string_view factor : {a, b}) {
    absl::string_view digits = !factor.empty() && factor[0] == '-' ? factor.substr(1) : factor;
    if (digits.empty() || digits.size() > 1000 ||
        !std::all_of(digits.begin(), digits.end(),
                     [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); })) {
      return absl::InvalidArgumentError("a factor is not a whole number of at most 1000 digits");
    }
  }
  mpz_class product = mpz_class(std::string(a), 10) * mpz_class(std::string(b), 10);
  return VerifyMath(response, product.get_str());
}

}  // namespace e3
