// Group-normalised advantages (GRPO; Shao et al. 2024).
#ifndef E3_LEARNER_ADVANTAGES_H_
#define E3_LEARNER_ADVANTAGES_H_

#include <cstdint>
#include <vector>

namespace e3 {

// A = (r - mean) / (std + 1e-6) over the rewards of one prompt's rollouts, with the unbiased
// standard deviation; without dividing when !normalize_std. A group whose rewards are all equal (or
// of one rollout) has advantages 0: it carries no signal.
std::vector<double> GroupAdvantages(const std::vector<double>& rewards, bool normalize_std);

// How far a response of `length` tokens reaches into the last `soft_tokens` of its budget: 0 up to
// budget - soft_tokens, rising linearly to 1 at the budget (Yu et al. 2025, DAPO). 0 when
// soft_tokens is 0.
double Overlong(int64_t length, int64_t budget, int64_t soft_tokens);

}  // namespace e3

#endif  // E3_LEARNER_ADVANTAGES_H_
