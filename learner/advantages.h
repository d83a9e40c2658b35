// Group-normalised advantages (GRPO; Shao et al. 2024).
#ifndef E3_LEARNER_ADVANTAGES_H_
#define E3_LEARNER_ADVANTAGES_H_

#include <vector>

namespace e3 {

// A = (r - mean) / (std + 1e-6) over the rewards of one prompt's rollouts, with the unbiased
// standard deviation; without dividing when !normalize_std. A group whose rewards are all equal (or
// of one rollout) has advantages 0: it carries no signal.
std::vector<double> GroupAdvantages(const std::vector<double>& rewards, bool normalize_std);

}  // namespace e3

#endif  // E3_LEARNER_ADVANTAGES_H_
