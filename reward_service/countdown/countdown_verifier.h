// Countdown answers, exactly.
#ifndef E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_
#define E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

enum class CountdownRule {
  kStrict,    // right, or wrong; format_score for a well-formed expression that misses
  kTinyZero,  // TinyZero's: format_score for any answer that is wrong
};

struct CountdownProblem {
  std::vector<int64_t> numbers;
  int64_t target = 0;
  CountdownRule rule = CountdownRule::kStrict;
  double format_score = 0;
};

// Judges the last complete <answer>…</answer> of a response.
//
// Strict: an expression of + - * / (also × ÷ −) and parentheses that uses each of the numbers
// exactly once and whose exact rational value is the target; a trailing "= target" is allowed.
// TinyZero: as Python evaluates it, over digits and + - * / ( ) . only, so that ** is a power and
// // rounds down; the value may miss the target by less than 1e-5; no equation sign. Answers over
// 4,096 characters or 200 parentheses deep are wrong.
class CountdownVerifier final : public TaskVerifier {
 public:
  explicit CountdownVerifier(CountdownProblem problem);
  std::optional<Answer> FindAnswer(absl::string_view text) const override;
  absl::StatusOr<Verdict> Judge(const Answer& answer) const override;
  std::string Key() const override;

 private:
  const CountdownProblem problem_;
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_COUNTDOWN_COUNTDOWN_VERIFIER_H_
