#include "learner/service/learner_job.h"

#include <chrono>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "learner/advantages.h"
#include "learner/checkpoint.h"
#include "learner/memory_need.h"
#include "learner/prompting.h"
#include "learner/service/step_metrics.h"
#include "learner/service/summary.h"
#include "services/runtime/files.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/overlong.h"
#include "services/runtime/philox.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"
#include "tasks/dataset.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

// Purposes of the job's seed.
enum SeedPurpose : uint64_t { kDataOrder = 1, kTrainingRollouts = 2, kMeasurement = 3 };

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

v1::SamplingParams ToParams(const v1::Sampling& sampling) {
  v1::SamplingParams params;
  params.set_temperature(sampling.temperature());
  params.set_top_p(sampling.top_p());
  params.set_min_p(sampling.min_p());
  params.set_top_k(sampling.top_k());
  return params;
}

uint64_t HashName(const std::string& name) {
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
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
  E3_RETURN_IF_ERROR(job->Load());
  return job;
}

absl::Status LearnerJob::Load() {
  E3_RETURN_IF_ERROR(MakeFolders(output_ + "/checkpoints"));
  E3_ASSIGN_OR_RETURN(encoder_, PromptEncoder::Load(spec_.model()));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> policy, Transformer::Load(spec_.model()));
  trainer_ = std::make_unique<Trainer>(std::move(policy));
  for (const std::string& folder : ListCheckpoints(output_ + "/checkpoints")) {
    absl::StatusOr<uint64_t> step = LoadCheckpoint(folder, id_, *trainer_);
    if (step.ok()) {
      steps_done_ = checkpointed_ = *step;
      break;
    }
    Log("warning", "checkpoint passed over",
        {{"job", id_}, {"error", std::string(step.status().message())}});
  }
  // A new epoch: whatever a server still holds of an earlier life of this learner is older.
  v1::LearnerJob record;
  const std::string key = "job/" + id_ + "/learner";
  absl::Status read = environment_.store->Get(key, &record);
  if (!read.ok() && !absl::IsNotFound(read)) return read;
  record.set_epoch(record.epoch() + 1);
  E3_RETURN_IF_ERROR(environment_.store->Put(key, record));
  epoch_ = record.epoch();
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

absl::Status LearnerJob::PublishWeights() {
  absl::Status status = environment_.pool->Publish(
      {Version(), spec_.model(), &trainer_->policy().layout(), trainer_->policy().parameters()});
  // Generating tries again, server by server, and says what is wrong when none of them serves.
  if (status.ok()) return status;
  Log("warning", "weights not published yet",
      {{"job", id_}, {"step", steps_done_}, {"error", std::string(status.message())}});
  return absl::OkStatus();
}

absl::StatusOr<const std::vector<LearnerJob::EncodedProblem>*> LearnerJob::Problems(
    const std::string& dataset) {
  auto it = problems_.find(dataset);
  if (it != problems_.end()) return &it->second;
  E3_ASSIGN_OR_RETURN(std::vector<Problem> problems, LoadDataset(spec_, dataset));
  // What a prompt may take so that it fits together with twice the largest budget.
  int64_t largest = 0;
  for (int64_t budget : spec_.curriculum().grid()) largest = std::max(largest, budget);
  for (const v1::Stage& stage : spec_.curriculum().stages()) {
    int64_t budget = 0;
    if (absl::SimpleAtoi(stage.budget(), &budget)) largest = std::max(largest, budget);
  }
  const int64_t longest = std::min(spec_.prompting().max_prompt_tokens(),
                                   trainer_->policy().config().context_length - 2 * largest);
  std::vector<EncodedProblem> encoded;
  for (size_t i = 0; i < problems.size(); ++i) {
    E3_ASSIGN_OR_RETURN(std::vector<uint32_t> prompt,
                        EncodePrompt(*encoder_, spec_.prompting(), problems[i].prompt));
    if (static_cast<int64_t>(prompt.size()) > longest) continue;
    encoded.push_back({i, std::move(prompt), std::move(problems[i].grading)});
  }
  Log("info", "data set ready",
      {{"job", id_},
       {"dataset", dataset},
       {"problems", encoded.size()},
       {"too_long", problems.size() - encoded.size()}});
  if (encoded.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "every prompt of data set '", dataset, "' is longer than ", longest,
        " tokens: prompting.max_prompt_tokens is ", spec_.prompting().max_prompt_tokens(),
        ", and the model's context of ", trainer_->policy().config().context_length,
        " must hold the prompt and twice the largest budget (", 2 * largest, ")"));
  }
  return &(problems_[dataset] = std::move(encoded));
}

std::vector<const LearnerJob::EncodedProblem*> LearnerJob::Select(
    const std::vector<EncodedProblem>& problems, uint32_t stage, uint64_t stage_step,
    int64_t count) const {
  const uint64_t seed = DeriveSeed(DeriveSeed(spec_.seed(), kDataOrder), stage);
  std::vector<const EncodedProblem*> selected;
  std::vector<size_t> order;
  uint64_t shuffled_epoch = UINT64_MAX;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t position =
        (stage_step - 1) * static_cast<uint64_t>(count) + static_cast<uint64_t>(i);
    const uint64_t epoch = position / problems.size();
    if (epoch != shuffled_epoch) {
      order.resize(problems.size());
      for (size_t k = 0; k < order.size(); ++k) order[k] = k;
      PhiloxStream(seed, epoch).Shuffle(order);
      shuffled_epoch = epoch;
    }
    selected.push_back(&problems[order[position % problems.size()]]);
  }
  return selected;
}

std::string LearnerJob::Text(const google::protobuf::RepeatedField<uint32_t>& tokens) const {
  const auto n = static_cast<size_t>(tokens.size());
  absl::StatusOr<std::string> text =
      encoder_->tokenizer().Decode(tokens.data(), n, /*skip_special_tokens=*/true);
  return text.ok() ? *std::move(text) : std::string();
}

absl::Status LearnerJob::SetTokens(const google::protobuf::RepeatedField<uint32_t>& tokens,
                                   v1::ScoreRequest* request) const {
  IncrementalDetokenizer text(&encoder_->tokenizer(), /*skip_special_tokens=*/true);
  std::string* response = request->mutable_response();
  for (uint32_t token : tokens) {
    E3_ASSIGN_OR_RETURN(std::string more, text.Push(token));
    *response += more;
    request->add_token_ends(static_cast<uint32_t>(response->size()));
  }
  E3_ASSIGN_OR_RETURN(std::string rest, text.Finish());
  *response += rest;
  if (!tokens.empty())
    request->set_token_ends(tokens.size() - 1, static_cast<uint32_t>(response->size()));
  return absl::OkStatus();
}

absl::StatusOr<v1::CollectedBatch> LearnerJob::Collect(const v1::RunStageRequest& request,
                                                       uint64_t step,
                                                       const std::function<bool()>& stop) {
  const v1::Stage& stage = spec_.curriculum().stages(static_cast<int>(request.stage()));
  E3_ASSIGN_OR_RETURN(const std::vector<EncodedProblem>* problems, Problems(stage.dataset()));
  std::vector<const EncodedProblem*> selected =
      Select(*problems, request.stage(), step - request.first_step(),
             request.training().prompts_per_step());

  v1::CollectedBatch batch;
  batch.set_step(step);
  batch.set_stage(request.stage());
  batch.set_budget(request.budget());
  *batch.mutable_generated_by() = Version();
  const uint64_t seed = DeriveSeed(DeriveSeed(spec_.seed(), kTrainingRollouts), step);
  std::vector<RolloutTask> tasks;
  for (size_t i = 0; i < selected.size(); ++i) {
    tasks.push_back({selected[i]->prompt, request.training().group_size(), DeriveSeed(seed, i)});
  }
  Stopwatch generating;
  E3_ASSIGN_OR_RETURN(
      auto rollouts,
      environment_.pool->Generate(tasks, {request.budget(), ToParams(request.sampling())}, stop));
  batch.set_generation_seconds(generating.Seconds());

  std::vector<v1::ScoreRequest> requests;
  for (size_t i = 0; i < selected.size(); ++i) {
    for (const v1::Rollout& rollout : rollouts[i]) {
      v1::ScoreRequest& score = requests.emplace_back(selected[i]->grading);
      score.set_response(Text(rollout.token_ids()));
    }
  }
  Stopwatch scoring;
  E3_ASSIGN_OR_RETURN(std::vector<v1::ScoreReply> scores,
                      environment_.rewards->Score(std::move(requests), stop));
  batch.set_scoring_seconds(scoring.Seconds());

  size_t next_score = 0;
  for (size_t i = 0; i < selected.size(); ++i) {
    v1::CollectedBatch::Group* group = batch.add_groups();
    group->set_data_index(selected[i]->index);
    group->mutable_prompt()->Add(selected[i]->prompt.begin(), selected[i]->prompt.end());
    for (v1::Rollout& rollout : rollouts[i]) {
      *rollout.mutable_score() = std::move(scores[next_score++]);
      *group->add_rollouts() = std::move(rollout);
    }
  }
  return batch;
}

absl::StatusOr<v1::CollectedBatch> LearnerJob::StoredOrCollected(
    const v1::RunStageRequest& request, uint64_t step, const std::function<bool()>& stop) {
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
  E3_RETURN_IF_ERROR(PublishWeights());
  E3_ASSIGN_OR_RETURN(batch, Collect(request, step, stop));
  E3_RETURN_IF_ERROR(environment_.store->Put(Key("batch", step), batch));
  return batch;
}

absl::StatusOr<v1::StepRecord> LearnerJob::RunStep(const v1::RunStageRequest& request,
                                                   const std::function<bool()>& stop) {
  const uint64_t step = steps_done_ + 1;
  const v1::Training& training = request.training();
  if (steps_done_ == request.first_step()) {  // a stage begins
    const int64_t longest = std::min(spec_.prompting().max_prompt_tokens() + request.budget(),
                                     trainer_->policy().config().context_length);
    E3_RETURN_IF_ERROR(
        CheckMemory(trainer_->policy().config(), training, longest, AvailableMemory()));
    Log("info", "memory of an update",
        {{"job", id_},
         {"need", ComputeMemoryNeed(trainer_->policy().config(), training, longest).Describe()}});
    if (training.fresh_optimizer()) trainer_->optimizer().Reset();
    if (training.reset_reference()) trainer_->ResetReference();
  }
  Stopwatch whole_step;
  E3_ASSIGN_OR_RETURN(v1::CollectedBatch batch, StoredOrCollected(request, step, stop));

  // Advantages: rewards compared within each group.
  std::vector<TrainingRollout> rollouts;
  for (const auto& group : batch.groups()) {
    std::vector<double> rewards;
    for (const v1::Rollout& r : group.rollouts()) {
      rewards.push_back(r.score().score() - training.soft_overlong_penalty() *
                                                Overlong(r.token_ids_size(), batch.budget(),
                                                         training.soft_overlong_tokens()));
    }
    std::vector<double> advantages = GroupAdvantages(rewards, training.normalize_std());
    for (int i = 0; i < group.rollouts_size(); ++i) {
      const v1::Rollout& r = group.rollouts(i);
      rollouts.push_back({{{group.prompt().begin(), group.prompt().end()},
                           {r.token_ids().begin(), r.token_ids().end()},
                           {r.forced().begin(), r.forced().end()}},
                          {r.logprobs().begin(), r.logprobs().end()},
                          advantages[static_cast<size_t>(i)]});
    }
  }

  consistent_ = false;
  // Mini-batches of whole groups: the first update is on-policy, the others are not.
  Stopwatch updating;
  std::map<std::string, double> metrics = BatchMetrics(batch);
  const size_t per_mini_batch = rollouts.size() / static_cast<size_t>(training.mini_batches());
  double updates = 0;
  for (int64_t m = 0; m < training.mini_batches(); ++m) {
    std::vector<const TrainingRollout*> mini_batch;
    const size_t begin = static_cast<size_t>(m) * per_mini_batch;
    const size_t end = m + 1 == training.mini_batches() ? rollouts.size() : begin + per_mini_batch;
    for (size_t i = begin; i < end; ++i) mini_batch.push_back(&rollouts[i]);
    UpdateStatistics u = trainer_->Update(mini_batch, training, request.sampling().temperature());
    skipped_ = u.finite ? 0 : skipped_ + 1;
    if (!u.finite) {
      CounterMetric("e3_learner_skipped_updates_total",
                    "Updates that were skipped since their gradient was not finite")
          .Increment();
      Log("warning", "gradient not finite; update skipped", {{"job", id_}, {"step", step}});
    }
    if (skipped_ >= training.max_skipped_updates()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the gradients of ", skipped_, " updates in a row were not finite (step ", step,
          "); lower training.learning_rate, or start again from an earlier checkpoint"));
    }
    if (u.skipped) continue;
    if (updates == 0) {  // still the policy that generated
      metrics["mismatch_max"] = u.mismatch_max;
      metrics["mismatch_mean"] = u.mismatch_mean;
    }
    ++updates;
    for (auto [name, value] :
         {std::pair("loss", u.loss), std::pair("kl", u.kl), std::pair("ratio", u.ratio),
          std::pair("clip_low_share", u.clip_low_share),
          std::pair("clip_high_share", u.clip_high_share),
          std::pair("clip_dual_share", u.clip_dual_share),
          std::pair("gradient_norm", u.gradient_norm),
          std::pair("learning_rate", u.learning_rate)}) {
      metrics[name] += value;
    }
  }
  for (const char* name : {"loss", "kl", "ratio", "clip_low_share", "clip_high_share",
                           "clip_dual_share", "gradient_norm", "learning_rate"}) {
    metrics[name] = updates > 0 ? metrics[name] / updates : 0;
  }
  metrics["updates"] = updates;
  metrics["update_seconds"] = updating.Seconds();
  metrics["generation_seconds"] = batch.generation_seconds();
  metrics["scoring_seconds"] = batch.scoring_seconds();
  steps_done_ = step;

  Stopwatch publishing;
  E3_RETURN_IF_ERROR(PublishWeights());
  metrics["publish_seconds"] = publishing.Seconds();
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
  ExportStep(id_, spec_.curriculum().stages(static_cast<int>(request.stage())).name(), record);
  return record;
}

absl::StatusOr<v1::StepRecord> LearnerJob::Record(uint64_t step) const {
  v1::StepRecord record;
  E3_RETURN_IF_ERROR(environment_.store->Get(Key("step", step), &record));
  return record;
}

absl::StatusOr<std::string> LearnerJob::WriteCheckpoint(int64_t keep) {
  const std::string parent = output_ + "/checkpoints",
                    folder = CheckpointFolder(parent, steps_done_);
  E3_RETURN_IF_ERROR(SaveCheckpoint(folder, id_, steps_done_, spec_.model(), *trainer_));
  checkpointed_ = steps_done_;
  PruneCheckpoints(parent, keep + 1);
  // Batches up to the oldest checkpoint kept will not be asked for again.
  std::vector<std::string> kept = ListCheckpoints(parent);
  if (!kept.empty()) {
    const std::string oldest = Key("batch", CheckpointStep(kept.back()));
    E3_ASSIGN_OR_RETURN(std::vector<std::string> keys,
                        environment_.store->Keys("job/" + id_ + "/batch/"));
    for (const std::string& key : keys) {
      if (key <= oldest) E3_RETURN_IF_ERROR(environment_.store->Delete(key));
    }
  }
  return folder;
}

absl::StatusOr<v1::MeasureReply> LearnerJob::Measure(const v1::MeasureRequest& request,
                                                     const std::function<bool()>& stop) {
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

  E3_ASSIGN_OR_RETURN(const std::vector<EncodedProblem>* problems, Problems(request.dataset()));
  const size_t count = std::min(problems->size(), static_cast<size_t>(request.prompts()));
  E3_RETURN_IF_ERROR(PublishWeights());
  const uint64_t seed =
      DeriveSeed(DeriveSeed(spec_.seed(), kMeasurement), HashName(request.name()));
  std::vector<RolloutTask> tasks;
  for (size_t i = 0; i < count; ++i)
    tasks.push_back({(*problems)[i].prompt, request.samples(), DeriveSeed(seed, i)});
  E3_ASSIGN_OR_RETURN(
      auto rollouts,
      environment_.pool->Generate(
          tasks, {request.budgets().rbegin()[0], ToParams(request.sampling())}, stop));

  // One request a response: the reward service judges it cut from the right at every budget too.
  std::vector<v1::ScoreRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    for (const v1::Rollout& rollout : rollouts[i]) {
      v1::ScoreRequest& score = requests.emplace_back((*problems)[i].grading);
      E3_RETURN_IF_ERROR(SetTokens(rollout.token_ids(), &score));
      if (rollout.token_ids().empty()) continue;
      for (int64_t budget : request.budgets()) score.add_budgets(static_cast<uint32_t>(budget));
    }
  }
  E3_ASSIGN_OR_RETURN(std::vector<v1::ScoreReply> scores,
                      environment_.rewards->Score(std::move(requests), stop));
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    for (const v1::Rollout& rollout : rollouts[i]) {
      const v1::ScoreReply& score = scores[at++];
      v1::MeasuredRollout* measured = reply.add_rollouts();
      measured->set_problem(static_cast<uint32_t>(i));
      measured->set_length(static_cast<uint32_t>(rollout.token_ids_size()));
      measured->set_truncated(rollout.finish_reason() == v1::FINISH_REASON_LENGTH);
      for (int b = 0; b < request.budgets_size(); ++b) {
        measured->add_rewards(static_cast<float>(
            score.budget_scores_size() > 0 ? score.budget_scores(b) : score.score()));
      }
      measured->set_verifications(score.trace().verifications());
      measured->set_attempts(score.trace().attempts());
    }
  }
  *reply.mutable_version() = Version();
  E3_RETURN_IF_ERROR(environment_.store->Put(key, reply));
  return reply;
}

absl::StatusOr<std::string> LearnerJob::Finish(const v1::FinishJobRequest& request) {
  const std::string model = output_ + "/model";
  E3_RETURN_IF_ERROR(WriteFolderDurably(model, [&](const std::string& part) {
    return SaveModel(part, spec_.model(), trainer_->policy().layout(),
                     trainer_->policy().parameters(), Dtype::kFloat32);
  }));
  std::vector<v1::StepRecord> records;
  E3_ASSIGN_OR_RETURN(auto entries, environment_.store->Scan("job/" + id_ + "/step/"));
  for (const auto& [key, bytes] : entries) {
    v1::StepRecord record;
    if (!record.ParseFromString(bytes))
      return absl::DataLossError(absl::StrCat("record ", key, " cannot be read"));
    if (record.step() <= steps_done_) records.push_back(std::move(record));
  }
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
