// What a finished job leaves for people and scripts.
#ifndef E3_LEARNER_SERVICE_SUMMARY_H_
#define E3_LEARNER_SERVICE_SUMMARY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "e3/v1/learner.pb.h"

namespace e3 {

// ledger.jsonl in folder `output`, a line a step: step, stage, data, weight versions, metrics.
// Written anew, or with one more line.
absl::Status WriteLedger(const std::string& output, const std::vector<v1::StepRecord>& records);
absl::Status AppendToLedger(const std::string& output, const v1::StepRecord& record);

// Writes into folder `output`: summary.json, and summary.html, a page with the stages, how budgets
// were chosen, J before and after, and plots over the steps.
absl::Status WriteSummary(const std::string& output, const std::string& model_folder,
                          const v1::FinishJobRequest& request,
                          const std::vector<v1::StepRecord>& records);

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_SUMMARY_H_
