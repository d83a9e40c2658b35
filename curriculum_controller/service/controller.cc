#include "curriculum_controller/service/controller.h"

#include <algorithm>
#include <chrono>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"
#include "services/runtime/stage_settings.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

constexpr double kLeaseSeconds = 15;

std::vector<int64_t> Grid(const v1::JobSpec& spec) {
  return {spec.curriculum().grid().begin(), spec.curriculum().grid().end()};
}

// The gauges of a stage, from its durable state: the same after a restart.
void ExportStage(const std::string& job, const v1::StageState& stage) {
  if (stage.budget() > 0) {
    GaugeMetric("e3_curriculum_budget", "Token budget of the stage",
                {{"training_job", job}, {"stage", stage.name()}})
        .Set(static_cast<double>(stage.budget()));
  }
  if (stage.evaluations().empty()) return;
  const v1::Evaluation& newest = *stage.evaluations().rbegin();
  PerformanceCurve curve;
  curve.budgets.assign(newest.budgets().begin(), newest.budgets().end());
  curve.j.assign(newest.j().begin(), newest.j().end());
  for (size_t i = 0; i < curve.budgets.size(); ++i) {
    GaugeMetric("e3_curriculum_j", "J(pi, D, B): performance at a token budget",
                {{"training_job", job},
                 {"stage", stage.name()},
                 {"budget", absl::StrCat(curve.budgets[i])}})
        .Set(curve.j[i]);
  }
  GaugeMetric("e3_curriculum_mean_length", "Mean response length at the largest budget measured",
              {{"training_job", job}, {"stage", stage.name()}})
      .Set(newest.mean_length());
  absl::StatusOr<double> j = curve.At(stage.budget()), j2 = curve.At(2 * stage.budget());
  if (j.ok() && j2.ok()) {
    GaugeMetric("e3_curriculum_extrapolation_ratio", "J(2B)/J(B) at the stage's budget",
                {{"training_job", job}, {"stage", stage.name()}})
        .Set(ExtrapolationRatio(*j, *j2));
  }
}

}  // namespace

Controller::Controller(const ControllerOptions& options, Store* store)
    : options_(options),
      store_(store),
      jobs_(v1::Jobs::NewStub(Connect(options.job_service))),
      learner_(v1::Learner::NewStub(Connect(options.learner))) {
  thread_ = std::thread([this] { Run(); });
  heartbeat_ = std::thread([this] { Heartbeat(); });
}

Controller::~Controller() {
  Stop();
  thread_.join();
  heartbeat_.join();
}

void Controller::Stop() {
  stop_ = true;
  std::lock_guard<std::mutex> lock(mutex_);
  if (learner_call_ != nullptr) learner_call_->TryCancel();
  changed_.notify_all();
}

grpc::Status Controller::GetCurriculum(grpc::ServerContext*,
                                       const v1::GetCurriculumRequest* request,
                                       v1::CurriculumState* reply) {
  absl::Status status = store_->Get("curriculum/" + request->job_id(), reply);
  if (absl::IsNotFound(status)) {
    status = absl::NotFoundError(
        absl::StrCat("no job '", request->job_id(), "' has been run by this controller"));
  }
  return ToGrpc(status);
}

void Controller::Sleep(double seconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)),
                    [&] { return Interrupted(); });
}

void Controller::Run() {
  while (!stop_) {
    v1::LeaseJobRequest request;
    request.set_holder(options_.name);
    request.set_duration(kLeaseSeconds);
    v1::LeaseJobReply reply;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    grpc::Status status = jobs_->LeaseJob(&context, request, &reply);
    if (status.ok() && reply.has_job()) {
      RunJob(reply.job());
    } else {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(500), [&] { return stop_.load(); });
    }
  }
}

void Controller::Heartbeat() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, std::chrono::seconds(2), [&] { return stop_.load(); });
    if (current_job_.empty() || stop_) continue;
    v1::ReportProgressRequest request;
    request.set_job_id(current_job_);
    request.set_activity(activity_);
    lock.unlock();
    Report(std::move(request));
    lock.lock();
  }
}

void Controller::Report(v1::ReportProgressRequest request) {
  request.set_holder(options_.name);
  request.set_duration(kLeaseSeconds);
  v1::ReportProgressReply reply;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::Status status = jobs_->ReportProgress(&context, request, &reply);
  const bool lost = status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
                    status.error_code() == grpc::StatusCode::NOT_FOUND;
  // The end of a job, cancelled or not, is brought to its end.
  const bool cancelled = status.ok() && reply.cancel_requested() && !finishing_;
  if (!lost && !cancelled) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (request.job_id() != current_job_) return;
  (lost ? lease_lost_ : cancelled_) = true;
  if (learner_call_ != nullptr) learner_call_->TryCancel();
  changed_.notify_all();
}

void Controller::SetActivity(const std::string& text) {
  v1::ReportProgressRequest request;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (activity_ == text) return;
    activity_ = text;
    request.set_job_id(current_job_);
  }
  request.set_activity(text);
  Report(std::move(request));
}

absl::Status Controller::Save(const v1::CurriculumState& state) {
  E3_RETURN_IF_ERROR(store_->Put("curriculum/" + state.job_id(), state));
  for (const v1::StageState& stage : state.stages()) ExportStage(state.job_id(), stage);
  v1::ReportProgressRequest request;
  request.set_job_id(state.job_id());
  *request.mutable_curriculum() = state;
  Report(std::move(request));
  return absl::OkStatus();
}

absl::Status Controller::Retry(const std::string& job_id, const std::string& what,
                               const std::function<absl::Status(grpc::ClientContext*)>& call) {
  while (true) {
    if (Interrupted()) return absl::CancelledError("interrupted");
    SetActivity(what);
    grpc::ClientContext context;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // Whoever interrupts after this finds the call.
      if (Interrupted()) return absl::CancelledError("interrupted");
      learner_call_ = &context;
    }
    absl::Status status = call(&context);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      learner_call_ = nullptr;
    }
    if (status.ok() || Interrupted())
      return Interrupted() && !status.ok() ? absl::CancelledError("interrupted") : status;
    // A full disk is waited for as a learner that is away is: nothing is lost meanwhile.
    if (!IsTransient(status) && !absl::IsResourceExhausted(status)) return status;
    Log("warning", "the learner cannot go on; trying again",
        {{"job", job_id}, {"doing", what}, {"error", std::string(status.message())}});
    SetActivity(absl::StrCat("waiting for the learner (", what, "): ", status.message()));
    Sleep(1);
  }
}

void Controller::RunJob(const v1::Job& job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    current_job_ = job.id();
    activity_.clear();
    cancelled_ = job.cancel_requested();
    lease_lost_ = false;
    finishing_ = false;
  }
  absl::Cleanup none_runs = [this] {
    std::lock_guard<std::mutex> lock(mutex_);
    current_job_.clear();
  };
  Log("info", "job begins or goes on", {{"job", job.id()}});
  v1::CurriculumState state;
  absl::Status status = store_->Get("curriculum/" + job.id(), &state);
  if (absl::IsNotFound(status)) {
    state.set_job_id(job.id());
    for (const v1::Stage& stage : job.spec().curriculum().stages())
      state.add_stages()->set_name(stage.name());
    status = absl::OkStatus();
  }
  if (status.ok()) status = Save(state);
  if (status.ok()) status = RunStages(job, &state);

  const bool cancelled = cancelled_;
  std::string checkpoint;
  if (!stop_ && !lease_lost_) {
    v1::ReportProgressRequest last;
    last.set_job_id(job.id());
    std::string outcome = cancelled ? "cancelled" : status.ok() ? "succeeded" : "failed";
    finishing_ = true;
    cancelled_ = false;
    absl::StatusOr<std::string> model = Finish(job, state, outcome);
    if (!model.ok() && (stop_ || lease_lost_)) return;
    if (model.ok()) last.set_checkpoint(*model);
    if (!model.ok() && status.ok() && !cancelled) status = model.status();
    last.set_state(cancelled     ? v1::JOB_STATE_CANCELLED
                   : status.ok() ? v1::JOB_STATE_SUCCEEDED
                                 : v1::JOB_STATE_FAILED);
    if (!status.ok() && !cancelled) last.set_error(std::string(status.message()));
    last.set_activity("done");
    // The job service must hear of the end; until then the job is still ours.
    last.set_holder(options_.name);
    last.set_duration(kLeaseSeconds);
    while (!stop_ && !lease_lost_) {
      v1::ReportProgressReply reply;
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
      grpc::Status sent = jobs_->ReportProgress(&context, last, &reply);
      if (sent.ok() || sent.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
          sent.error_code() == grpc::StatusCode::NOT_FOUND)
        break;
      Sleep(0.5);
    }
    Log(status.ok() || cancelled ? "info" : "error", "job ended",
        {{"job", job.id()}, {"outcome", outcome}, {"error", std::string(status.message())}});
  }
}

absl::Status Controller::RunStages(const v1::Job& job, v1::CurriculumState* state) {
  for (uint32_t i = state->current(); i < static_cast<uint32_t>(state->stages_size()); ++i) {
    absl::Status status = RunOneStage(job, i, state);
    if (absl::IsFailedPrecondition(status)) {
      // The learner lost its newest checkpoints: the stages before are brought to their ends again,
      // which is quick where they are.
      Log("warning", "earlier stages are run again",
          {{"job", job.id()}, {"error", std::string(status.message())}});
      for (uint32_t k = 0; k < i; ++k)
        E3_RETURN_IF_ERROR(RunSteps(
            job, k, static_cast<int64_t>(state->stages(static_cast<int>(k)).steps_done()), state));
      status = RunOneStage(job, i, state);
    }
    E3_RETURN_IF_ERROR(status);
  }
  state->set_finished(true);
  return Save(*state);
}

absl::Status Controller::RunOneStage(const v1::Job& job, uint32_t index,
                                     v1::CurriculumState* state) {
  const v1::Stage& stage = job.spec().curriculum().stages(static_cast<int>(index));
  v1::StageState* progress = state->mutable_stages(static_cast<int>(index));
  if (progress->budget() == 0) E3_RETURN_IF_ERROR(ChooseStageBudget(job, index, state));

  std::vector<double> ratios;
  std::string reason = absl::StrCat("all ", stage.steps(), " steps done");
  int64_t done = 0;
  while (done < stage.steps()) {
    int64_t next = stage.steps();
    if (stage.advance() != v1::ADVANCE_STEPS) next = std::min(next, done + stage.measure_every());
    E3_RETURN_IF_ERROR(RunSteps(job, index, next, state));
    done = next;
    E3_ASSIGN_OR_RETURN(PerformanceCurve curve, Evaluate(job, index, done, state));
    E3_ASSIGN_OR_RETURN(double j, curve.At(progress->budget()));
    E3_ASSIGN_OR_RETURN(double j2, curve.At(2 * progress->budget()));
    ratios.push_back(ExtrapolationRatio(j, j2));
    if (ShouldAdvance(stage.advance(), ratios, job.spec().curriculum().kappa())) {
      reason = absl::StrFormat("J(2B)/J(B) was %.3f and %.3f in two measurements in a row",
                               ratios[ratios.size() - 2], ratios.back());
      break;
    }
  }
  progress->set_done(true);
  progress->set_done_reason(reason);
  state->set_current(index + 1);
  if (index + 1 < static_cast<uint32_t>(state->stages_size())) {
    state->mutable_stages(static_cast<int>(index) + 1)
        ->set_first_step(progress->first_step() + static_cast<uint64_t>(done));
  }
  Log("info", "stage done", {{"job", job.id()}, {"stage", stage.name()}, {"reason", reason}});
  return Save(*state);
}

absl::Status Controller::ChooseStageBudget(const v1::Job& job, uint32_t index,
                                           v1::CurriculumState* state) {
  const v1::Stage& stage = job.spec().curriculum().stages(static_cast<int>(index));
  E3_ASSIGN_OR_RETURN(PerformanceCurve curve, Evaluate(job, index, 0, state));
  v1::StageState* progress = state->mutable_stages(static_cast<int>(index));
  int64_t budget = 0;
  if (stage.budget() == "auto") {
    E3_ASSIGN_OR_RETURN(v1::BudgetChoice choice,
                        ChooseBudget(curve, Grid(job.spec()), job.spec().curriculum().kappa()));
    budget = choice.budget();
    Log(choice.fallback() ? "warning" : "info", "budget chosen",
        {{"job", job.id()},
         {"stage", stage.name()},
         {"budget", budget},
         {"why", choice.explanation()}});
    *progress->mutable_choice() = std::move(choice);
  } else if (!absl::SimpleAtoi(stage.budget(), &budget)) {
    return absl::InvalidArgumentError(absl::StrCat("stage ", stage.name(), " has no budget"));
  }
  progress->set_budget(budget);
  return Save(*state);
}

absl::Status Controller::RunSteps(const v1::Job& job, uint32_t index, int64_t steps,
                                  v1::CurriculumState* state) {
  const v1::Stage& stage = job.spec().curriculum().stages(static_cast<int>(index));
  v1::StageState* progress = state->mutable_stages(static_cast<int>(index));
  v1::RunStageRequest request;
  request.set_job_id(job.id());
  *request.mutable_spec() = job.spec();
  request.set_stage(index);
  request.set_first_step(progress->first_step());
  request.set_budget(progress->budget());
  request.set_steps(steps);
  request.set_term(job.term());
  *request.mutable_training() = StageTraining(job.spec(), stage);
  for (uint32_t k = 0; k < index; ++k) {
    const v1::Stage& earlier = job.spec().curriculum().stages(static_cast<int>(k));
    if (earlier.dataset() != stage.dataset()) continue;
    request.set_first_position(
        request.first_position() +
        state->stages(static_cast<int>(k)).steps_done() *
            static_cast<uint64_t>(StageTraining(job.spec(), earlier).prompts_per_step()));
  }
  *request.mutable_sampling() = StageSampling(job.spec(), stage);
  return Retry(
      job.id(), absl::StrCat("training stage ", stage.name()), [&](grpc::ClientContext* context) {
        auto reader = learner_->RunStage(context, request);
        v1::StageEvent event;
        while (reader->Read(&event)) {
          v1::ReportProgressRequest report;
          report.set_job_id(job.id());
          if (event.has_step()) {
            progress->set_steps_done(
                std::max(progress->steps_done(), event.step().step() - progress->first_step()));
            if (absl::Status saved = store_->Put("curriculum/" + job.id(), *state); !saved.ok()) {
              context->TryCancel();
              (void)reader->Finish();
              return saved;
            }
            *report.mutable_step() = event.step();
            *report.mutable_curriculum() = *state;
          } else if (event.has_checkpoint()) {
            report.set_checkpoint(event.checkpoint().path());
          }
          Report(std::move(report));
        }
        return FromGrpc(reader->Finish());
      });
}

absl::StatusOr<PerformanceCurve> Controller::Evaluate(const v1::Job& job, uint32_t index,
                                                      int64_t stage_step,
                                                      v1::CurriculumState* state) {
  const v1::Stage& stage = job.spec().curriculum().stages(static_cast<int>(index));
  v1::StageState* progress = state->mutable_stages(static_cast<int>(index));
  int64_t fixed = 0;
  (void)absl::SimpleAtoi(stage.budget(), &fixed);
  const std::vector<int64_t> budgets = BudgetsToMeasure(Grid(job.spec()), fixed);
  const v1::Measurement& measurement = job.spec().curriculum().measurement();
  v1::MeasureRequest request;
  request.set_job_id(job.id());
  *request.mutable_spec() = job.spec();
  request.set_name(absl::StrCat("stage-", index, "-step-", stage_step));
  request.set_after_step(progress->first_step() + static_cast<uint64_t>(stage_step));
  request.set_dataset(stage.evaluation());
  request.mutable_budgets()->Add(budgets.begin(), budgets.end());
  request.set_prompts(measurement.prompts());
  request.set_samples(measurement.samples());
  request.set_term(job.term());
  *request.mutable_sampling() = StageSampling(job.spec(), stage);
  v1::MeasureReply reply;
  E3_RETURN_IF_ERROR(Retry(job.id(),
                           absl::StrCat("measuring J on ", stage.evaluation(), " after step ",
                                        stage_step, " of stage ", stage.name()),
                           [&](grpc::ClientContext* context) {
                             return FromGrpc(learner_->Measure(context, request, &reply));
                           }));
  E3_ASSIGN_OR_RETURN(PerformanceCurve curve, ComputeCurve(reply, budgets, measurement.pass_at()));
  for (const v1::Evaluation& e : progress->evaluations()) {
    if (static_cast<int64_t>(e.stage_step()) == stage_step) return curve;
  }
  v1::Evaluation* evaluation = progress->add_evaluations();
  evaluation->set_stage_step(static_cast<uint64_t>(stage_step));
  evaluation->mutable_budgets()->Add(curve.budgets.begin(), curve.budgets.end());
  evaluation->mutable_j()->Add(curve.j.begin(), curve.j.end());
  evaluation->set_mean_length(curve.mean_length);
  evaluation->set_verifications(curve.verifications);
  E3_RETURN_IF_ERROR(Save(*state));
  return curve;
}

absl::StatusOr<std::string> Controller::Finish(const v1::Job& job, const v1::CurriculumState& state,
                                               const std::string& outcome) {
  v1::FinishJobRequest request;
  request.set_job_id(job.id());
  *request.mutable_spec() = job.spec();
  request.set_outcome(outcome);
  *request.mutable_curriculum() = state;
  v1::FinishJobReply reply;
  E3_RETURN_IF_ERROR(Retry(job.id(), "writing the final model", [&](grpc::ClientContext* context) {
    return FromGrpc(learner_->FinishJob(context, request, &reply));
  }));
  return reply.checkpoint();
}

}  // namespace e3
