// The paper's quantities of a step, from its batch.
#ifndef E3_LEARNER_SERVICE_STEP_METRICS_H_
#define E3_LEARNER_SERVICE_STEP_METRICS_H_

#include <map>
#include <string>
#include <vector>

#include "e3/v1/learner.pb.h"
#include "learner/update_statistics.h"

namespace e3 {

// What the advantages of a group's rollouts are made of: scores, less the soft overlong penalty.
std::vector<double> Rewards(const v1::CollectedBatch::Group& group, int64_t budget,
                            const v1::Training& training);

// reward, response_length (also _p50, _p95, _max), truncated_share, verifications and attempts,
// each also _correct and _incorrect; zero_signal_share and zero_signal_groups (whose Rewards are
// all equal), entropy, repeating_share, incorrect_end_probability (of the end of the sequence,
// where incorrect responses ended; Section 5), rollouts, response_tokens, rollouts_unjudged,
// prompts_set_aside, version_lag_mean and version_lag_max (over tokens, in steps behind the policy
// that learns).
std::map<std::string, double> BatchMetrics(const v1::CollectedBatch& batch,
                                           const v1::Training& training);
// Means over the updates of a step that were not skipped: loss, kl, ratio, clip_low_share,
// clip_high_share, clip_dual_share, gradient_norm, learning_rate; ratio_max over all;
// incorrect_end_shift, the mean change of log p(end) there since the step began; update_flops; and
// updates, their number. `on_policy`: also mismatch_max and mismatch_mean, of the first update.
std::map<std::string, double> UpdateMetrics(const std::vector<UpdateStatistics>& updates,
                                            bool on_policy);

// One line of the log.
void LogStep(const std::string& job_id, const v1::StepRecord& record);
// Sets the gauges e3_learner_NAME{training_job, stage} of /metrics.
void ExportStep(const std::string& job_id, const std::string& stage, const v1::StepRecord& record);

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_STEP_METRICS_H_
