// Countdown answers, exactly.
#ifndef E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_
#define E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// Judges the last complete <answer>…</answer> of `response`: an expression of + - * / (also × ÷ −)
// and parentheses that uses each of `numbers` exactly once and whose exact rational value is
// `target`; a trailing "= target" is allowed. `format_score` is what a well-formed expression over
// the right numbers earns when it misses the target. Answers over 4,096 characters or 200
// parentheses deep are wrong. Thread-safe.
Verdict VerifyCountdown(absl::string_view response, const std::vector<int64_t>& numbers,
                        int64_t target, double format_score = 0);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_
