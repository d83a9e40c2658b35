// libFuzzer over extraction, parsing and equivalence: `make fuzz`.
//
// An input is a gold answer and a response, with a line "%%" between them; without one it is both.
// Besides crashes, time and memory, it looks for verdicts that cannot be: an answer that is not
// itself, and verdicts that change when they are asked for again.
#include <cstdint>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "reward_service/math/math_verifier.h"

namespace {

void Check(bool holds) {
  if (!holds) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view input(reinterpret_cast<const char*>(data), size);
  absl::string_view gold = input, response = input;
  if (size_t cut = input.find("\n%%\n"); cut != absl::string_view::npos) {
    gold = input.substr(0, cut);
    response = input.substr(cut + 4);
  }
  for (e3::Extract extract : {e3::Extract::kBoxed, e3::Extract::kAny}) {
    e3::MathOptions options;
    options.extract = extract;
    options.limits.time = std::chrono::minutes(10);  // a slow verdict is the fuzzer's to find
    e3::MathVerifier verifier(gold, options);
    const std::string boxed = extract == e3::Extract::kBoxed
                                  ? absl::StrCat("\\boxed{", response, "}")
                                  : std::string(response);
    absl::StatusOr<e3::Verdict> first = e3::Verify(verifier, boxed);
    absl::StatusOr<e3::Verdict> second = e3::Verify(verifier, boxed);
    Check(first.status() == second.status());
    if (!first.ok()) {
      Check(absl::IsResourceExhausted(first.status()));  // the gold answer is beyond the limits
      continue;
    }
    Check(!first->rule.empty() && !first->reason.empty());
    Check(first->score == 0 || first->score == 1);
    Check(first->score == second->score && first->rule == second->rule);
  }
  return 0;
}
