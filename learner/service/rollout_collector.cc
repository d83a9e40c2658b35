#include "learner/service/rollout_collector.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"

namespace e3 {
namespace {

// Purposes of the job's seed.
enum SeedPurpose : uint64_t { kDataOrder = 1, kTrainingRollouts = 2, kMeasurement = 3 };

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

void TellSetAside(const v1::JobSpec& spec, const EncodedProblem& problem,
                  const absl::Status& status) {
  CounterMetric("e3_learner_prompts_set_aside_total",
                "Prompts that no rollout server could generate for")
      .Increment();
  Log("warning", "prompt set aside: no rollout server could generate for it",
      {{"job", spec.name()},
       {"data_index", problem.index},
       {"error", std::string(status.message())}});
}

void TellUnjudged(const v1::JobSpec& spec, const EncodedProblem& problem,
                  const v1::ScoreReply& score) {
  CounterMetric("e3_learner_rollouts_unjudged_total",
                "Rollouts left out since the reward service could not judge them")
      .Increment();
  Log("warning", "rollout left out: the reward service cannot judge it",
      {{"job", spec.name()}, {"data_index", problem.index}, {"error", score.error()}});
}

}  // namespace

RolloutCollector::RolloutCollector(RolloutPool* pool, RewardClient* rewards,
                                   const v1::JobSpec* spec, const PromptEncoder* encoder,
                                   int64_t context_length)
    : pool_(pool),
      rewards_(rewards),
      spec_(spec),
      encoder_(encoder),
      problems_(spec, encoder, context_length) {}

absl::StatusOr<std::string> RolloutCollector::Text(
    const google::protobuf::RepeatedField<uint32_t>& tokens) const {
  return encoder_->tokenizer().Decode(tokens.data(), static_cast<size_t>(tokens.size()),
                                      /*skip_special_tokens=*/true);
}

absl::Status RolloutCollector::SetTokens(const google::protobuf::RepeatedField<uint32_t>& tokens,
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

absl::StatusOr<v1::CollectedBatch> RolloutCollector::Collect(const v1::RunStageRequest& request,
                                                             uint64_t step, const Stop& stop) {
  const v1::Stage& stage = spec_->curriculum().stages(static_cast<int>(request.stage()));
  E3_ASSIGN_OR_RETURN(const std::vector<EncodedProblem>* problems, problems_.Get(stage.dataset()));
  const std::vector<const EncodedProblem*> selected = SelectProblems(
      *problems, DeriveSeed(DeriveSeed(spec_->seed(), kDataOrder), HashName(stage.dataset())),
      request.first_position() + (step - request.first_step() - 1) *
                                     static_cast<uint64_t>(request.training().prompts_per_step()),
      request.training().prompts_per_step());

  v1::CollectedBatch batch;
  batch.set_step(step);
  batch.set_stage(request.stage());
  batch.set_budget(request.budget());
  *batch.mutable_generated_by() = pool_->weights().version();
  const uint64_t seed = DeriveSeed(DeriveSeed(spec_->seed(), kTrainingRollouts), step);
  std::vector<RolloutTask> tasks;
  for (size_t i = 0; i < selected.size(); ++i) {
    tasks.push_back({selected[i]->prompt, request.training().group_size(), DeriveSeed(seed, i)});
  }
  Stopwatch generating;
  E3_ASSIGN_OR_RETURN(
      std::vector<TaskRollouts> generated,
      pool_->Generate(tasks, {request.budget(), ToParams(request.sampling())}, stop));
  batch.set_generation_seconds(generating.Seconds());

  std::vector<v1::ScoreRequest> requests;
  for (size_t i = 0; i < selected.size(); ++i) {
    if (!generated[i].status.ok()) {
      TellSetAside(*spec_, *selected[i], generated[i].status);
      batch.add_set_aside(selected[i]->index);
      continue;
    }
    for (const v1::Rollout& rollout : generated[i].rollouts) {
      v1::ScoreRequest& score = requests.emplace_back(selected[i]->grading);
      E3_ASSIGN_OR_RETURN(*score.mutable_response(), Text(rollout.token_ids()));
    }
  }
  Stopwatch scoring;
  E3_ASSIGN_OR_RETURN(std::vector<v1::ScoreReply> scores,
                      rewards_->Score(std::move(requests), stop));
  batch.set_scoring_seconds(scoring.Seconds());

  size_t next_score = 0;
  for (size_t i = 0; i < selected.size(); ++i) {
    if (!generated[i].status.ok()) continue;
    v1::CollectedBatch::Group group;
    group.set_data_index(selected[i]->index);
    group.mutable_prompt()->Add(selected[i]->prompt.begin(), selected[i]->prompt.end());
    for (v1::Rollout& rollout : generated[i].rollouts) {
      v1::ScoreReply& score = scores[next_score++];
      if (score.error_code() != 0) {
        TellUnjudged(*spec_, *selected[i], score);
        batch.set_unjudged(batch.unjudged() + 1);
        continue;
      }
      *rollout.mutable_score() = std::move(score);
      *group.add_rollouts() = std::move(rollout);
    }
    if (group.rollouts_size() > 0) *batch.add_groups() = std::move(group);
  }
  if (batch.groups().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the reward service could judge none of the ", batch.unjudged(),
                     " rollouts of step ", step, ": ", scores.empty() ? "" : scores[0].error()));
  }
  return batch;
}

absl::StatusOr<v1::MeasureReply> RolloutCollector::Measure(const v1::MeasureRequest& request,
                                                           const Stop& stop) {
  E3_ASSIGN_OR_RETURN(const std::vector<EncodedProblem>* problems,
                      problems_.Get(request.dataset()));
  const size_t count = std::min(problems->size(), static_cast<size_t>(request.prompts()));
  const uint64_t seed =
      DeriveSeed(DeriveSeed(spec_->seed(), kMeasurement), HashName(request.name()));
  std::vector<RolloutTask> tasks;
  for (size_t i = 0; i < count; ++i)
    tasks.push_back({(*problems)[i].prompt, request.samples(), DeriveSeed(seed, i)});
  v1::MeasureReply reply;
  *reply.mutable_version() = pool_->weights().version();
  E3_ASSIGN_OR_RETURN(
      std::vector<TaskRollouts> generated,
      pool_->Generate(tasks, {request.budgets().rbegin()[0], ToParams(request.sampling())}, stop));

  // One request a response: the reward service judges it cut from the right at every budget too.
  std::vector<v1::ScoreRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    if (!generated[i].status.ok()) {
      TellSetAside(*spec_, (*problems)[i], generated[i].status);
      reply.set_left_out(reply.left_out() + static_cast<uint64_t>(request.samples()));
      continue;
    }
    for (const v1::Rollout& rollout : generated[i].rollouts) {
      v1::ScoreRequest& score = requests.emplace_back((*problems)[i].grading);
      E3_RETURN_IF_ERROR(SetTokens(rollout.token_ids(), &score));
      if (rollout.token_ids().empty()) continue;
      for (int64_t budget : request.budgets()) score.add_budgets(static_cast<uint32_t>(budget));
    }
  }
  E3_ASSIGN_OR_RETURN(std::vector<v1::ScoreReply> scores,
                      rewards_->Score(std::move(requests), stop));
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!generated[i].status.ok()) continue;
    for (const v1::Rollout& rollout : generated[i].rollouts) {
      const v1::ScoreReply& score = scores[at++];
      if (score.error_code() != 0) {
        TellUnjudged(*spec_, (*problems)[i], score);
        reply.set_left_out(reply.left_out() + 1);
        continue;
      }
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
  if (reply.rollouts().empty()) {
    return absl::FailedPreconditionError(absl::StrCat("the reward service could judge none of the ",
                                                      scores.size(), " rollouts of measurement ",
                                                      request.name(), ": ", scores[0].error()));
  }
  return reply;
}

}  // namespace e3
