// The controller: leases a job, runs its stages on the learner, and writes every transition down
// before it acts on it.
#ifndef E3_CURRICULUM_CONTROLLER_SERVICE_CONTROLLER_H_
#define E3_CURRICULUM_CONTROLLER_SERVICE_CONTROLLER_H_

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "curriculum_controller/budget_rule.h"
#include "e3/v1/curriculum.grpc.pb.h"
#include "e3/v1/jobs.grpc.pb.h"
#include "e3/v1/learner.grpc.pb.h"
#include "services/runtime/store.h"

namespace e3 {

struct ControllerOptions {
  std::string name = "controller-0";  // the lease's holder: the same after a restart, so that the
                                      // job goes on at once
  std::string job_service = "127.0.0.1:7400";
  std::string learner = "127.0.0.1:7402";
};

class Controller final : public v1::CurriculumController::Service {
 public:
  // `store` outlives the controller. Starts its thread.
  Controller(const ControllerOptions& options, Store* store);
  ~Controller() override;

  grpc::Status GetCurriculum(grpc::ServerContext*, const v1::GetCurriculumRequest* request,
                             v1::CurriculumState* reply) override;

  // Stops after the call in progress; the job stays leased and goes on at the next start.
  void Stop();

 private:
  void Run();
  // Keeps the lease alive, and learns of cancellations, while a job runs.
  void Heartbeat();

  // Brings a job to its end, whatever that is, and reports it.
  void RunJob(const v1::Job& job);
  absl::Status RunStages(const v1::Job& job, v1::CurriculumState* state);
  absl::Status RunOneStage(const v1::Job& job, uint32_t index, v1::CurriculumState* state);
  absl::Status ChooseStageBudget(const v1::Job& job, uint32_t index, v1::CurriculumState* state);
  // Runs the stage up to `steps` steps; calls again after every failure that may pass.
  absl::Status RunSteps(const v1::Job& job, uint32_t index, int64_t steps,
                        v1::CurriculumState* state);
  // J after `stage_step` steps of the stage, appended to its evaluations once.
  absl::StatusOr<PerformanceCurve> Evaluate(const v1::Job& job, uint32_t index, int64_t stage_step,
                                            v1::CurriculumState* state);
  absl::StatusOr<std::string> Finish(const v1::Job& job, const v1::CurriculumState& state,
                                     const std::string& outcome);

  // Calls `call` until it succeeds or fails for good.
  absl::Status Retry(const std::string& job_id, const std::string& what,
                     const std::function<absl::Status(grpc::ClientContext*)>& call);
  absl::Status Save(const v1::CurriculumState& state);
  void Report(v1::ReportProgressRequest request);
  void SetActivity(const std::string& text);
  bool Interrupted() const { return stop_ || cancelled_ || lease_lost_; }
  void Sleep(double seconds);

  ControllerOptions options_;
  Store* store_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Learner::Stub> learner_;

  std::atomic<bool> stop_{false}, cancelled_{false}, lease_lost_{false}, finishing_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string current_job_;  // empty: none
  std::string activity_;
  grpc::ClientContext* learner_call_ = nullptr;  // what an interruption cancels
  std::thread thread_, heartbeat_;
};

}  // namespace e3

#endif  // E3_CURRICULUM_CONTROLLER_SERVICE_CONTROLLER_H_
