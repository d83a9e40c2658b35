#include "learner/service/step_metrics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/overlong.h"

namespace e3 {
namespace {

struct Mean {
  double sum = 0, count = 0;
  void Add(double x) {
    sum += x;
    ++count;
  }
  double value() const { return count > 0 ? sum / count : 0; }
};

const char* Help(const std::string& name) {
  static const auto* help = new std::map<std::string, const char*>{
      {"reward", "Mean reward of the step's rollouts"},
      {"response_length", "Mean response length in tokens"},
      {"entropy", "Mean token entropy of the policy in nats"},
      {"verifications", "Mean verification phrases in a response (App. N)"},
      {"attempts", "Mean attempts in a response"},
      {"kl", "Mean KL divergence to the reference (training.kl_estimator)"},
      {"mismatch_max",
       "Largest difference of log-probabilities between rollout server and learner"},
      {"mismatch_mean", "Mean difference of log-probabilities between rollout server and learner"},
      {"gradient_norm", "Global gradient norm before clipping"},
      {"learning_rate", "Mean learning rate of the step's updates"},
      {"budget", "Token budget of the stage"}};
  auto it = help->find(name);
  return it == help->end() ? "Of the last training step; see docs/metrics.md" : it->second;
}

}  // namespace

std::vector<double> Rewards(const v1::CollectedBatch::Group& group, int64_t budget,
                            const v1::Training& training) {
  std::vector<double> rewards;
  for (const v1::Rollout& r : group.rollouts()) {
    rewards.push_back(r.score().score() -
                      training.soft_overlong_penalty() *
                          Overlong(r.token_ids_size(), budget, training.soft_overlong_tokens()));
  }
  return rewards;
}

std::map<std::string, double> BatchMetrics(const v1::CollectedBatch& batch,
                                           const v1::Training& training) {
  Mean reward, entropy, repeating, zero_signal, incorrect_end;
  Mean length[3], truncated[3], verifications[3], attempts[3];  // all, correct, incorrect
  std::vector<double> lengths[3];
  double lag_tokens = 0, lag_sum = 0, lag_max = 0;
  for (const auto& group : batch.groups()) {
    const std::vector<double> compared = Rewards(group, batch.budget(), training);
    zero_signal.Add(std::equal(compared.begin() + 1, compared.end(), compared.begin()));
    for (const v1::Rollout& r : group.rollouts()) {
      const double score = r.score().score();
      reward.Add(score);
      for (float e : r.entropies()) entropy.Add(e);
      for (const auto& span : r.versions()) {
        const double lag = static_cast<double>(batch.step() - 1 - span.version().step());
        lag_tokens += span.tokens();
        lag_sum += lag * span.tokens();
        lag_max = std::max(lag_max, lag);
      }
      if (r.finish_reason() == v1::FINISH_REASON_STOP && score < 1 && !r.logprobs().empty())
        incorrect_end.Add(std::exp(r.logprobs().rbegin()[0]));
      repeating.Add(r.score().trace().repeating());
      for (int kind : {0, score >= 1 ? 1 : 2}) {
        lengths[kind].push_back(r.token_ids_size());
        length[kind].Add(r.token_ids_size());
        truncated[kind].Add(r.finish_reason() == v1::FINISH_REASON_LENGTH);
        verifications[kind].Add(r.score().trace().verifications());
        attempts[kind].Add(r.score().trace().attempts());
      }
    }
  }
  std::map<std::string, double> metrics;
  metrics["reward"] = reward.value();
  metrics["zero_signal_share"] = zero_signal.value();
  metrics["zero_signal_groups"] = zero_signal.sum;
  metrics["entropy"] = entropy.value();
  metrics["repeating_share"] = repeating.value();
  metrics["incorrect_end_probability"] = incorrect_end.value();
  metrics["rollouts"] = reward.count;
  metrics["rollouts_unjudged"] = static_cast<double>(batch.unjudged());
  metrics["prompts_set_aside"] = batch.set_aside_size();
  metrics["version_lag_mean"] = lag_sum / std::max(1.0, lag_tokens);
  metrics["version_lag_max"] = lag_max;
  metrics["response_tokens"] = entropy.count;
  const char* suffix[3] = {"", "_correct", "_incorrect"};
  for (int kind = 0; kind < 3; ++kind) {
    metrics[std::string("response_length") + suffix[kind]] = length[kind].value();
    metrics[std::string("truncated_share") + suffix[kind]] = truncated[kind].value();
    metrics[std::string("verifications") + suffix[kind]] = verifications[kind].value();
    metrics[std::string("attempts") + suffix[kind]] = attempts[kind].value();
    std::vector<double>& sorted = lengths[kind];
    if (sorted.empty()) continue;
    std::sort(sorted.begin(), sorted.end());
    metrics[std::string("response_length_p50") + suffix[kind]] = sorted[sorted.size() / 2];
    metrics[std::string("response_length_p95") + suffix[kind]] = sorted[sorted.size() * 95 / 100];
    metrics[std::string("response_length_max") + suffix[kind]] = sorted.back();
  }
  return metrics;
}

std::map<std::string, double> UpdateMetrics(const std::vector<UpdateStatistics>& updates,
                                            bool on_policy) {
  std::map<std::string, double> metrics;
  auto mean = [&](const char* name, auto value) {
    double sum = 0;
    for (const UpdateStatistics& u : updates) sum += value(u);
    metrics[name] = updates.empty() ? 0 : sum / static_cast<double>(updates.size());
  };
  metrics["updates"] = static_cast<double>(updates.size());
  mean("loss", [](auto& u) { return u.loss; });
  mean("gradient_norm", [](auto& u) { return u.gradient_norm; });
  mean("learning_rate", [](auto& u) { return u.learning_rate; });
  mean("kl", [](auto& u) { return u.tokens.kl; });
  mean("ratio", [](auto& u) { return u.tokens.ratio; });
  mean("clip_low_share", [](auto& u) { return u.tokens.clip_low_share; });
  mean("clip_high_share", [](auto& u) { return u.tokens.clip_high_share; });
  mean("clip_dual_share", [](auto& u) { return u.tokens.clip_dual_share; });
  double ends = 0, shift = 0;  // of updates that others came before: the first has not moved yet
  for (size_t i = 1; i < updates.size(); ++i) {
    ends += static_cast<double>(updates[i].tokens.incorrect_ends);
    shift += updates[i].tokens.incorrect_end_shift *
             static_cast<double>(updates[i].tokens.incorrect_ends);
  }
  if (ends > 0) metrics["incorrect_end_shift"] = shift / ends;
  double& flops = metrics["update_flops"];
  for (const UpdateStatistics& u : updates) flops += u.flops;
  double& ratio_max = metrics["ratio_max"];
  for (const UpdateStatistics& u : updates) ratio_max = std::max(ratio_max, u.tokens.ratio_max);
  if (on_policy && !updates.empty()) {
    metrics["mismatch_max"] = updates[0].tokens.mismatch_max;
    metrics["mismatch_mean"] = updates[0].tokens.mismatch_mean;
  }
  return metrics;
}

void LogStep(const std::string& job_id, const v1::StepRecord& record) {
  const auto& m = record.metrics();
  auto mismatch = m.find("mismatch_max");  // absent when no group had a signal
  Log("info", "step",
      {{"job", job_id},
       {"stage", record.stage()},
       {"step", record.step()},
       {"budget", record.budget()},
       {"reward", m.at("reward")},
       {"length", m.at("response_length")},
       {"entropy", m.at("entropy")},
       {"tokens_per_second", m.at("tokens_per_second")},
       {"mismatch_max", mismatch == m.end() ? nlohmann::ordered_json()
                                            : nlohmann::ordered_json(mismatch->second)}});
}

void ExportStep(const std::string& job_id, const std::string& stage, const v1::StepRecord& record) {
  const Labels labels = {{"training_job", job_id}, {"stage", stage}};
  for (const auto& [name, value] : record.metrics())
    GaugeMetric("e3_learner_" + name, Help(name), labels).Set(value);
  GaugeMetric("e3_learner_budget", Help("budget"), labels)
      .Set(static_cast<double>(record.budget()));
  GaugeMetric("e3_learner_step", "Optimizer steps done in the job", {{"training_job", job_id}})
      .Set(static_cast<double>(record.step()));
  CounterMetric("e3_learner_steps_total", "Steps done by this process").Increment();
  auto tokens = record.metrics().find("response_tokens");
  if (tokens != record.metrics().end()) {
    CounterMetric("e3_learner_response_tokens_total", "Response tokens learned from")
        .Increment(tokens->second);
  }
}

}  // namespace e3
