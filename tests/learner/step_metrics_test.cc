#include "learner/service/step_metrics.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "learner/advantages.h"

namespace e3 {
namespace {

struct Response {
  int length;
  double score;
  v1::FinishReason finish;
  uint64_t version = 6;
};

v1::CollectedBatch Batch(const std::vector<std::vector<Response>>& groups) {
  v1::CollectedBatch batch;
  batch.set_step(8);
  batch.set_budget(100);
  for (const std::vector<Response>& responses : groups) {
    v1::CollectedBatch::Group* group = batch.add_groups();
    for (const Response& response : responses) {
      v1::Rollout* r = group->add_rollouts();
      for (int i = 0; i < response.length; ++i) {
        r->add_token_ids(1);
        r->add_entropies(0.5f);
        r->add_logprobs(-1);
      }
      r->set_finish_reason(response.finish);
      r->mutable_score()->set_score(response.score);
      r->mutable_score()->mutable_trace()->set_verifications(
          static_cast<uint32_t>(response.length / 10));
      auto* span = r->add_versions();
      span->mutable_version()->set_step(response.version);
      span->set_tokens(static_cast<uint32_t>(response.length));
    }
  }
  return batch;
}

constexpr v1::FinishReason kStop = v1::FINISH_REASON_STOP, kLength = v1::FINISH_REASON_LENGTH;

TEST_CASE("what a step says of its batch, for all, correct and incorrect responses") {
  v1::CollectedBatch batch = Batch({{{10, 1, kStop}, {20, 0, kStop}, {100, 0, kLength}},
                                    {{40, 1, kStop, 7}, {30, 1, kStop, 7}, {20, 1, kStop, 7}}});
  batch.add_set_aside(4);
  batch.set_unjudged(2);
  const std::map<std::string, double> m = BatchMetrics(batch, {});
  auto is = [&](const char* name, double value) {
    INFO(name);
    CHECK(m.at(name) == Approx(value));
  };
  is("rollouts", 6);
  is("response_tokens", 220);
  is("reward", 4.0 / 6);
  is("entropy", 0.5);
  is("response_length", 220.0 / 6);
  is("response_length_correct", 25);
  is("response_length_incorrect", 60);
  is("response_length_p50_correct", 30);
  is("response_length_max_incorrect", 100);
  is("truncated_share", 1.0 / 6);
  is("truncated_share_incorrect", 0.5);
  is("truncated_share_correct", 0);
  is("verifications_correct", 10.0 / 4);
  is("zero_signal_share", 0.5);
  is("zero_signal_groups", 1);
  // One incorrect response ended by itself; its last token had log-probability -1.
  is("incorrect_end_probability", std::exp(-1));
  // Step 8 is learned from by the policy of step 7: 130 tokens are one version behind.
  is("version_lag_mean", 130.0 / 220);
  is("version_lag_max", 1);
  is("prompts_set_aside", 1);
  is("rollouts_unjudged", 2);
}

TEST_CASE("the soft overlong penalty enters what is compared, and so what has a signal") {
  v1::Training training;
  training.set_soft_overlong_tokens(20);
  training.set_soft_overlong_penalty(0.5);
  const v1::CollectedBatch batch =
      Batch({{{80, 1, kStop}, {90, 1, kStop}, {100, 1, kLength}, {10, 0, kStop}}});
  const std::vector<double> rewards = Rewards(batch.groups(0), batch.budget(), training);
  CHECK(rewards == std::vector<double>{1, 0.75, 0.5, 0});
  // The score itself is what is reported as the reward.
  CHECK(BatchMetrics(batch, training).at("reward") == Approx(0.75));

  const v1::CollectedBatch same = Batch({{{80, 1, kStop}, {100, 1, kLength}}});
  CHECK(BatchMetrics(same, {}).at("zero_signal_groups") == 1);
  CHECK(BatchMetrics(same, training).at("zero_signal_groups") == 0);
  const std::vector<double> advantages =
      GroupAdvantages(Rewards(same.groups(0), same.budget(), training), /*normalize_std=*/true);
  CHECK(advantages[0] > 0);
  CHECK(advantages[1] < 0);
}

TEST_CASE("the statistics of a step are means over its updates") {
  UpdateStatistics first, second;
  first.loss = 1;
  first.gradient_norm = 3;
  first.tokens.ratio_max = 2;
  first.tokens.mismatch_max = 1e-6;
  first.flops = 100;
  second.loss = 2;
  second.gradient_norm = 5;
  second.tokens.ratio_max = 7;
  second.tokens.mismatch_max = 0.3;
  second.tokens.incorrect_ends = 4;
  second.tokens.incorrect_end_shift = -0.25;
  second.flops = 50;
  const std::map<std::string, double> m = UpdateMetrics({first, second}, /*on_policy=*/true);
  CHECK(m.at("updates") == 2);
  CHECK(m.at("loss") == Approx(1.5));
  CHECK(m.at("gradient_norm") == Approx(4));
  CHECK(m.at("ratio_max") == 7);
  CHECK(m.at("update_flops") == 150);
  // Only the first is of the policy that generated.
  CHECK(m.at("mismatch_max") == Approx(1e-6));
  CHECK(m.at("incorrect_end_shift") == Approx(-0.25));
  CHECK(UpdateMetrics({first, second}, /*on_policy=*/false).count("mismatch_max") == 0);
}

}  // namespace
}  // namespace e3
