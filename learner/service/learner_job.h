// A job on the learner: its policy, its durable batches, records and checkpoints, and the steps
// that turn one into the next.
#ifndef E3_LEARNER_SERVICE_LEARNER_JOB_H_
#define E3_LEARNER_SERVICE_LEARNER_JOB_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/learner.pb.h"
#include "learner/service/event_file.h"
#include "learner/service/reward_client.h"
#include "learner/service/rollout_pool.h"
#include "learner/trainer.h"
#include "model/prompt_encoder.h"
#include "services/runtime/store.h"
#include "tasks/problem.h"

namespace e3 {

// What a job needs around it; all outlive it.
struct LearnerEnvironment {
  Store* store;
  RolloutPool* pool;
  RewardClient* rewards;
  std::string jobs_folder;  // default parent of the jobs' output folders
};

// Not thread-safe.
//
// Durability: a step's batch is in the store before its update, its record before anyone is told,
// and the parameters in a checkpoint every few steps. After a crash Open() goes back to the newest
// whole checkpoint; steps after it are done again from their stored batches, which gives the same
// updates, and replace their records.
class LearnerJob {
 public:
  static absl::StatusOr<std::unique_ptr<LearnerJob>> Open(const LearnerEnvironment& environment,
                                                          const std::string& job_id,
                                                          const v1::JobSpec& spec);

  // The step that follows steps_done(). `request` says the stage and its resolved settings.
  absl::StatusOr<v1::StepRecord> RunStep(const v1::RunStageRequest& request,
                                         const std::function<bool()>& stop);
  // Writes a checkpoint of the steps done so far; returns its folder.
  absl::StatusOr<std::string> WriteCheckpoint(int64_t keep);
  absl::StatusOr<v1::MeasureReply> Measure(const v1::MeasureRequest& request,
                                           const std::function<bool()>& stop);
  // The final model, ledger.jsonl, summary.json and summary.html in the output folder; returns the
  // model's folder.
  absl::StatusOr<std::string> Finish(const v1::FinishJobRequest& request);

  // Of the lease that the next weights are published under.
  void SetTerm(uint64_t term) { term_ = term; }

  const std::string& id() const { return id_; }
  uint64_t steps_done() const { return steps_done_; }
  // The step of the newest checkpoint written or opened.
  uint64_t checkpointed() const { return checkpointed_; }
  // Whether the policy is that of steps_done(). Not after a step that failed in the middle of its
  // updates: the job must be opened again then.
  bool consistent() const { return consistent_; }
  absl::StatusOr<v1::StepRecord> Record(uint64_t step) const;

 private:
  // A problem with its prompt as token ids.
  struct EncodedProblem {
    uint64_t index;  // in the data set
    std::vector<uint32_t> prompt;
    v1::ScoreRequest grading;
  };

  LearnerJob(const LearnerEnvironment& environment, std::string id, v1::JobSpec spec);
  absl::Status Load();
  // Into TensorBoard's file; what cannot be written there is only logged.
  void RecordEvents(const v1::StepRecord& record);
  absl::StatusOr<const std::vector<EncodedProblem>*> Problems(const std::string& dataset);
  // The problems of a step: the data set in a new random order each epoch.
  std::vector<const EncodedProblem*> Select(const std::vector<EncodedProblem>& problems,
                                            uint32_t stage, uint64_t stage_step,
                                            int64_t count) const;
  absl::StatusOr<v1::CollectedBatch> Collect(const v1::RunStageRequest& request, uint64_t step,
                                             const std::function<bool()>& stop);
  absl::StatusOr<v1::CollectedBatch> StoredOrCollected(const v1::RunStageRequest& request,
                                                       uint64_t step,
                                                       const std::function<bool()>& stop);
  // Offers the weights to all servers. That none can be reached is no error yet: Generate keeps
  // trying.
  absl::Status PublishWeights();
  v1::WeightVersion Version() const;
  std::string Key(const std::string& kind, uint64_t step) const;
  std::string Text(const google::protobuf::RepeatedField<uint32_t>& tokens) const;
  // The text of `tokens` as the request's response, with the byte at which each token ends.
  absl::Status SetTokens(const google::protobuf::RepeatedField<uint32_t>& tokens,
                         v1::ScoreRequest* request) const;

  LearnerEnvironment environment_;
  std::string id_;
  v1::JobSpec spec_;
  std::string output_;
  std::unique_ptr<PromptEncoder> encoder_;
  std::unique_ptr<Trainer> trainer_;
  std::map<std::string, std::vector<EncodedProblem>> problems_;
  int64_t skipped_ = 0;                // updates in a row
  std::unique_ptr<EventFile> events_;  // from the first step on
  uint64_t epoch_ = 0, term_ = 0;
  uint64_t steps_done_ = 0;
  uint64_t checkpointed_ = 0;
  bool consistent_ = true;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_LEARNER_JOB_H_
