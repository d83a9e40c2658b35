// The paper's quantities of a step, from its batch.
#ifndef E3_LEARNER_SERVICE_STEP_METRICS_H_
#define E3_LEARNER_SERVICE_STEP_METRICS_H_

#include <map>
#include <string>

#include "e3/v1/learner.pb.h"

namespace e3 {

// reward, response_length (also _correct, _incorrect, _p50, _p95), truncated_share,
// zero_signal_share, entropy, verifications and attempts (also _correct, _incorrect),
// repeating_share, rollouts, response_tokens.
std::map<std::string, double> BatchMetrics(const v1::CollectedBatch& batch);

// Sets the gauges e3_learner_NAME{training_job, stage} of /metrics.
void ExportStep(const std::string& job_id, const std::string& stage, const v1::StepRecord& record);

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_STEP_METRICS_H_
