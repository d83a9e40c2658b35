#include "curriculum_controller/budget_rule.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

// 1 - C(n-c, k) / C(n, k) as a product that cannot overflow.
double PassAt(int64_t n, int64_t c, int64_t k) {
  if (n - c < k) return 1;
  double all_wrong = 1;
  for (int64_t i = n - c + 1; i <= n; ++i)
    all_wrong *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - all_wrong;
}

}  // namespace

absl::StatusOr<double> PerformanceCurve::At(int64_t budget) const {
  auto it = std::find(budgets.begin(), budgets.end(), budget);
  if (it == budgets.end())
    return absl::InvalidArgumentError(absl::StrCat("J was not measured at a budget of ", budget));
  return j[static_cast<size_t>(it - budgets.begin())];
}

absl::StatusOr<PerformanceCurve> ComputeCurve(const v1::MeasureReply& measured,
                                              const std::vector<int64_t>& budgets,
                                              int64_t pass_at) {
  PerformanceCurve curve;
  curve.budgets = budgets;
  curve.j.assign(budgets.size(), 0);
  if (measured.rollouts().empty())
    return absl::InvalidArgumentError("a measurement without rollouts");
  std::map<uint32_t, int64_t> samples;
  for (const v1::MeasuredRollout& r : measured.rollouts()) {
    if (static_cast<size_t>(r.rewards_size()) != budgets.size())
      return absl::InvalidArgumentError("a measured rollout has no reward for every budget");
    ++samples[r.problem()];
    curve.mean_length += r.length();
    curve.verifications += r.verifications();
  }
  const double rollouts = static_cast<double>(measured.rollouts_size());
  curve.mean_length /= rollouts;
  curve.verifications /= rollouts;
  for (size_t b = 0; b < budgets.size(); ++b) {
    if (pass_at <= 1) {
      for (const v1::MeasuredRollout& r : measured.rollouts())
        curve.j[b] += r.rewards(static_cast<int>(b));
      curve.j[b] /= rollouts;
      continue;
    }
    std::map<uint32_t, int64_t> right;
    for (const v1::MeasuredRollout& r : measured.rollouts())
      right[r.problem()] += r.rewards(static_cast<int>(b)) >= 1;
    int64_t problems = 0;
    for (const auto& [problem, n] : samples) {
      if (n < pass_at) continue;
      curve.j[b] += PassAt(n, right[problem], pass_at);
      ++problems;
    }
    if (problems == 0)
      return absl::InvalidArgumentError(
          absl::StrCat("pass@", pass_at, " needs as many rollouts of a problem; none has"));
    curve.j[b] /= static_cast<double>(problems);
  }
  return curve;
}

double ExtrapolationRatio(double j_at_budget, double j_at_twice) {
  if (j_at_budget > 0) return j_at_twice / j_at_budget;
  return j_at_twice > 0 ? std::numeric_limits<double>::infinity() : 1;
}

absl::StatusOr<v1::BudgetChoice> ChooseBudget(const PerformanceCurve& curve,
                                              const std::vector<int64_t>& grid, double kappa) {
  if (grid.empty()) return absl::InvalidArgumentError("the budget grid is empty");
  v1::BudgetChoice choice;
  for (size_t i = 0; i < curve.budgets.size(); ++i) {
    choice.add_budgets(curve.budgets[i]);
    choice.add_j(curve.j[i]);
  }
  choice.set_mean_length(curve.mean_length);
  choice.set_kappa(kappa);
  std::vector<std::string> passed_over;
  for (int64_t budget : grid) {
    E3_ASSIGN_OR_RETURN(double j, curve.At(budget));
    E3_ASSIGN_OR_RETURN(double j2, curve.At(2 * budget));
    if (static_cast<double>(budget) < curve.mean_length) {
      passed_over.push_back(absl::StrFormat("%d is below the mean response length B0 = %.1f",
                                            budget, curve.mean_length));
    } else if (j <= 0) {
      passed_over.push_back(absl::StrFormat("J(%d) = 0", budget));
    } else if (j2 > kappa * j) {
      passed_over.push_back(
          absl::StrFormat("J(%d)/J(%d) = %.3f > %g", 2 * budget, budget, j2 / j, kappa));
    } else {
      choice.set_budget(budget);
      choice.set_explanation(absl::StrFormat(
          "Eq. 2 chose %d: J(%d)/J(%d) = %.3f/%.3f = %.3f <= %g%s", budget, 2 * budget, budget, j2,
          j, j2 / j, kappa,
          passed_over.empty() ? "" : "; passed over: " + absl::StrJoin(passed_over, "; ")));
      return choice;
    }
  }
  choice.set_fallback(true);
  choice.set_budget(grid.back());
  choice.set_explanation(
      absl::StrFormat("no budget satisfies Eq. 2, so the largest, %d, was taken: %s", grid.back(),
                      absl::StrJoin(passed_over, "; ")));
  return choice;
}

bool ShouldAdvance(v1::Advance rule, const std::vector<double>& ratios, double kappa) {
  if (ratios.size() < 2) return false;
  const double a = ratios[ratios.size() - 2], b = ratios.back();
  if (rule == v1::ADVANCE_RATIO_ABOVE) return a > kappa && b > kappa;
  if (rule == v1::ADVANCE_RATIO_BELOW) return a <= kappa && b <= kappa;
  return false;
}

std::vector<int64_t> BudgetsToMeasure(const std::vector<int64_t>& grid, int64_t budget) {
  std::set<int64_t> budgets;
  for (int64_t b : grid) budgets.insert({b, 2 * b});
  if (budget > 0) budgets.insert({budget, 2 * budget});
  return {budgets.begin(), budgets.end()};
}

}  // namespace e3
