#include "learner/service/learner_service.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/runtime/log.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/training_checks.h"

namespace e3 {
namespace {

absl::Status CheckStage(const v1::RunStageRequest& r) {
  if (r.budget() < 1 || r.steps() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a stage needs a budget of at least 1 (",
                                                   r.budget(), ") and steps (", r.steps(), ")"));
  }
  if (std::optional<BadSetting> bad = CheckTraining(r.training()))
    return absl::InvalidArgumentError(absl::StrCat("training.", bad->field, " ", bad->why));
  if (std::optional<BadSetting> bad = CheckTrainingSampling(r.sampling()))
    return absl::InvalidArgumentError(absl::StrCat("sampling.", bad->field, " ", bad->why));
  return absl::OkStatus();
}

}  // namespace

std::unique_lock<std::timed_mutex> LearnerService::Turn(grpc::ServerContext* context) {
  std::unique_lock<std::timed_mutex> lock(mutex_, std::defer_lock);
  while (!lock.try_lock_for(std::chrono::milliseconds(100))) {
    if (context->IsCancelled() || draining_) return lock;
  }
  // A client that is gone must not have its job opened in place of another's.
  if (context->IsCancelled() || draining_) lock.unlock();
  return lock;
}

absl::StatusOr<LearnerJob*> LearnerService::Open(const std::string& job_id, const v1::JobSpec& spec,
                                                 uint64_t term) {
  if (job_id.empty() || !RE2::FullMatch(job_id, "[A-Za-z0-9][A-Za-z0-9_.-]*"))
    return absl::InvalidArgumentError(absl::StrCat("'", job_id, "' is no job id"));
  if (term > 0 && term < term_) {
    return absl::FailedPreconditionError(absl::StrCat("the lease of job ", job_id, " (term ", term,
                                                      ") was followed by term ", term_));
  }
  term_ = std::max(term_, term);
  // A job whose step was interrupted half-way goes back to its last checkpoint.
  if (job_ == nullptr || job_->id() != job_id || !job_->consistent()) {
    job_.reset();
    E3_ASSIGN_OR_RETURN(job_, LearnerJob::Open(environment_, job_id, spec));
  }
  job_->SetTerm(term_);
  return job_.get();
}

grpc::Status LearnerService::RunStage(grpc::ServerContext* context,
                                      const v1::RunStageRequest* request,
                                      grpc::ServerWriter<v1::StageEvent>* writer) {
  if (absl::Status checked = CheckStage(*request); !checked.ok()) return ToGrpc(checked);
  std::unique_lock<std::timed_mutex> lock = Turn(context);
  if (!lock) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "ended while waiting for its turn");
  auto stop = [&] { return context->IsCancelled() || draining_.load(); };
  if (request->stage() >= static_cast<uint32_t>(request->spec().curriculum().stages_size())) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the job has no such stage");
  }
  absl::StatusOr<LearnerJob*> opened = Open(request->job_id(), request->spec(), request->term());
  if (!opened.ok()) return ToGrpc(opened.status());
  absl::Status status = (*opened)->RunStage(
      *request, stop, [&](const v1::StageEvent& event) { writer->Write(event); });
  if (!status.ok()) {
    Log("warning", "stage interrupted",
        {{"job", request->job_id()}, {"error", std::string(status.message())}});
  }
  // A policy that moved on from what is recorded goes back to the last checkpoint.
  if (!(*opened)->consistent()) job_.reset();
  return ToGrpc(status);
}

grpc::Status LearnerService::Measure(grpc::ServerContext* context,
                                     const v1::MeasureRequest* request, v1::MeasureReply* reply) {
  int64_t previous = 0;
  for (int64_t budget : request->budgets()) {
    if (budget <= previous)
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          "the budgets must be ascending and above 0");
    previous = budget;
  }
  if (request->budgets().empty() || request->prompts() < 1 || request->samples() < 1) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        "a measurement needs budgets, prompts and samples");
  }
  std::unique_lock<std::timed_mutex> lock = Turn(context);
  if (!lock) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "ended while waiting for its turn");
  auto stop = [&] { return context->IsCancelled() || draining_.load(); };
  absl::StatusOr<LearnerJob*> job = Open(request->job_id(), request->spec(), request->term());
  if (!job.ok()) return ToGrpc(job.status());
  absl::StatusOr<v1::MeasureReply> measured = (*job)->Measure(*request, stop);
  if (!measured.ok()) return ToGrpc(measured.status());
  *reply = *std::move(measured);
  return grpc::Status::OK;
}

grpc::Status LearnerService::FinishJob(grpc::ServerContext* context,
                                       const v1::FinishJobRequest* request,
                                       v1::FinishJobReply* reply) {
  std::unique_lock<std::timed_mutex> lock = Turn(context);
  if (!lock) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "ended while waiting for its turn");
  absl::StatusOr<LearnerJob*> job = Open(request->job_id(), request->spec(), 0);
  if (!job.ok()) return ToGrpc(job.status());
  absl::StatusOr<std::string> model = (*job)->Finish(*request);
  if (!model.ok()) return ToGrpc(model.status());
  reply->set_checkpoint(*model);
  Log("info", "job finished",
      {{"job", request->job_id()}, {"outcome", request->outcome()}, {"model", *model}});
  job_.reset();
  return grpc::Status::OK;
}

}  // namespace e3
