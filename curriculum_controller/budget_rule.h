// J(π, D, B) from measured rollouts, and the budget that Eq. 2 picks.
#ifndef E3_CURRICULUM_CONTROLLER_BUDGET_RULE_H_
#define E3_CURRICULUM_CONTROLLER_BUDGET_RULE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/curriculum.pb.h"
#include "e3/v1/learner.pb.h"

namespace e3 {

// J at every budget of a measurement.
struct PerformanceCurve {
  std::vector<int64_t> budgets;  // ascending
  std::vector<double> j;
  double mean_length = 0;  // tokens at the largest budget: B0 of Eq. 2
  double verifications = 0;
  // J at exactly this budget. InvalidArgument when it was not measured.
  absl::StatusOr<double> At(int64_t budget) const;
};

// The mean reward for pass_at = 1. For k > 1 the mean over problems of the unbiased estimate of
// pass@k, 1 - C(n-c, k) / C(n, k) with c of n rollouts right (Chen et al. 2021); a rollout is right
// when its reward is at least 1. Problems with fewer than k rollouts (some could not be judged) do
// not count; InvalidArgument when none has as many.
absl::StatusOr<PerformanceCurve> ComputeCurve(const v1::MeasureReply& measured,
                                              const std::vector<int64_t>& budgets, int64_t pass_at);

// Eq. 2: the smallest budget B of the grid with B >= B0 and J(2B) <= κ J(B); a budget with J(B) = 0
// never qualifies. When none does, the largest of the grid, with `fallback` set. The curve has J at
// B and 2B for every B of the grid.
absl::StatusOr<v1::BudgetChoice> ChooseBudget(const PerformanceCurve& curve,
                                              const std::vector<int64_t>& grid, double kappa);

// Whether the two newest ratios J(2B)/J(B) at the stage's budget ask for the next stage (Advance in
// job_spec.proto).
bool ShouldAdvance(v1::Advance rule, const std::vector<double>& ratios, double kappa);

// J(2B)/J(B): infinite for 0 < J(2B) with J(B) = 0, and 1 for 0/0.
double ExtrapolationRatio(double j_at_budget, double j_at_twice);

// grid, twice the grid, `budget` and twice `budget` (when not 0), ascending without repeats.
std::vector<int64_t> BudgetsToMeasure(const std::vector<int64_t>& grid, int64_t budget);

}  // namespace e3

#endif  // E3_CURRICULUM_CONTROLLER_BUDGET_RULE_H_
