#include "services/jobs/job_file.h"

#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/runtime/stage_settings.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/training_checks.h"
#include "services/runtime/yaml_message.h"
#include "tasks/countdown.h"
#include "tasks/dataset.h"

namespace e3 {

v1::Training DefaultTraining() {
  v1::Training t;
  t.set_prompts_per_step(32);
  t.set_group_size(16);
  t.set_mini_batches(2);
  t.set_micro_batch_tokens(4096);
  t.set_learning_rate(1e-6);
  t.set_beta1(0.9);
  t.set_beta2(0.999);
  t.set_epsilon(1e-8);
  t.set_weight_decay(0.01);
  t.set_warmup_updates(0);
  t.set_max_grad_norm(1);
  t.set_clip_low(0.2);
  t.set_clip_high(0.2);
  t.set_dual_clip(3);
  t.set_kl_coef(0);
  t.set_entropy_coef(0);
  t.set_advantage_mask(v1::ADVANTAGE_MASK_NONE);
  t.set_normalize_std(true);
  t.set_checkpoint_every(5);
  t.set_keep_checkpoints(2);
  t.set_fresh_optimizer(true);
  t.set_reset_reference(true);
  t.set_recompute_activations(false);
  t.set_kl_estimator(v1::KL_ESTIMATOR_K3);
  t.set_loss_aggregation(v1::LOSS_AGGREGATION_TOKEN_MEAN);
  t.set_soft_overlong_tokens(0);
  t.set_soft_overlong_penalty(1);
  t.set_learning_rate_decay(v1::LEARNING_RATE_DECAY_CONSTANT);
  t.set_decay_updates(0);
  t.set_min_learning_rate_ratio(0.1);
  t.set_max_skipped_updates(5);
  t.set_max_staleness(0);
  t.set_running_rollouts(v1::RUNNING_ROLLOUTS_CONTINUE);
  t.set_background_checkpoints(true);
  t.set_compute_dtype(v1::COMPUTE_DTYPE_FP32);
  t.set_offload_optimizer(false);
  return t;
}

namespace {

void FillDefaults(v1::JobSpec* spec) {
  if (!spec->has_seed()) spec->set_seed(0);
  v1::Training training = DefaultTraining();
  training.MergeFrom(spec->training());
  *spec->mutable_training() = training;
  if (!spec->sampling().has_temperature()) spec->mutable_sampling()->set_temperature(1);
  if (spec->prompting().max_prompt_tokens() == 0)
    spec->mutable_prompting()->set_max_prompt_tokens(1024);
  v1::Curriculum* curriculum = spec->mutable_curriculum();
  if (curriculum->grid().empty()) {
    for (int64_t budget : {4096, 8192, 16384}) curriculum->add_grid(budget);
  }
  if (!curriculum->has_kappa()) curriculum->set_kappa(1.2);
  v1::Measurement* measurement = curriculum->mutable_measurement();
  if (!measurement->has_prompts()) measurement->set_prompts(128);
  if (!measurement->has_samples()) measurement->set_samples(1);
  if (!measurement->has_pass_at()) measurement->set_pass_at(1);
  for (int i = 0; i < curriculum->stages_size(); ++i) {
    v1::Stage* stage = curriculum->mutable_stages(i);
    if (stage->name().empty()) stage->set_name(absl::StrCat("stage-", i + 1));
    if (stage->evaluation().empty()) stage->set_evaluation(stage->dataset());
    if (stage->budget().empty()) stage->set_budget("auto");
    if (stage->measure_every() == 0) stage->set_measure_every(10);
  }
}

class Checker {
 public:
  Checker(v1::JobSpec* spec, const YamlPositions* at, std::string base)
      : spec_(*spec), at_(*at), base_(std::move(base)) {}

  absl::Status Run() {
    E3_RETURN_IF_ERROR(CheckName());
    E3_RETURN_IF_ERROR(CheckModel());
    E3_RETURN_IF_ERROR(CheckPrompting());
    E3_RETURN_IF_ERROR(CheckDatasets());
    E3_RETURN_IF_ERROR(Refuse("training", CheckTraining(spec_.training())));
    E3_RETURN_IF_ERROR(Refuse("sampling", CheckTrainingSampling(spec_.sampling())));
    return CheckCurriculum();
  }

 private:
  absl::Status CheckName() {
    if (spec_.name().empty())
      return at_.Error("name", "required: letters, digits, '-', '_' and '.'");
    if (!RE2::FullMatch(spec_.name(), "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")) {
      return at_.Error(
          "name", "expected a letter or digit, then at most 63 letters, digits, '-', '_' and '.'");
    }
    return absl::OkStatus();
  }

  absl::Status ResolveHere(const std::string& key, std::string* path) {
    absl::StatusOr<std::string> resolved = ResolvePath(*path, base_);
    if (!resolved.ok()) return at_.Error(key, resolved.status().message());
    *path = *resolved;
    return absl::OkStatus();
  }

  absl::Status CheckModel() {
    if (spec_.model().empty()) return at_.Error("model", "required: a Hugging Face folder");
    E3_RETURN_IF_ERROR(ResolveHere("model", spec_.mutable_model()));
    if (!spec_.output().empty()) E3_RETURN_IF_ERROR(ResolveHere("output", spec_.mutable_output()));
    absl::StatusOr<ModelConfig> config = ModelConfig::Load(spec_.model());
    if (!config.ok()) return at_.Error("model", config.status().message());
    context_length_ = config->context_length;
    if (config->eos_token_ids.empty())
      return at_.Error("model", "its configuration names no eos_token_id");
    for (const char* file : {"tokenizer.json"}) {
      if (!std::filesystem::exists(spec_.model() + "/" + file))
        return at_.Error("model", absl::StrCat("no ", file, " in ", spec_.model()));
    }
    if (!std::filesystem::exists(spec_.model() + "/model.safetensors") &&
        !std::filesystem::exists(spec_.model() + "/model.safetensors.index.json")) {
      return at_.Error("model", absl::StrCat("no model.safetensors in ", spec_.model()));
    }
    return absl::OkStatus();
  }

  absl::Status CheckPrompting() {
    const std::string& arguments = spec_.prompting().template_arguments();
    if (!arguments.empty() && !nlohmann::json::parse(arguments, nullptr, false).is_object()) {
      return at_.Error("prompting.template_arguments",
                       "expected a JSON object, e.g. '{\"enable_thinking\": true}'");
    }
    if (spec_.prompting().max_prompt_tokens() < 1)
      return at_.Error("prompting.max_prompt_tokens", "must be at least 1");
    if (spec_.reward().format_score() < 0 || spec_.reward().format_score() > 1)
      return at_.Error("reward.format_score", "must be in [0, 1]");
    if (spec_.reward().precision() > 1000)
      return at_.Error("reward.precision", "must be at most 1000 digits");
    return absl::OkStatus();
  }

  absl::Status CheckDatasets() {
    if (spec_.datasets().empty()) return at_.Error("datasets", "required: at least one data set");
    for (auto& [name, dataset] : *spec_.mutable_datasets()) {
      const std::string key = absl::StrCat("datasets.", name);
      const int sources = static_cast<int>(!dataset.file().empty()) +
                          static_cast<int>(dataset.has_countdown()) +
                          static_cast<int>(dataset.has_multiplication());
      if (sources != 1)
        return at_.Error(key, "needs exactly one of: file, countdown, multiplication");
      if (!dataset.task().empty() && dataset.task() != "math" && dataset.task() != "countdown") {
        return at_.Error(key + ".task", "expected math or countdown");
      }
      if (!dataset.gold_pattern().empty()) {
        RE2 pattern(dataset.gold_pattern(), RE2::Quiet);
        if (!pattern.ok())
          return at_.Error(key + ".gold_pattern",
                           absl::StrCat("not a regular expression: ", pattern.error()));
        if (pattern.NumberOfCapturingGroups() < 1)
          return at_.Error(key + ".gold_pattern", "needs a group (…) around the answer");
      }
      if (dataset.offset() < 0) return at_.Error(key + ".offset", "must not be negative");
      if (dataset.limit() < 0) return at_.Error(key + ".limit", "must not be negative (0: all)");
      if (dataset.has_countdown()) {
        const v1::Countdown& c = dataset.countdown();
        if (c.numbers() != 0 && (c.numbers() < 2 || c.numbers() > 8))
          return at_.Error(key + ".countdown.numbers", "must be 2 to 8");
        if (c.count() < 1 || c.count() > 10000000)
          return at_.Error(key + ".countdown.count", "required: how many puzzles, 1 to 10,000,000");
        for (auto [field, value] :
             {std::pair("max_number", c.max_number()), std::pair("max_target", c.max_target())}) {
          if (value < 0 || value > 1000000)
            return at_.Error(absl::StrCat(key, ".countdown.", field), "must be 1 to 1,000,000");
        }
        const v1::Countdown whole = CountdownWithDefaults(c);
        for (auto [field, value] : {std::pair("min_value", whole.min_value()),
                                    std::pair("max_value", whole.max_value())}) {
          if (value < -1000000000 || value > 1000000000)
            return at_.Error(absl::StrCat(key, ".countdown.", field),
                             "must be -1,000,000,000 to 1,000,000,000");
        }
        if (whole.min_value() > whole.max_value())
          return at_.Error(key + ".countdown.min_value",
                           absl::StrCat("must not be above max_value (", whole.max_value(), ")"));
        for (const std::string& other : c.exclude()) {
          auto it = spec_.datasets().find(other);
          if (it == spec_.datasets().end() || !it->second.has_countdown() ||
              !it->second.countdown().exclude().empty()) {
            return at_.Error(
                key + ".countdown.exclude",
                absl::StrCat("'", other,
                             "' is not a countdown data set without an exclude of its own"));
          }
        }
      }
      if (dataset.has_multiplication()) {
        if (dataset.multiplication().digits() < 0 || dataset.multiplication().digits() > 17)
          return at_.Error(key + ".multiplication.digits", "must be 1 to 17");
        if (dataset.multiplication().count() < 1 || dataset.multiplication().count() > 10000000)
          return at_.Error(key + ".multiplication.count",
                           "required: how many problems, 1 to 10,000,000");
      }
      if (!dataset.file().empty()) {
        E3_RETURN_IF_ERROR(ResolveHere(key + ".file", dataset.mutable_file()));
        if (!std::filesystem::exists(dataset.file()))
          return at_.Error(key + ".file", absl::StrCat("no such file: ", dataset.file()));
      }
    }
    for (const auto& [name, dataset] : spec_.datasets()) {
      absl::StatusOr<std::vector<Problem>> problems = LoadDataset(spec_, name);
      if (!problems.ok())
        return at_.Error(absl::StrCat("datasets.", name), problems.status().message());
    }
    return absl::OkStatus();
  }

  // The setting's place and why it cannot be.
  absl::Status Refuse(const std::string& key, const std::optional<BadSetting>& bad) const {
    return bad ? at_.Error(absl::StrCat(key, ".", bad->field), bad->why) : absl::OkStatus();
  }

  absl::Status CheckCurriculum() {
    const v1::Curriculum& c = spec_.curriculum();
    int64_t previous = 0;
    for (int i = 0; i < c.grid_size(); ++i) {
      if (c.grid(i) <= previous)
        return at_.Error(absl::StrCat("curriculum.grid[", i, "]"),
                         "the grid must be ascending and above 0");
      if (c.grid(i) > context_length_)
        return at_.Error(absl::StrCat("curriculum.grid[", i, "]"),
                         absl::StrCat("is beyond the model's context of ", context_length_));
      previous = c.grid(i);
    }
    if (c.kappa() <= 1) return at_.Error("curriculum.kappa", "must be above 1 (Eq. 2)");
    if (c.measurement().prompts() < 1)
      return at_.Error("curriculum.measurement.prompts", "must be at least 1");
    if (c.measurement().samples() < 1)
      return at_.Error("curriculum.measurement.samples", "must be at least 1");
    if (c.measurement().samples() > 1000000 / c.measurement().prompts())
      return at_.Error("curriculum.measurement.samples",
                       "times prompts is above 1,000,000 rollouts a measurement");
    if (c.measurement().pass_at() < 1 || c.measurement().pass_at() > c.measurement().samples()) {
      return at_.Error("curriculum.measurement.pass_at",
                       absl::StrCat("must be 1 to samples (", c.measurement().samples(), ")"));
    }
    if (c.stages().empty()) return at_.Error("curriculum.stages", "required: at least one stage");
    std::set<std::string> stage_names;
    for (int i = 0; i < c.stages_size(); ++i) {
      const v1::Stage& stage = c.stages(i);
      const std::string key = absl::StrCat("curriculum.stages[", i, "]");
      std::vector<std::string> names;
      for (const auto& [name, dataset] : spec_.datasets()) names.push_back(name);
      std::sort(names.begin(), names.end());
      for (auto [field, name] :
           {std::pair("dataset", stage.dataset()), std::pair("evaluation", stage.evaluation())}) {
        if (spec_.datasets().count(name) == 0) {
          return at_.Error(
              absl::StrCat(key, ".", field),
              absl::StrCat("no data set '", name, "'; there are: ", absl::StrJoin(names, ", ")));
        }
      }
      if (!stage_names.insert(stage.name()).second)
        return at_.Error(key + ".name",
                         absl::StrCat("another stage is named '", stage.name(), "' too"));
      if (stage.steps() < 1) return at_.Error(key + ".steps", "required: at least 1");
      if (stage.measure_every() < 1) return at_.Error(key + ".measure_every", "must be at least 1");
      int64_t budget = 0;
      if (stage.budget() == "auto") {
        budget = c.grid(c.grid_size() - 1);
      } else if (!absl::SimpleAtoi(stage.budget(), &budget) || budget < 1 ||
                 budget > context_length_) {
        return at_.Error(
            key + ".budget",
            absl::StrCat("expected \"auto\" or a number of tokens within the model's context of ",
                         context_length_, ", got '", stage.budget(), "'"));
      }
      if (2 * std::max(budget, c.grid(c.grid_size() - 1)) >= context_length_) {
        return at_.Error(
            stage.budget() == "auto" ? "curriculum.grid" : key + ".budget",
            absl::StrCat("twice the largest budget (",
                         2 * std::max(budget, c.grid(c.grid_size() - 1)),
                         " tokens) does not fit in the model's context of ", context_length_));
      }
      if (stage.training().has_offload_optimizer())
        return at_.Error(key + ".training.offload_optimizer",
                         "is of the whole job: say it in training");
      E3_RETURN_IF_ERROR(Refuse(key + ".training", CheckTraining(StageTraining(spec_, stage))));
      E3_RETURN_IF_ERROR(
          Refuse(key + ".sampling", CheckTrainingSampling(StageSampling(spec_, stage))));
    }
    return absl::OkStatus();
  }

  v1::JobSpec& spec_;
  const YamlPositions& at_;
  std::string base_;
  int64_t context_length_ = 0;
};

}  // namespace

absl::StatusOr<v1::JobSpec> ParseJob(const std::string& yaml, const std::string& path) {
  v1::JobSpec spec;
  E3_ASSIGN_OR_RETURN(YamlPositions positions, ParseYamlMessage(yaml, path, &spec));
  FillDefaults(&spec);
  E3_RETURN_IF_ERROR(
      Checker(&spec, &positions, std::filesystem::absolute(path).parent_path().string()).Run());
  return spec;
}

}  // namespace e3
