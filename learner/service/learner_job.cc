#include "learner/service/learner_job.h"

#include <chrono>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "learner/advantages.h"
#include "learner/checkpoint.h"
#include "learner/device_memory.h"
#include "learner/flops.h"
#include "learner/memory_need.h"
#include "learner/service/step_metrics.h"
#include "learner/service/summary.h"
#include "model/device.h"
#include "services/runtime/files.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/no_throw.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"

namespace e3 {
namespace {

v1::RunningPolicy PolicyFor(v1::RunningRollouts running) {
  switch (running) {
    case v1::RUNNING_ROLLOUTS_RECOMPUTE:
      return v1::RUNNING_POLICY_RECOMPUTE;
    case v1::RUNNING_ROLLOUTS_DRAIN:
      return v1::RUNNING_POLICY_DRAIN;
    case v1::RUNNING_ROLLOUTS_CUT:
      return v1::RUNNING_POLICY_CUT;
    default:
      return v1::RUNNING_POLICY_CONTINUE;
  }
}

// The most that rounding makes of the difference between two computations of a log-probability.
double MismatchLimit(c10::Device device, const v1::Training& training) {
  if (training.compute_dtype() == v1::COMPUTE_DTYPE_BF16) return 1;
  return device.is_cpu() ? 1e-5 : 1e-3;
}

}  // namespace

LearnerJob::LearnerJob(const LearnerEnvironment& environment, std::string id, v1::JobSpec spec)
    : environment_(environment), id_(std::move(id)), spec_(std::move(spec)) {
  output_ = (spec_.output().empty() ? environment_.jobs_folder : spec_.output()) + "/" + id_;
}

absl::StatusOr<std::unique_ptr<LearnerJob>> LearnerJob::Open(const LearnerEnvironment& environment,
                                                             const std::string& job_id,
                                                             const v1::JobSpec& spec) {
  std::unique_ptr<LearnerJob> job(new LearnerJob(environment, job_id, spec));
  E3_RETURN_IF_ERROR(NoThrow([&] { return job->Load(); }));
  return job;
}

absl::Status LearnerJob::Load() {
  E3_RETURN_IF_ERROR(MakeFolders(CheckpointsFolder()));
  // A new epoch: whatever a server or a rank still holds of an earlier life of this learner is
  // older.
  v1::LearnerJob record;
  const std::string key = "job/" + id_ + "/learner";
  absl::Status read = environment_.store->Get(key, &record);
  if (!read.ok() && !absl::IsNotFound(read)) return read;
  record.set_epoch(record.epoch() + 1);
  E3_RETURN_IF_ERROR(environment_.store->Put(key, record));
  epoch_ = record.epoch();

  E3_ASSIGN_OR_RETURN(encoder_, PromptEncoder::Load(spec_.model()));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> policy,
                      Transformer::Load(spec_.model(), environment_.device));
  collector_ = std::make_unique<RolloutCollector>(environment_.pool, environment_.rewards, &spec_,
                                                  encoder_.get(), policy->config().context_length);
  std::optional<Checkpoint> checkpoint;
  for (const std::string& folder : ListCheckpoints(CheckpointsFolder())) {
    absl::StatusOr<Checkpoint> loaded =
        LoadCheckpoint(folder, id_, policy->config(), policy->layout());
    if (loaded.ok()) {
      checkpoint = *std::move(loaded);
      break;
    }
    Log("warning", "checkpoint passed over",
        {{"job", id_}, {"error", std::string(loaded.status().message())}});
  }
  if (checkpoint.has_value()) steps_done_ = checkpointed_ = checkpoint->step;
  E3_ASSIGN_OR_RETURN(std::vector<v1::StepRecord> records, Records());
  // Without the steps that are done again.
  if (absl::Status written = WriteLedger(output_, records); !written.ok())
    Log("warning", "no ledger", {{"job", id_}, {"error", std::string(written.message())}});
  const TrainerState state = checkpoint ? checkpoint->state : InitialState(*policy);
  trainer_ = std::make_unique<Trainer>(std::move(policy), spec_.training().offload_optimizer());
  trainer_->Restore(state);
  Log("info", "job opened", {{"job", id_}, {"step", steps_done_}, {"epoch", epoch_}});
  return absl::OkStatus();
}

void LearnerJob::RecordEvents(const v1::StepRecord& record) {
  absl::Status status;
  if (events_ == nullptr) {
    absl::StatusOr<std::unique_ptr<EventFile>> created =
        EventFile::Create(output_ + "/tensorboard", record.step());
    status = created.status();
    if (created.ok()) events_ = *std::move(created);
  }
  std::map<std::string, double> scalars = {{"train/budget", static_cast<double>(record.budget())},
                                           {"train/stage", static_cast<double>(record.stage())}};
  for (const auto& [name, value] : record.metrics()) scalars["train/" + name] = value;
  if (events_ != nullptr) status = events_->Add(record.step(), scalars);
  if (!status.ok())
    Log("warning", "no TensorBoard record",
        {{"job", id_}, {"error", std::string(status.message())}});
}

v1::WeightVersion LearnerJob::Version() const {
  v1::WeightVersion version;
  version.set_job(id_);
  version.set_epoch(epoch_);
  version.set_step(steps_done_);
  version.set_term(term_);
  return version;
}

std::string LearnerJob::Key(const std::string& kind, uint64_t step) const {
  return absl::StrFormat("job/%s/%s/%012d", id_, kind, step);
}

absl::Status LearnerJob::PublishWeights(const v1::Training& training, const Stop& stop) {
  const float* parameters = trainer_->policy().parameters();
  const int64_t n = trainer_->policy().layout().size();
  // Rollouts that run while the policy learns need weights that nobody writes.
  const bool lend = training.max_staleness() == 0;
  lent_ = lent_ || lend;
  absl::Status status = environment_.pool->weights().Publish(
      {Version(), spec_.model(), &trainer_->policy().layout(),
       lend ? ViewFloats(parameters) : CopyFloats(parameters, n),
       PolicyFor(training.running_rollouts())},
      stop);
  // Generating tries again, server by server, and says what is wrong when none of them serves.
  if (status.ok()) return status;
  Log("warning", "weights not published yet",
      {{"job", id_}, {"step", steps_done_}, {"error", std::string(status.message())}});
  return absl::OkStatus();
}

absl::StatusOr<v1::CollectedBatch> LearnerJob::StoredOrCollected(const v1::RunStageRequest& request,
                                                                 uint64_t step, const Stop& stop) {
  v1::CollectedBatch batch;
  absl::Status stored = environment_.store->Get(Key("batch", step), &batch);
  if (stored.ok() && batch.stage() == request.stage() && batch.budget() == request.budget()) {
    Log("info", "step done again from its stored batch", {{"job", id_}, {"step", step}});
    return batch;
  }
  if (absl::IsDataLoss(stored)) {
    Log("warning", "stored batch cannot be read; collected again",
        {{"job", id_}, {"step", step}, {"error", std::string(stored.message())}});
  } else if (!stored.ok() && !absl::IsNotFound(stored)) {
    return stored;
  }
  E3_ASSIGN_OR_RETURN(batch, collector_->Collect(request, step, stop));
  E3_RETURN_IF_ERROR(environment_.store->Put(Key("batch", step), batch));
  return batch;
}

absl::Status LearnerJob::JoinRanks(const Stop& stop) {
  if (environment_.ranks.workers.empty() || ranks_ != nullptr) return absl::OkStatus();
  E3_ASSIGN_OR_RETURN(std::unique_ptr<RankLeader> ranks,
                      RankLeader::Form(environment_.ranks, environment_.device,
                                       absl::StrCat(id_, "/", epoch_, "/", ++groups_), stop));
  E3_ASSIGN_OR_RETURN(TrainerState state, trainer_->State(/*copy=*/false));
  E3_RETURN_IF_ERROR(ranks->SendState(state, trainer_->policy().layout().size(), spec_.model(),
                                      spec_.training().offload_optimizer()));
  ranks_ = std::move(ranks);
  trainer_->JoinRanks(ranks_->collectives(), environment_.ranks.shard_optimizer);
  return absl::OkStatus();
}

absl::Status LearnerJob::BeginStage(const v1::RunStageRequest& request) {
  const v1::Training& training = request.training();
  const ModelConfig& model = trainer_->policy().config();
  const int64_t longest = LongestSequence(model, spec_, request.budget());
  const bool first = steps_done_ == request.first_step();
  const RankShares shares = trainer_->Shares(ranks_ != nullptr ? ranks_->Neighbours() : 1);
  const MemoryNeed need =
      ComputeMemoryNeed(environment_.device.is_cuda() ? MemoryOf::kGpu : MemoryOf::kHost, model,
                        training, longest, shares.shards);
  Log("info", "memory of an update", {{"job", id_}, {"need", need.Describe()}});
  const absl::Status fits = CheckMemory(model, training, longest, environment_.device, shares);
  // A stage that goes on has fitted before.
  if (!fits.ok() && first) return fits;
  if (!fits.ok())
    Log("warning", "may not fit", {{"job", id_}, {"need", std::string(fits.message())}});
  if (ranks_ != nullptr) {
    consistent_ = false;  // until all ranks have begun
    E3_RETURN_IF_ERROR(ranks_->BeginStage(training, first, longest));
    consistent_ = true;
  }
  if (first) trainer_->BeginStage(training);
  return absl::OkStatus();
}

absl::Status LearnerJob::RunStage(const v1::RunStageRequest& request, const Stop& stop,
                                  const Tell& tell) {
  const v1::Training& training = request.training();
  const uint64_t first = request.first_step(),
                 last = first + static_cast<uint64_t>(request.steps());
  if (steps_done_ < first) {
    return absl::FailedPreconditionError(
        absl::StrCat("only ", steps_done_,
                     " steps of the job are durable; its earlier stages must be run again"));
  }
  if (steps_done_ > first) {  // someone who asks again hears where the stage stands
    v1::StageEvent event;
    if (environment_.store->Get(Key("step", std::min(steps_done_, last)), event.mutable_step())
            .ok())
      tell(event);
  }
  if (owed_) {
    E3_RETURN_IF_ERROR(StartCheckpoint(training, tell));
    E3_RETURN_IF_ERROR(FinishCheckpoint(/*wait=*/true, tell));
  }
  if (steps_done_ < last) {
    E3_RETURN_IF_ERROR(JoinRanks(stop));
    E3_RETURN_IF_ERROR(BeginStage(request));
    peak_flops_ = PeakFlops(environment_.device, ProductType(training.compute_dtype())) *
                  static_cast<double>(environment_.ranks.workers.size() + 1);
    E3_RETURN_IF_ERROR(PublishWeights(training, stop));
    BatchPipeline pipeline(steps_done_ + 1, last, training.max_staleness(),
                           [&](uint64_t step, const Stop& stopped) {
                             return StoredOrCollected(request, step, stopped);
                           });
    while (steps_done_ < last) {
      if (stop()) return absl::UnavailableError("stopped between two steps");
      v1::StageEvent event;
      E3_ASSIGN_OR_RETURN(*event.mutable_step(), RunStep(request, pipeline, stop));
      tell(event);
      if ((steps_done_ - first) % static_cast<uint64_t>(training.checkpoint_every()) == 0)
        E3_RETURN_IF_ERROR(StartCheckpoint(training, tell));
      E3_RETURN_IF_ERROR(FinishCheckpoint(/*wait=*/!training.background_checkpoints(), tell));
    }
  }
  // A stage is done when its end is durable.
  E3_RETURN_IF_ERROR(FinishCheckpoint(/*wait=*/true, tell));
  if (steps_done_ == last && checkpointed_ < last) {
    E3_RETURN_IF_ERROR(StartCheckpoint(training, tell));
    E3_RETURN_IF_ERROR(FinishCheckpoint(/*wait=*/true, tell));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::StepRecord> LearnerJob::RunStep(const v1::RunStageRequest& request,
                                                   BatchPipeline& pipeline, const Stop& stop) {
  const uint64_t step = steps_done_ + 1;
  Stopwatch whole_step;
  E3_ASSIGN_OR_RETURN(v1::CollectedBatch batch, pipeline.Take(stop));
  std::map<std::string, double> metrics = BatchMetrics(batch, request.training());

  // What is about to change is not uploaded any more.
  if (std::exchange(lent_, false)) environment_.pool->weights().Recall();
  consistent_ = false;
  Stopwatch updating;
  E3_RETURN_IF_ERROR(UpdatePolicy(request, batch, &metrics));
  metrics["update_seconds"] = updating.Seconds();
  metrics["mfu"] = metrics["update_flops"] / updating.Seconds() / peak_flops_;
  steps_done_ = step;

  Stopwatch publishing;
  E3_RETURN_IF_ERROR(PublishWeights(request.training(), stop));
  pipeline.Published(step);
  metrics["publish_seconds"] = publishing.Seconds();
  metrics["generation_seconds"] = batch.generation_seconds();
  metrics["scoring_seconds"] = batch.scoring_seconds();
  const BatchPipeline::Idle idle = pipeline.TakeIdle();
  metrics["idle_seconds"] = idle.learner;
  metrics["rollout_idle_seconds"] = idle.rollouts;
  metrics["step_seconds"] = whole_step.Seconds();
  metrics["tokens_per_second"] =
      metrics["response_tokens"] / std::max(1e-9, metrics["step_seconds"]);
  metrics["generation_tokens_per_second"] =
      metrics["response_tokens"] / std::max(1e-9, batch.generation_seconds());

  v1::StepRecord record;
  record.set_step(step);
  record.set_stage(request.stage());
  record.set_budget(request.budget());
  *record.mutable_generated_by() = batch.generated_by();
  *record.mutable_produced() = Version();
  for (const auto& group : batch.groups()) record.add_data(group.data_index());
  record.mutable_metrics()->insert(metrics.begin(), metrics.end());
  record.set_finished_at_ms(absl::ToUnixMillis(absl::Now()));
  E3_RETURN_IF_ERROR(environment_.store->Put(Key("step", step), record));
  consistent_ = true;
  RecordEvents(record);
  if (absl::Status appended = AppendToLedger(output_, record); !appended.ok())
    Log("warning", "no line in the ledger",
        {{"job", id_}, {"error", std::string(appended.message())}});
  ExportStep(id_, spec_.curriculum().stages(static_cast<int>(request.stage())).name(), record);
  LogStep(id_, record);
  return record;
}

absl::StatusOr<UpdateStatistics> LearnerJob::Update(
    const std::vector<const TrainingRollout*>& rollouts, const v1::Training& training,
    double temperature) {
  const MiniBatch mini_batch = MakeMiniBatch(rollouts, training);
  UpdateStatistics statistics;
  if (mini_batch.rollouts.empty()) {
    statistics.skipped = true;
    return statistics;
  }
  E3_ASSIGN_OR_RETURN(statistics, ranks_ != nullptr
                                      ? ranks_->Update(*trainer_, mini_batch, training, temperature)
                                      : trainer_->Update(mini_batch, training, temperature));
  statistics.tokens = statistics.tokens.Means();
  for (const TrainingRollout* r : mini_batch.rollouts) {
    statistics.flops += TrainingFlops(trainer_->policy().config(), r->sequence.length(),
                                      r->sequence.trained_tokens());
  }
  return statistics;
}

absl::Status LearnerJob::UpdatePolicy(const v1::RunStageRequest& request,
                                      const v1::CollectedBatch& batch,
                                      std::map<std::string, double>* metrics) {
  const v1::Training& training = request.training();
  // Advantages: rewards compared within each group.
  std::vector<std::vector<TrainingRollout>> groups;
  for (const auto& group : batch.groups()) {
    std::vector<double> advantages =
        GroupAdvantages(Rewards(group, batch.budget(), training), training.normalize_std());
    std::vector<TrainingRollout>& rollouts = groups.emplace_back();
    for (int i = 0; i < group.rollouts_size(); ++i) {
      const v1::Rollout& r = group.rollouts(i);
      rollouts.push_back({{{group.prompt().begin(), group.prompt().end()},
                           {r.token_ids().begin(), r.token_ids().end()},
                           {r.forced().begin(), r.forced().end()}},
                          {r.logprobs().begin(), r.logprobs().end()},
                          advantages[static_cast<size_t>(i)],
                          r.finish_reason() == v1::FINISH_REASON_STOP});
    }
  }

  // Mini-batches of whole groups. The first update of a synchronous run is on-policy, the others
  // are not.
  const auto count = static_cast<size_t>(training.mini_batches());
  std::vector<UpdateStatistics> updates;
  int64_t skipped_now = 0;
  for (size_t m = 0; m < count; ++m) {
    std::vector<const TrainingRollout*> mini_batch;
    for (size_t g = m * groups.size() / count; g < (m + 1) * groups.size() / count; ++g) {
      for (const TrainingRollout& rollout : groups[g]) mini_batch.push_back(&rollout);
    }
    E3_ASSIGN_OR_RETURN(UpdateStatistics u,
                        Update(mini_batch, training, request.sampling().temperature()));
    if (u.skipped && u.finite) continue;  // nothing had a gradient
    skipped_ = u.finite ? 0 : skipped_ + 1;
    if (!u.finite) {
      ++skipped_now;
      CounterMetric("e3_learner_skipped_updates_total",
                    "Updates that were skipped since their gradient was not finite")
          .Increment();
      Log("warning", "gradient not finite; update skipped", {{"job", id_}, {"step", batch.step()}});
    }
    if (skipped_ >= training.max_skipped_updates()) {
      return absl::OutOfRangeError(absl::StrCat(
          "the gradients of ", skipped_, " updates in a row were not finite (step ", batch.step(),
          "); lower training.learning_rate, or start again from an earlier "
          "checkpoint"));
    }
    if (u.finite) updates.push_back(u);
  }
  // The policy that generated is still the one that learns, so that a difference is one of
  // arithmetic.
  const bool on_policy = batch.generated_by().step() + 1 == batch.step();
  const std::map<std::string, double> statistics = UpdateMetrics(updates, on_policy);
  metrics->insert(statistics.begin(), statistics.end());
  (*metrics)["skipped_updates"] = static_cast<double>(skipped_now);
  if (training.kl_coef() == 0) metrics->erase("kl");  // not computed
  (*metrics)["mismatch_limit"] = MismatchLimit(environment_.device, training);
  return absl::OkStatus();
}

absl::Status LearnerJob::StartCheckpoint(const v1::Training& training, const Tell& tell) {
  E3_RETURN_IF_ERROR(FinishCheckpoint(/*wait=*/true, tell));
  const std::string folder = CheckpointFolder(CheckpointsFolder(), steps_done_);
  const bool copy = training.background_checkpoints();
  consistent_ = false;  // a group that lost a rank is of no use any more
  E3_ASSIGN_OR_RETURN(TrainerState state,
                      ranks_ != nullptr ? ranks_->State(*trainer_, copy) : trainer_->State(copy));
  consistent_ = true;
  writing_ = Writing{steps_done_, training.keep_checkpoints(), folder,
                     std::async(std::launch::async,
                                [folder, id = id_, step = steps_done_, source = spec_.model(),
                                 layout = &trainer_->policy().layout(), state = std::move(state)] {
                                  return SaveCheckpoint(folder, id, step, source, *layout, state);
                                })};
  return absl::OkStatus();
}

absl::Status LearnerJob::FinishCheckpoint(bool wait, const Tell& tell) {
  if (!writing_.has_value()) return absl::OkStatus();
  if (!wait && writing_->done.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return absl::OkStatus();
  Writing written = std::move(*writing_);
  writing_.reset();
  owed_ = true;
  E3_RETURN_IF_ERROR(written.done.get());
  owed_ = false;
  checkpointed_ = written.step;
  v1::BestCheckpoint best;
  absl::Status read = environment_.store->Get("job/" + id_ + "/best", &best);
  if (!read.ok() && !absl::IsNotFound(read)) return read;
  const std::string oldest =
      PruneCheckpoints(CheckpointsFolder(), written.step, written.keep + 1, best.step());
  // Batches up to the oldest checkpoint that a run may go on from will not be asked for again.
  E3_ASSIGN_OR_RETURN(std::vector<std::string> keys,
                      environment_.store->Keys("job/" + id_ + "/batch/"));
  for (const std::string& key : keys) {
    if (key <= Key("batch", CheckpointStep(oldest)))
      E3_RETURN_IF_ERROR(environment_.store->Delete(key));
  }
  v1::StageEvent event;
  event.mutable_checkpoint()->set_step(written.step);
  event.mutable_checkpoint()->set_path(written.folder);
  tell(event);
  return absl::OkStatus();
}

LearnerJob::~LearnerJob() {
  environment_.pool->weights().Recall();
  if (writing_.has_value()) writing_->done.wait();
}

absl::StatusOr<v1::MeasureReply> LearnerJob::Measure(const v1::MeasureRequest& request,
                                                     const Stop& stop) {
  const std::string key = "job/" + id_ + "/measure/" + request.name();
  v1::MeasureReply reply;
  absl::Status stored = environment_.store->Get(key, &reply);
  if (stored.ok()) return reply;
  if (!absl::IsNotFound(stored)) return stored;
  if (steps_done_ != request.after_step()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the policy is at step ", steps_done_, ", not at ", request.after_step(),
                     "; the job's stages must be run again up to there"));
  }
  E3_RETURN_IF_ERROR(PublishWeights(spec_.training(), stop));
  E3_ASSIGN_OR_RETURN(reply, collector_->Measure(request, stop));
  E3_RETURN_IF_ERROR(NoteBest(request, reply));
  E3_RETURN_IF_ERROR(environment_.store->Put(key, reply));
  return reply;
}

absl::Status LearnerJob::NoteBest(const v1::MeasureRequest& request,
                                  const v1::MeasureReply& reply) {
  double j = 0;
  for (const v1::MeasuredRollout& r : reply.rollouts()) j += r.rewards().rbegin()[0];
  j /= reply.rollouts_size();
  v1::BestCheckpoint best, now;
  now.set_dataset(request.dataset());
  now.set_budget(request.budgets().rbegin()[0]);
  now.set_step(steps_done_);
  now.set_j(j);
  const std::string key = "job/" + id_ + "/best";
  absl::Status read = environment_.store->Get(key, &best);
  if (!read.ok() && !absl::IsNotFound(read)) return read;
  // Another data set or budget is another goal; nothing is known to be better for it.
  const bool same_goal = best.dataset() == now.dataset() && best.budget() == now.budget();
  if (read.ok() && same_goal && best.j() >= now.j()) return absl::OkStatus();
  const absl::Status linked = LinkDurably(
      CheckpointsFolder() + "/best",
      steps_done_ == 0
          ? std::filesystem::absolute(spec_.model()).string()
          : std::filesystem::path(CheckpointFolder("", steps_done_)).filename().string());
  if (!linked.ok()) {  // the record says it all the same
    Log("warning", "no link to the best checkpoint",
        {{"job", id_}, {"step", steps_done_}, {"error", std::string(linked.message())}});
  }
  return environment_.store->Put(key, now);
}

absl::StatusOr<std::vector<v1::StepRecord>> LearnerJob::Records() const {
  std::vector<v1::StepRecord> records;
  E3_ASSIGN_OR_RETURN(auto entries, environment_.store->Scan("job/" + id_ + "/step/"));
  for (const auto& [key, bytes] : entries) {
    v1::StepRecord record;
    if (!record.ParseFromString(bytes))
      return absl::DataLossError(absl::StrCat("record ", key, " cannot be read"));
    if (record.step() <= steps_done_) records.push_back(std::move(record));
  }
  return records;
}

absl::StatusOr<std::string> LearnerJob::Finish(const v1::FinishJobRequest& request) {
  const std::string model = output_ + "/model";
  E3_RETURN_IF_ERROR(WriteFolderDurably(model, [&](const std::string& part) {
    return SaveModel(part, spec_.model(), trainer_->policy().layout(),
                     trainer_->policy().parameters(), Dtype::kFloat32);
  }));
  E3_ASSIGN_OR_RETURN(std::vector<v1::StepRecord> records, Records());
  E3_RETURN_IF_ERROR(WriteLedger(output_, records));
  E3_RETURN_IF_ERROR(WriteSummary(output_, model, request, records));
  // The job is over: what only served to go on from is not kept.
  for (const char* kind : {"batch", "measure"}) {
    E3_ASSIGN_OR_RETURN(std::vector<std::string> keys,
                        environment_.store->Keys(absl::StrCat("job/", id_, "/", kind, "/")));
    for (const std::string& key : keys) E3_RETURN_IF_ERROR(environment_.store->Delete(key));
  }
  return model;
}

}  // namespace e3
