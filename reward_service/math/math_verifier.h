// Answers to mathematical problems. docs/reward.md says which answers count as the same.
#ifndef E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_
#define E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "reward_service/math/equivalence.h"
#include "reward_service/math/limits.h"
#include "reward_service/verdict.h"

namespace e3 {

// Where an answer may stand.
enum class Extract {
  kBoxed,  // for training: in \boxed{…}, and nowhere else
  kAny,    // for evaluation: see FindAnywhere; the gold answer may be a sentence or a solution too
};

struct MathOptions {
  Extract extract = Extract::kBoxed;
  math::Options comparison;
  math::Limits limits;
};

// One problem by its gold answer: bare, in $…$, or boxed; with kAny also within text.
class MathVerifier final : public TaskVerifier {
 public:
  explicit MathVerifier(absl::string_view gold, MathOptions options = {});
  std::optional<Answer> FindAnswer(absl::string_view text) const override;
  absl::StatusOr<Verdict> Judge(const Answer& answer) const override;
  std::string Key() const override;

 private:
  bool IsProse(absl::string_view bare) const;

  std::string gold_;                        // as given
  std::vector<std::string> gold_readings_;  // its answer
  MathOptions options_;
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_
