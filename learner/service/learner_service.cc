#include "learner/service/learner_service.h"

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::StatusOr<LearnerJob*> LearnerService::Open(const std::string& job_id,
                                                 const v1::JobSpec& spec) {
  if (job_ == nullptr || job_->id() != job_id) {
    job_.reset();
    E3_ASSIGN_OR_RETURN(job_, LearnerJob::Open(environment_, job_id, spec));
  }
  return job_.get();
}

grpc::Status LearnerService::RunStage(grpc::ServerContext* context,
                                      const v1::RunStageRequest* request,
                                      grpc::ServerWriter<v1::StageEvent>* writer) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto stop = [&] { return context->IsCancelled() || draining_.load(); };
  if (request->stage() >= static_cast<uint32_t>(request->spec().curriculum().stages_size())) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the job has no such stage");
  }
  absl::StatusOr<LearnerJob*> opened = Open(request->job_id(), request->spec());
  if (!opened.ok()) return ToGrpc(opened.status());
  LearnerJob& job = **opened;
  const uint64_t target = request->first_step() + static_cast<uint64_t>(request->steps());
  if (job.steps_done() < request->first_step()) {
    return grpc::Status(
        grpc::StatusCode::FAILED_PRECONDITION,
        absl::StrCat("only ", job.steps_done(),
                     " steps of the job are durable; its earlier stages must be run again"));
  }
  auto send = [&](const v1::StageEvent& event) { return writer->Write(event); };
  if (job.steps_done() > request->first_step()) {
    // Someone who asks again hears where the stage stands.
    absl::StatusOr<v1::StepRecord> record = job.Record(std::min(job.steps_done(), target));
    v1::StageEvent event;
    if (record.ok()) *event.mutable_step() = *std::move(record);
    if (record.ok()) send(event);
  }
  while (job.steps_done() < target) {
    if (stop()) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "stopped between two steps");
    absl::StatusOr<v1::StepRecord> record = job.RunStep(*request, stop);
    if (!record.ok()) {
      // A policy that moved on from what is recorded goes back to the last checkpoint.
      if (!job.consistent()) job_.reset();
      return ToGrpc(record.status());
    }
    const auto& m = record->metrics();
    Log("info", "step",
        {{"job", job.id()},
         {"stage", request->stage()},
         {"step", record->step()},
         {"budget", record->budget()},
         {"reward", m.at("reward")},
         {"length", m.at("response_length")},
         {"entropy", m.at("entropy")},
         {"tokens_per_second", m.at("tokens_per_second")},
         {"mismatch_max", m.at("mismatch_max")}});
    const uint64_t stage_step = job.steps_done() - request->first_step();
    if (stage_step % static_cast<uint64_t>(request->training().checkpoint_every()) == 0 ||
        job.steps_done() == target) {
      absl::StatusOr<std::string> folder =
          job.WriteCheckpoint(request->training().keep_checkpoints());
      if (!folder.ok()) return ToGrpc(folder.status());
      v1::StageEvent event;
      event.mutable_checkpoint()->set_step(job.steps_done());
      event.mutable_checkpoint()->set_path(*folder);
      send(event);
    }
    v1::StageEvent event;
    *event.mutable_step() = *std::move(record);
    send(event);
  }
  return grpc::Status::OK;
}

grpc::Status LearnerService::Measure(grpc::ServerContext* context,
                                     const v1::MeasureRequest* request, v1::MeasureReply* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (request->budgets().empty())
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a measurement needs budgets");
  absl::StatusOr<LearnerJob*> job = Open(request->job_id(), request->spec());
  if (!job.ok()) return ToGrpc(job.status());
  absl::StatusOr<v1::MeasureReply> measured =
      (*job)->Measure(*request, [&] { return context->IsCancelled() || draining_.load(); });
  if (!measured.ok()) return ToGrpc(measured.status());
  *reply = *std::move(measured);
  return grpc::Status::OK;
}

grpc::Status LearnerService::FinishJob(grpc::ServerContext*, const v1::FinishJobRequest* request,
                                       v1::FinishJobReply* reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<LearnerJob*> job = Open(request->job_id(), request->spec());
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
