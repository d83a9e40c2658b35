// The learner on gRPC.
#ifndef E3_LEARNER_SERVICE_LEARNER_SERVICE_H_
#define E3_LEARNER_SERVICE_LEARNER_SERVICE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "e3/v1/learner.grpc.pb.h"
#include "learner/service/learner_job.h"

namespace e3 {

class LearnerService final : public v1::Learner::Service {
 public:
  explicit LearnerService(const LearnerEnvironment& environment) : environment_(environment) {}

  grpc::Status RunStage(grpc::ServerContext* context, const v1::RunStageRequest* request,
                        grpc::ServerWriter<v1::StageEvent>* writer) override;
  grpc::Status Measure(grpc::ServerContext* context, const v1::MeasureRequest* request,
                       v1::MeasureReply* reply) override;
  grpc::Status FinishJob(grpc::ServerContext* context, const v1::FinishJobRequest* request,
                         v1::FinishJobReply* reply) override;

  // Ends calls after what they are doing.
  void Drain() { draining_ = true; }

 private:
  // The job, opened when it is not the one at hand. Called with the mutex held.
  // `term` of the job's lease; 0: whatever it is.
  absl::StatusOr<LearnerJob*> Open(const std::string& job_id, const v1::JobSpec& spec,
                                   uint64_t term);

  // The lock, when it is this call's turn; not locked when its client has left or the server
  // drains.
  std::unique_lock<std::timed_mutex> Turn(grpc::ServerContext* context);

  LearnerEnvironment environment_;
  // One call at a time: a new one waits until the one before has noticed that its client is gone.
  std::timed_mutex mutex_;
  std::unique_ptr<LearnerJob> job_;
  uint64_t term_ = 0;  // the highest seen
  std::atomic<bool> draining_{false};
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_LEARNER_SERVICE_H_
