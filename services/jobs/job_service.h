// The job service: jobs in RocksDB, watched by clients, leased to the curriculum controller.
#ifndef E3_SERVICES_JOBS_JOB_SERVICE_H_
#define E3_SERVICES_JOBS_JOB_SERVICE_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

#include "absl/status/statusor.h"
#include "e3/v1/jobs.grpc.pb.h"
#include "services/runtime/store.h"

namespace e3 {

// Every change is in the store before anyone sees it. Thread-safe.
class JobService final : public v1::Jobs::Service {
 public:
  // `store` outlives the service. Reads all jobs.
  static absl::StatusOr<std::unique_ptr<JobService>> Open(Store* store);

  grpc::Status SubmitJob(grpc::ServerContext*, const v1::SubmitJobRequest*,
                         v1::SubmitJobReply*) override;
  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest*, v1::Job*) override;
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest*,
                        v1::ListJobsReply*) override;
  grpc::Status WatchJob(grpc::ServerContext*, const v1::GetJobRequest*,
                        grpc::ServerWriter<v1::Job>*) override;
  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest*, v1::Job*) override;
  grpc::Status LeaseJob(grpc::ServerContext*, const v1::LeaseJobRequest*,
                        v1::LeaseJobReply*) override;
  grpc::Status ReportProgress(grpc::ServerContext*, const v1::ReportProgressRequest*,
                              v1::ReportProgressReply*) override;

  // Ends all watches.
  void Drain();

 private:
  using Clock = std::chrono::steady_clock;
  struct Lease {
    std::string holder;  // empty: unknown since the service started
    Clock::time_point expires;
  };

  explicit JobService(Store* store) : store_(store) {}
  // Stores `job` with the next revision and wakes watchers. Called with the mutex held.
  absl::Status Save(v1::Job job);
  void CountStates();

  Store* store_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, v1::Job> jobs_;
  std::map<std::string, Lease> leases_;
  bool draining_ = false;
};

}  // namespace e3

#endif  // E3_SERVICES_JOBS_JOB_SERVICE_H_
