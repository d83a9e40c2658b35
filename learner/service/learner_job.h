// A job on the learner: its policy, its durable batches, records and checkpoints, and the steps
// that turn one into the next.
#ifndef E3_LEARNER_SERVICE_LEARNER_JOB_H_
#define E3_LEARNER_SERVICE_LEARNER_JOB_H_

#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/learner.pb.h"
#include "learner/ranks/rank_leader.h"
#include "learner/service/batch_pipeline.h"
#include "learner/service/event_file.h"
#include "learner/service/reward_client.h"
#include "learner/service/rollout_collector.h"
#include "learner/service/rollout_pool.h"
#include "learner/trainer.h"
#include "model/prompt_encoder.h"
#include "services/runtime/store.h"

namespace e3 {

// What a job needs around it; all outlive it.
struct LearnerEnvironment {
  Store* store;
  RolloutPool* pool;
  RewardClient* rewards;
  std::string jobs_folder;  // default parent of the jobs' output folders
  RankOptions ranks;        // without workers: this process learns alone
  c10::Device device = c10::kCPU;
};

// Not thread-safe.
//
// Durability: a step's batch is in the store before its update, its record before anyone is told,
// and the parameters in a checkpoint every few steps, written while the next ones run. After a
// crash Open() goes back to the newest whole checkpoint; steps after it are done again from their
// stored batches, which gives the same updates, and replace their records.
class LearnerJob {
 public:
  using Stop = std::function<bool()>;
  // Told of every step and every checkpoint, when they are durable.
  using Tell = std::function<void(const v1::StageEvent&)>;

  static absl::StatusOr<std::unique_ptr<LearnerJob>> Open(const LearnerEnvironment& environment,
                                                          const std::string& job_id,
                                                          const v1::JobSpec& spec);
  // Takes its weights back from those who upload them, and waits for the checkpoint that is being
  // written.
  ~LearnerJob();

  // Brings the stage to `request.steps` steps, the last of them durable. FailedPrecondition when
  // the steps before the stage are not all there. After an error of `consistent()` jobs the stage
  // can be asked for again.
  absl::Status RunStage(const v1::RunStageRequest& request, const Stop& stop, const Tell& tell);
  absl::StatusOr<v1::MeasureReply> Measure(const v1::MeasureRequest& request, const Stop& stop);
  // The final model, ledger.jsonl, summary.json and summary.html in the output folder; returns the
  // model's folder.
  absl::StatusOr<std::string> Finish(const v1::FinishJobRequest& request);

  // Of the lease that the next weights are published under.
  void SetTerm(uint64_t term) { term_ = term; }

  const std::string& id() const { return id_; }
  // Whether the policy is that of the last step done. Not after a step that failed in the middle of
  // its updates: the job must be opened again then.
  bool consistent() const { return consistent_; }

 private:
  LearnerJob(const LearnerEnvironment& environment, std::string id, v1::JobSpec spec);
  absl::Status Load();
  // Divides the updates from now on among the ranks, where there are any.
  absl::Status JoinRanks(const Stop& stop);
  // Checks that the stage's updates fit into the memory of all ranks; at its first step, begins
  // afresh what the stage says.
  absl::Status BeginStage(const v1::RunStageRequest& request);
  absl::StatusOr<v1::StepRecord> RunStep(const v1::RunStageRequest& request,
                                         BatchPipeline& pipeline, const Stop& stop);
  // The batch of a step: from the store when it was collected before, else from the rollout
  // servers.
  absl::StatusOr<v1::CollectedBatch> StoredOrCollected(const v1::RunStageRequest& request,
                                                       uint64_t step, const Stop& stop);
  // The updates of a step; their statistics go into `metrics`.
  absl::Status UpdatePolicy(const v1::RunStageRequest& request, const v1::CollectedBatch& batch,
                            std::map<std::string, double>* metrics);
  // One optimizer update, by all ranks.
  absl::StatusOr<UpdateStatistics> Update(const std::vector<const TrainingRollout*>& rollouts,
                                          const v1::Training& training, double temperature);
  // Offers the weights to all servers. That none can be reached is no error yet: Generate keeps
  // trying.
  absl::Status PublishWeights(const v1::Training& training, const Stop& stop);
  // Begins a checkpoint of the steps done so far, after the one before has been written.
  absl::Status StartCheckpoint(const v1::Training& training, const Tell& tell);
  // The checkpoint that was begun, when it is written (or waited for): tells of it, and removes
  // what is not needed any more.
  absl::Status FinishCheckpoint(bool wait, const Tell& tell);
  // Notes the policy as the best so far when its J at the largest budget is.
  absl::Status NoteBest(const v1::MeasureRequest& request, const v1::MeasureReply& reply);
  // Of the steps done, in order.
  absl::StatusOr<std::vector<v1::StepRecord>> Records() const;
  // Into TensorBoard's file; what cannot be written there is only logged.
  void RecordEvents(const v1::StepRecord& record);
  v1::WeightVersion Version() const;
  std::string Key(const std::string& kind, uint64_t step) const;
  std::string CheckpointsFolder() const { return output_ + "/checkpoints"; }

  LearnerEnvironment environment_;
  std::string id_;
  v1::JobSpec spec_;
  std::string output_;
  std::unique_ptr<PromptEncoder> encoder_;
  std::unique_ptr<RankLeader> ranks_;  // null: alone
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<RolloutCollector> collector_;
  bool lent_ = false;      // the policy's own parameters, not a copy, were published since Recall
  int64_t skipped_ = 0;    // updates in a row
  double peak_flops_ = 0;  // of all ranks, with the stage's products
  std::unique_ptr<EventFile> events_;  // from the first step on
  uint64_t epoch_ = 0, term_ = 0;
  int groups_ = 0;  // of ranks, formed by this life of the job
  uint64_t steps_done_ = 0;
  bool consistent_ = true;
  // The newest checkpoint written or opened, and the one that is being written.
  uint64_t checkpointed_ = 0;
  struct Writing {
    uint64_t step;
    int64_t keep;
    std::string folder;
    std::future<absl::Status> done;
  };
  std::optional<Writing> writing_;
  bool owed_ = false;  // a checkpoint that could not be written: no step is taken before it is
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_LEARNER_JOB_H_
