#include "curriculum_controller/budget_rule.h"

#include <catch2/catch.hpp>
#include <limits>

namespace e3 {
namespace {

PerformanceCurve Curve(std::vector<int64_t> budgets, std::vector<double> j, double mean_length) {
  PerformanceCurve curve;
  curve.budgets = std::move(budgets);
  curve.j = std::move(j);
  curve.mean_length = mean_length;
  return curve;
}

const std::vector<int64_t> kGrid = {32, 64, 128, 256};
const std::vector<int64_t> kBudgets = {32, 64, 128, 256, 512};

TEST_CASE("Eq. 2 picks the smallest budget whose doubling gains little") {
  auto choice = ChooseBudget(Curve(kBudgets, {.1, .2, .4, .45, .46}, 30), kGrid, 1.2);
  CHECK(choice->budget() == 128);
  CHECK_FALSE(choice->fallback());
  CHECK(choice->explanation().find("Eq. 2 chose 128") == 0);
  // The boundary belongs to it.
  CHECK(ChooseBudget(Curve(kBudgets, {.1, .2, .25, .3, .3}, 30), kGrid, 1.25)->budget() == 64);
}

TEST_CASE("budgets below the mean response length do not count") {
  CHECK(ChooseBudget(Curve(kBudgets, {.4, .4, .4, .4, .4}, 30), kGrid, 1.2)->budget() == 32);
  CHECK(ChooseBudget(Curve(kBudgets, {.4, .4, .4, .4, .4}, 64), kGrid, 1.2)->budget() == 64);
  CHECK(ChooseBudget(Curve(kBudgets, {.4, .4, .4, .4, .4}, 64.1), kGrid, 1.2)->budget() == 128);
}

TEST_CASE("J = 0 never qualifies, and without a qualifier the largest is taken with a warning") {
  CHECK(ChooseBudget(Curve(kBudgets, {0, 0, .1, .11, .11}, 1), kGrid, 1.2)->budget() == 128);
  for (auto curve : {Curve(kBudgets, {0, 0, 0, 0, 0}, 1), Curve(kBudgets, {.1, .2, .4, .8, 1}, 1),
                     Curve(kBudgets, {1, 1, 1, 1, 1}, 300)}) {
    auto choice = ChooseBudget(curve, kGrid, 1.2);
    CHECK(choice->budget() == 256);
    CHECK(choice->fallback());
  }
  CHECK_FALSE(ChooseBudget(Curve({32}, {1}, 1), {32}, 1.2).ok());  // J(64) was not measured
}

v1::MeasureReply Measured(const std::vector<std::vector<std::vector<float>>>& problems) {
  v1::MeasureReply reply;
  for (size_t p = 0; p < problems.size(); ++p) {
    for (const auto& rewards : problems[p]) {
      auto* r = reply.add_rollouts();
      r->set_problem(static_cast<uint32_t>(p));
      r->set_length(10 * static_cast<uint32_t>(p + 1));
      for (float x : rewards) r->add_rewards(x);
    }
  }
  return reply;
}

TEST_CASE("J is the mean reward, or the unbiased pass@k") {
  auto reply = Measured({{{0, 1}, {0, 1}, {1, 1}, {0, 0}}, {{0, 0}, {0, 0}, {0, 0}, {0, 1}}});
  auto mean = ComputeCurve(reply, {8, 16}, 1);
  CHECK(mean->j[0] == Approx(1.0 / 8));
  CHECK(mean->j[1] == Approx(4.0 / 8));
  CHECK(mean->mean_length == Approx(15));
  // c of 4 right, k = 2: 1 - C(4-c, 2) / C(4, 2).
  auto pass2 = ComputeCurve(reply, {8, 16}, 2);
  CHECK(pass2->j[0] == Approx(((1 - 3.0 / 6) + 0) / 2));
  CHECK(pass2->j[1] == Approx((1 + (1 - 3.0 / 6)) / 2));
  CHECK(ComputeCurve(reply, {8, 16}, 4)->j[1] == Approx(1));
  CHECK_FALSE(ComputeCurve(reply, {8, 16}, 5).ok());
  CHECK_FALSE(ComputeCurve(reply, {8}, 1).ok());
  CHECK_FALSE(ComputeCurve({}, {8}, 1).ok());
}

TEST_CASE("a stage advances after two measurements in a row") {
  CHECK_FALSE(ShouldAdvance(v1::ADVANCE_RATIO_ABOVE, {1.3}, 1.2));
  CHECK(ShouldAdvance(v1::ADVANCE_RATIO_ABOVE, {1.0, 1.3, 1.3}, 1.2));
  CHECK_FALSE(ShouldAdvance(v1::ADVANCE_RATIO_ABOVE, {1.3, 1.3, 1.1}, 1.2));
  CHECK_FALSE(ShouldAdvance(v1::ADVANCE_RATIO_ABOVE, {1.2, 1.2}, 1.2));
  CHECK(ShouldAdvance(v1::ADVANCE_RATIO_BELOW, {1.2, 1.2}, 1.2));
  CHECK_FALSE(ShouldAdvance(v1::ADVANCE_STEPS, {9, 9}, 1.2));
  CHECK(ExtrapolationRatio(0, .1) == std::numeric_limits<double>::infinity());
  CHECK(ExtrapolationRatio(0, 0) == 1);
  CHECK(BudgetsToMeasure({32, 64}, 100) == std::vector<int64_t>{32, 64, 100, 128, 200});
}

}  // namespace
}  // namespace e3
