#include "services/jobs/job_service.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "services/jobs/job_file.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

int64_t NowMs() { return absl::ToUnixMillis(absl::Now()); }

bool Ended(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_SUCCEEDED || job.state() == v1::JOB_STATE_FAILED ||
         job.state() == v1::JOB_STATE_CANCELLED;
}

grpc::Status NoSuchJob(const std::string& id) {
  return grpc::Status(grpc::StatusCode::NOT_FOUND,
                      absl::StrCat("no job '", id, "' ('e3 list' shows all)"));
}

std::chrono::milliseconds Duration(double seconds) {
  const double bounded = seconds > 0 ? std::min(seconds, 3600.0) : 15;  // NaN: 15
  return std::chrono::milliseconds(static_cast<int64_t>(bounded * 1000));
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobService>> JobService::Open(Store* store) {
  std::unique_ptr<JobService> service(new JobService(store));
  E3_ASSIGN_OR_RETURN(auto entries, store->Scan("job/"));
  for (const auto& [key, bytes] : entries) {
    v1::Job job;
    if (!job.ParseFromString(bytes)) {  // the others are not lost with it
      Log("error", "job record cannot be read; left alone", {{"record", key}});
      continue;
    }
    // Whoever runs it may still be alive: give it time to report before another may take it.
    if (job.state() == v1::JOB_STATE_RUNNING)
      service->leases_[job.id()] = {"", Clock::now() + Duration(0)};
    service->jobs_[job.id()] = std::move(job);
  }
  service->CountStates();
  return service;
}

absl::Status JobService::Save(v1::Job job) {
  job.set_revision(job.revision() + 1);
  E3_RETURN_IF_ERROR(store_->Put("job/" + job.id(), job));
  jobs_[job.id()] = std::move(job);
  CountStates();
  changed_.notify_all();
  return absl::OkStatus();
}

void JobService::CountStates() {
  std::map<v1::JobState, int> counts;
  for (const auto& [id, job] : jobs_) ++counts[job.state()];
  for (auto [state, name] :
       {std::pair(v1::JOB_STATE_QUEUED, "queued"), std::pair(v1::JOB_STATE_RUNNING, "running"),
        std::pair(v1::JOB_STATE_SUCCEEDED, "succeeded"), std::pair(v1::JOB_STATE_FAILED, "failed"),
        std::pair(v1::JOB_STATE_CANCELLED, "cancelled")}) {
    GaugeMetric("e3_jobs", "Jobs by state", {{"state", name}}).Set(counts[state]);
  }
}

grpc::Status JobService::SubmitJob(grpc::ServerContext* context,
                                   const v1::SubmitJobRequest* request, v1::SubmitJobReply* reply) {
  const std::string key = "key/" + request->idempotency_key();
  // Called with the mutex held.
  auto submitted_before = [&] {
    v1::GetJobRequest earlier;
    if (request->idempotency_key().empty() || !store_->Get(key, &earlier).ok() ||
        jobs_.count(earlier.id()) == 0)
      return false;
    *reply->mutable_job() = jobs_[earlier.id()];
    return true;
  };
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (submitted_before()) return grpc::Status::OK;
  }
  absl::StatusOr<v1::JobSpec> spec = ParseJob(request->yaml(), request->path());
  if (!spec.ok()) return ToGrpc(spec.status());

  std::lock_guard<std::mutex> lock(mutex_);
  // While the file was checked its client may have left and asked again.
  if (submitted_before()) return grpc::Status::OK;
  if (context != nullptr && context->IsCancelled())
    return grpc::Status(grpc::StatusCode::CANCELLED, "the client has left");
  std::random_device random;
  v1::Job job;
  do {
    job.set_id(absl::StrFormat("%s-%04x", spec->name(), random() & 0xffff));
  } while (jobs_.count(job.id()) > 0);
  *job.mutable_spec() = *std::move(spec);
  job.set_state(v1::JOB_STATE_QUEUED);
  job.set_submitted_at_ms(NowMs());
  job.set_revision(1);
  v1::GetJobRequest by_key;
  by_key.set_id(job.id());
  std::vector<std::pair<std::string, const google::protobuf::MessageLite*>> entries = {
      {"job/" + job.id(), &job}};
  if (!request->idempotency_key().empty()) entries.emplace_back(key, &by_key);
  if (absl::Status status = store_->PutAll(entries); !status.ok()) return ToGrpc(status);
  Log("info", "job submitted", {{"job", job.id()}});
  *reply->mutable_job() = job;
  jobs_[job.id()] = std::move(job);
  CountStates();
  changed_.notify_all();
  return grpc::Status::OK;
}

grpc::Status JobService::GetJob(grpc::ServerContext*, const v1::GetJobRequest* request,
                                v1::Job* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = jobs_.find(request->id());
  if (it == jobs_.end()) return NoSuchJob(request->id());
  *reply = it->second;
  return grpc::Status::OK;
}

grpc::Status JobService::ListJobs(grpc::ServerContext*, const v1::ListJobsRequest*,
                                  v1::ListJobsReply* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<const v1::Job*> jobs;
  for (const auto& [id, job] : jobs_) jobs.push_back(&job);
  std::sort(jobs.begin(), jobs.end(), [](const v1::Job* a, const v1::Job* b) {
    return a->submitted_at_ms() > b->submitted_at_ms();
  });
  for (const v1::Job* job : jobs) *reply->add_jobs() = *job;
  return grpc::Status::OK;
}

grpc::Status JobService::WatchJob(grpc::ServerContext* context, const v1::GetJobRequest* request,
                                  grpc::ServerWriter<v1::Job>* writer) {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!context->IsCancelled()) {
    auto it = jobs_.find(request->id());
    if (it == jobs_.end()) return NoSuchJob(request->id());
    if (it->second.revision() != seen) {
      v1::Job job = it->second;
      seen = job.revision();
      lock.unlock();
      if (!writer->Write(job)) return grpc::Status::OK;
      if (Ended(job)) return grpc::Status::OK;
      lock.lock();
      continue;
    }
    if (draining_)
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the job service is stopping");
    changed_.wait_for(lock, std::chrono::milliseconds(500));
  }
  return grpc::Status::OK;
}

grpc::Status JobService::CancelJob(grpc::ServerContext*, const v1::CancelJobRequest* request,
                                   v1::Job* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = jobs_.find(request->id());
  if (it == jobs_.end()) return NoSuchJob(request->id());
  v1::Job job = it->second;
  if (!Ended(job) && !job.cancel_requested()) {
    job.set_cancel_requested(true);
    if (job.state() == v1::JOB_STATE_QUEUED) {
      job.set_state(v1::JOB_STATE_CANCELLED);
      job.set_ended_at_ms(NowMs());
    }
    if (absl::Status status = Save(job); !status.ok()) return ToGrpc(status);
    Log("info", "job cancelled", {{"job", job.id()}});
  }
  *reply = jobs_[request->id()];
  return grpc::Status::OK;
}

grpc::Status JobService::LeaseJob(grpc::ServerContext*, const v1::LeaseJobRequest* request,
                                  v1::LeaseJobReply* reply) {
  if (request->holder().empty())
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a lease needs a holder");
  std::lock_guard<std::mutex> lock(mutex_);
  // The pool belongs to the running job; only when there is none does the queue move.
  const v1::Job* next = nullptr;
  for (const auto& [id, job] : jobs_) {
    if (job.state() == v1::JOB_STATE_RUNNING) {
      const Lease& lease = leases_[id];
      if (lease.holder != request->holder() && Clock::now() < lease.expires)
        return grpc::Status::OK;
      next = &job;
      break;
    }
    if (job.state() == v1::JOB_STATE_QUEUED &&
        (next == nullptr || job.submitted_at_ms() < next->submitted_at_ms()))
      next = &job;
  }
  if (next == nullptr) return grpc::Status::OK;
  v1::Job job = *next;
  const bool starts = job.state() == v1::JOB_STATE_QUEUED;
  if (starts) {
    job.set_state(v1::JOB_STATE_RUNNING);
    job.set_started_at_ms(NowMs());
  }
  if (starts || leases_[job.id()].holder != request->holder()) {
    uint64_t highest = 0;
    for (const auto& [id, other] : jobs_) highest = std::max(highest, other.term());
    job.set_term(highest + 1);
    if (absl::Status status = Save(job); !status.ok()) return ToGrpc(status);
  }
  leases_[job.id()] = {request->holder(), Clock::now() + Duration(request->duration())};
  Log("info", "job leased", {{"job", job.id()}, {"holder", request->holder()}});
  *reply->mutable_job() = jobs_[job.id()];
  return grpc::Status::OK;
}

grpc::Status JobService::ReportProgress(grpc::ServerContext*,
                                        const v1::ReportProgressRequest* request,
                                        v1::ReportProgressReply* reply) {
  if (request->holder().empty())
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a report needs the lease's holder");
  if (request->state() == v1::JOB_STATE_QUEUED)
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a running job is not queued again");
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = jobs_.find(request->job_id());
  if (it == jobs_.end()) return NoSuchJob(request->job_id());
  v1::Job job = it->second;
  Lease& lease = leases_[job.id()];
  const bool mine = lease.holder == request->holder() ||
                    (lease.holder.empty() && job.state() == v1::JOB_STATE_RUNNING);
  if (Ended(job) || !mine) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        absl::StrCat("the lease of job ", job.id(), " is lost"));
  }
  lease = {request->holder(), Clock::now() + Duration(request->duration())};
  bool changed = false;
  if (request->has_curriculum()) {
    *job.mutable_curriculum() = request->curriculum();
    changed = true;
  }
  if (request->has_step()) {
    *job.mutable_last_step() = request->step();
    changed = true;
  }
  if (!request->activity().empty() && request->activity() != job.activity()) {
    job.set_activity(request->activity());
    changed = true;
  }
  if (!request->checkpoint().empty()) {
    job.set_checkpoint(request->checkpoint());
    changed = true;
  }
  if (request->state() != v1::JOB_STATE_UNSPECIFIED && request->state() != job.state()) {
    job.set_state(request->state());
    job.set_error(request->error());
    changed = true;
    if (Ended(job)) {
      job.set_ended_at_ms(NowMs());
      Log("info", "job ended",
          {{"job", job.id()}, {"state", v1::JobState_Name(job.state())}, {"error", job.error()}});
    }
  }
  if (changed) {
    if (absl::Status status = Save(job); !status.ok()) return ToGrpc(status);
  }
  reply->set_cancel_requested(job.cancel_requested());
  return grpc::Status::OK;
}

void JobService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  changed_.notify_all();
}

}  // namespace e3
