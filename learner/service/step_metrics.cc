#include "learner/service/step_metrics.h"

#include <algorithm>
#include <vector>

#include "services/runtime/metrics.h"

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

std::map<std::string, double> BatchMetrics(const v1::CollectedBatch& batch) {
  Mean reward, entropy, truncated, repeating, zero_signal;
  Mean length[3], verifications[3], attempts[3];  // all, correct, incorrect
  std::vector<double> lengths;
  for (const auto& group : batch.groups()) {
    bool signal = false;
    for (const v1::Rollout& r : group.rollouts()) {
      const double score = r.score().score();
      signal = signal || score != group.rollouts(0).score().score();
      reward.Add(score);
      lengths.push_back(r.token_ids_size());
      for (float e : r.entropies()) entropy.Add(e);
      truncated.Add(r.finish_reason() == v1::FINISH_REASON_LENGTH);
      repeating.Add(r.score().trace().repeating());
      for (int kind : {0, score >= 1 ? 1 : 2}) {
        length[kind].Add(r.token_ids_size());
        verifications[kind].Add(r.score().trace().verifications());
        attempts[kind].Add(r.score().trace().attempts());
      }
    }
    zero_signal.Add(!signal);
  }
  std::map<std::string, double> metrics;
  metrics["reward"] = reward.value();
  metrics["zero_signal_share"] = zero_signal.value();
  metrics["entropy"] = entropy.value();
  metrics["truncated_share"] = truncated.value();
  metrics["repeating_share"] = repeating.value();
  metrics["rollouts"] = reward.count;
  metrics["response_tokens"] = entropy.count;
  const char* suffix[3] = {"", "_correct", "_incorrect"};
  for (int kind = 0; kind < 3; ++kind) {
    metrics[std::string("response_length") + suffix[kind]] = length[kind].value();
    metrics[std::string("verifications") + suffix[kind]] = verifications[kind].value();
    metrics[std::string("attempts") + suffix[kind]] = attempts[kind].value();
  }
  std::sort(lengths.begin(), lengths.end());
  if (!lengths.empty()) {
    metrics["response_length_p50"] = lengths[lengths.size() / 2];
    metrics["response_length_p95"] = lengths[lengths.size() * 95 / 100];
  }
  return metrics;
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
