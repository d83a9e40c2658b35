#include "learner/sft.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "learner/prompting.h"
#include "model/device.h"
#include "model/prompt_encoder.h"
#include "re2/re2.h"
#include "services/offline/commands.h"
#include "services/offline/jsonl.h"
#include "services/runtime/files.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/yaml_message.h"
#include "tasks/countdown.h"
#include "tasks/dataset.h"

namespace e3 {
namespace {

void FillDefaults(v1::SftSpec* spec) {
  v1::SftData* data = spec->mutable_data();
  if (data->prompt_field().empty()) data->set_prompt_field("prompt");
  if (data->response_field().empty()) data->set_response_field("response");
  if (data->template_().empty()) data->set_template_("{prompt}");
  v1::SftTraining* t = spec->mutable_training();
  if (t->batch_tokens() == 0) t->set_batch_tokens(6144);
  if (t->micro_batch_tokens() == 0) t->set_micro_batch_tokens(4096);
  if (t->max_tokens() == 0) t->set_max_tokens(1024);
  if (!t->has_learning_rate()) t->set_learning_rate(1e-5);
  if (!t->has_min_ratio()) t->set_min_ratio(0.05);
  if (!t->has_beta1()) t->set_beta1(0.9);
  if (!t->has_beta2()) t->set_beta2(0.95);
  if (!t->has_weight_decay()) t->set_weight_decay(0.01);
  if (!t->has_max_grad_norm()) t->set_max_grad_norm(1);
}

absl::StatusOr<v1::SftSpec> ParseSftFile(const std::string& file) {
  E3_ASSIGN_OR_RETURN(std::string yaml, ReadFile(file));
  v1::SftSpec spec;
  E3_ASSIGN_OR_RETURN(YamlPositions at, ParseYamlMessage(yaml, file, &spec));
  FillDefaults(&spec);
  const std::string base = std::filesystem::absolute(file).parent_path().string();
  if (spec.model().empty()) return at.Error("model", "required: the folder to start from");
  if (spec.output().empty()) return at.Error("output", "required: the folder to write");
  if (spec.training().steps() < 1) return at.Error("training.steps", "must be at least 1");
  for (auto [key, path] : {std::pair{"model", spec.mutable_model()},
                           {"output", spec.mutable_output()},
                           {"data.file", spec.mutable_data()->mutable_file()}}) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> resolved = ResolvePath(*path, base);
    if (!resolved.ok()) return at.Error(key, resolved.status().message());
    *path = *resolved;
  }
  if (!std::filesystem::exists(spec.model() + "/config.json")) {
    return at.Error("model", absl::StrCat("no config.json in ", spec.model()));
  }
  if (spec.data().has_countdown_traces() == !spec.data().file().empty()) {
    return at.Error("data", "needs either a file or countdown_traces");
  }
  if (!spec.data().file().empty() && !std::filesystem::exists(spec.data().file())) {
    return at.Error("data.file", absl::StrCat("no such file: ", spec.data().file()));
  }
  for (int i = 0; i < spec.data().replacements_size(); ++i) {
    const std::string key = absl::StrCat("data.replacements[", i, "]");
    RE2 pattern(spec.data().replacements(i).pattern(), RE2::Quiet);
    std::string why;
    if (!pattern.ok())
      return at.Error(key + ".pattern",
                      absl::StrCat("not a regular expression: ", pattern.error()));
    if (!pattern.CheckRewriteString(spec.data().replacements(i).with(), &why))
      return at.Error(key + ".with", absl::StrCat("not a replacement (\\1 is a group): ", why));
  }
  const v1::SftTraining& t = spec.training();
  for (auto [name, value] : {std::pair("batch_tokens", t.batch_tokens()),
                             {"micro_batch_tokens", t.micro_batch_tokens()},
                             {"max_tokens", t.max_tokens()}}) {
    if (value < 1) return at.Error(absl::StrCat("training.", name), "must be at least 1");
  }
  for (auto [name, value] : {std::pair("learning_rate", t.learning_rate()),
                             {"weight_decay", t.weight_decay()},
                             {"max_grad_norm", t.max_grad_norm()},
                             {"warmup_steps", static_cast<double>(t.warmup_steps())}}) {
    if (value < 0) return at.Error(absl::StrCat("training.", name), "must not be negative");
  }
  for (auto [name, value] : {std::pair("beta1", t.beta1()), {"beta2", t.beta2()}}) {
    if (value < 0 || value >= 1)
      return at.Error(absl::StrCat("training.", name), "must be in [0, 1)");
  }
  if (t.min_ratio() < 0 || t.min_ratio() > 1)
    return at.Error("training.min_ratio", "must be in [0, 1]");
  if (spec.data().offset() < 0) return at.Error("data.offset", "must not be negative");
  if (spec.data().limit() < 0) return at.Error("data.limit", "must not be negative (0: all)");
  const v1::Prompting& prompting = spec.data().prompting();
  if (prompting.max_prompt_tokens() < 0)
    return at.Error("data.prompting.max_prompt_tokens", "must not be negative (0: any)");
  if (!prompting.template_arguments().empty() &&
      !Json::parse(prompting.template_arguments(), nullptr, /*allow_exceptions=*/false).is_object())
    return at.Error("data.prompting.template_arguments", "expected a JSON object");
  for (int i = 0; i < spec.data().countdown_traces().kinds_size(); ++i) {
    if (!(spec.data().countdown_traces().kinds(i).weight() > 0))
      return at.Error(absl::StrCat("data.countdown_traces.kinds[", i, "].weight"),
                      "must be above 0");
  }
  return spec;
}

// Prompt and response as token ids, with the end-of-sequence token last.
class SequenceEncoder {
 public:
  SequenceEncoder(const PromptEncoder* encoder, const v1::Prompting& prompting, uint32_t eos)
      : encoder_(encoder), prompting_(prompting), eos_(eos) {}

  absl::StatusOr<TrainingSequence> Encode(const std::string& prompt,
                                          const std::string& response) const {
    TrainingSequence sequence;
    E3_ASSIGN_OR_RETURN(sequence.prompt,
                        EncodePrompt(*encoder_, prompting_, Problem{prompt, {}, {}}));
    E3_ASSIGN_OR_RETURN(sequence.response,
                        encoder_->tokenizer().Encode(response, /*add_special_tokens=*/false));
    sequence.response.push_back(eos_);
    return sequence;
  }

 private:
  const PromptEncoder* encoder_;
  v1::Prompting prompting_;
  uint32_t eos_;
};

// Sequences of a file, shuffled anew each epoch; a step takes the next ones up to the token limit.
class FileBatches {
 public:
  static absl::StatusOr<std::unique_ptr<FileBatches>> Load(const v1::SftSpec& spec,
                                                           const SequenceEncoder& encoder) {
    auto batches = std::make_unique<FileBatches>();
    batches->seed_ = spec.seed();
    batches->batch_tokens_ = spec.training().batch_tokens();
    const v1::SftData& data = spec.data();
    E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(data.file()));
    std::vector<std::pair<std::unique_ptr<RE2>, std::string>> replacements;
    for (const v1::Replacement& r : data.replacements())
      replacements.emplace_back(std::make_unique<RE2>(r.pattern()), r.with());
    int64_t index = -1, left_out = 0;
    while (true) {
      E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
      if (!line) break;
      if (++index < data.offset()) continue;
      if (data.limit() > 0 && index >= data.offset() + data.limit()) break;
      for (const std::string& field : {data.prompt_field(), data.response_field()}) {
        if (!line->contains(field) || !(*line)[field].is_string())
          return reader->Error(absl::StrCat("no text field \"", field, "\""));
      }
      std::string prompt = absl::StrReplaceAll(
          data.template_(), {{"{prompt}", (*line)[data.prompt_field()].get<std::string>()}});
      std::string response = (*line)[data.response_field()].get<std::string>();
      for (const auto& [pattern, with] : replacements)
        RE2::GlobalReplace(&response, *pattern, with);
      E3_ASSIGN_OR_RETURN(TrainingSequence sequence, encoder.Encode(prompt, response));
      const int64_t max_prompt = data.prompting().max_prompt_tokens();
      if (sequence.length() > spec.training().max_tokens() ||
          (max_prompt > 0 && static_cast<int64_t>(sequence.prompt.size()) > max_prompt)) {
        ++left_out;
      } else {
        batches->sequences_.push_back(std::move(sequence));
      }
    }
    if (batches->sequences_.empty())
      return absl::InvalidArgumentError(absl::StrCat(data.file(), " gave no sequences"));
    std::cerr << "sft: " << batches->sequences_.size() << " sequences, " << left_out
              << " longer than " << spec.training().max_tokens() << " tokens left out\n";
    return batches;
  }

  std::vector<TrainingSequence> Next() {
    std::vector<TrainingSequence> batch;
    for (int64_t tokens = 0; tokens < batch_tokens_;) {
      if (next_ == order_.size()) {
        order_.resize(sequences_.size());
        for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
        PhiloxStream(seed_, epoch_++).Shuffle(order_);
        next_ = 0;
      }
      batch.push_back(sequences_[order_[next_++]]);
      tokens += batch.back().length();
    }
    return batch;
  }

 private:
  std::vector<TrainingSequence> sequences_;
  std::vector<size_t> order_;
  size_t next_ = 0;
  uint64_t seed_ = 0, epoch_ = 0;
  int64_t batch_tokens_ = 0;
};

// Fresh search traces for every step.
class TraceBatches {
 public:
  static absl::StatusOr<std::unique_ptr<TraceBatches>> Make(const v1::SftSpec& spec) {
    auto batches = std::make_unique<TraceBatches>();
    batches->spec_ = spec;
    const v1::CountdownTraces& traces = spec.data().countdown_traces();
    for (const v1::Countdown& held_out : traces.held_out()) {
      E3_ASSIGN_OR_RETURN(std::vector<CountdownPuzzle> puzzles, GenerateCountdown(held_out, {}));
      for (const CountdownPuzzle& puzzle : puzzles) batches->held_out_.insert(puzzle.Key());
    }
    if (traces.kinds().empty())
      return absl::InvalidArgumentError("data.countdown_traces.kinds is empty");
    if (traces.has_right_attempt()) batches->options_.right_attempt = traces.right_attempt();
    if (traces.has_stop_after_wrong())
      batches->options_.stop_after_wrong = traces.stop_after_wrong();
    if (traces.has_say_wait()) batches->options_.say_wait = traces.say_wait();
    if (traces.max_attempts() > 0)
      batches->options_.max_attempts = static_cast<int>(traces.max_attempts());
    return batches;
  }

  absl::StatusOr<std::vector<TrainingSequence>> Next(int64_t step,
                                                     const SequenceEncoder& encoder) const {
    PhiloxStream random(spec_.seed(), static_cast<uint64_t>(step));
    const v1::CountdownTraces& traces = spec_.data().countdown_traces();
    double total = 0;
    for (const auto& kind : traces.kinds()) total += kind.weight();
    std::vector<TrainingSequence> batch;
    int64_t rejected = 0;  // draws in a row
    for (int64_t tokens = 0; tokens < spec_.training().batch_tokens();) {
      if (++rejected > 1000000) {
        return absl::InvalidArgumentError(
            "a million draws in a row gave no trace: no puzzle of data.countdown_traces.kinds is "
            "within its ranges, outside held_out and at most training.max_tokens long");
      }
      double u = random.Uniform() * total;
      int kind = 0;
      while (kind + 1 < traces.kinds_size() && (u -= traces.kinds(kind).weight()) >= 0) ++kind;
      v1::Countdown countdown = CountdownWithDefaults(traces.kinds(kind).countdown());
      CountdownPuzzle puzzle;
      for (int i = 0; i < countdown.numbers(); ++i)
        puzzle.numbers.push_back(random.Between(1, countdown.max_number()));
      std::optional<CountdownAttempt> solution = RandomAttempt(countdown, puzzle.numbers, random);
      if (!solution || solution->value < 1 || solution->value > countdown.max_target()) continue;
      puzzle.target = solution->value;
      if (held_out_.count(puzzle.Key()) > 0) continue;
      E3_ASSIGN_OR_RETURN(TrainingSequence sequence,
                          encoder.Encode(CountdownPrompt(countdown.template_(), puzzle),
                                         SearchTrace(countdown, puzzle, options_, random)));
      if (sequence.length() > spec_.training().max_tokens()) continue;
      tokens += sequence.length();
      rejected = 0;
      batch.push_back(std::move(sequence));
    }
    return batch;
  }

 private:
  v1::SftSpec spec_;
  std::set<std::string> held_out_;
  TraceOptions options_;
};

}  // namespace

absl::Status RunSftFile(const SftOptions& o) {
  SetThreads(o.threads);
  E3_ASSIGN_OR_RETURN(v1::SftSpec spec, ParseSftFile(o.file));
  E3_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::Load(spec.model()));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<PromptEncoder> prompts, PromptEncoder::Load(spec.model()));
  if (config.eos_token_ids.empty())
    return absl::InvalidArgumentError(absl::StrCat(spec.model(), " names no eos_token_id"));
  E3_ASSIGN_OR_RETURN(c10::Device device, ParseDevice(o.device));
  Transformer model(config, device);
  absl::Status loaded;
  model.UpdateParameters([&](float* parameters) {
    if (spec.from_scratch()) {
      InitializeParameters(spec.seed(), model.layout(), parameters);
    } else {
      loaded = LoadParameters(spec.model(), config, model.layout(), parameters);
    }
  });
  E3_RETURN_IF_ERROR(loaded);
  SequenceEncoder encoder(prompts.get(), spec.data().prompting(), config.eos_token_ids[0]);
  std::unique_ptr<FileBatches> files;
  std::unique_ptr<TraceBatches> traces;
  if (spec.data().has_countdown_traces()) {
    E3_ASSIGN_OR_RETURN(traces, TraceBatches::Make(spec));
  } else {
    E3_ASSIGN_OR_RETURN(files, FileBatches::Load(spec, encoder));
  }
  auto next_batch = [&](int64_t step) -> absl::StatusOr<std::vector<TrainingSequence>> {
    if (traces) return traces->Next(step, encoder);
    return files->Next();
  };
  ProgressLine progress("sft");
  auto report = [&](const SftProgress& p) {
    std::string text = absl::StrFormat("step %d/%d  loss %.4f  lr %.2e  %.0f tokens/s", p.step,
                                       p.steps, p.loss, p.learning_rate, p.tokens_per_second);
    progress.Show(text);
    if (p.step % 50 == 0 || p.step == 1 || p.step == p.steps)
      std::cerr << (isatty(2) ? "\n" : "") << "sft: " << text << "\n";
  };
  E3_RETURN_IF_ERROR(RunSft(spec.training(), next_batch, report, &model));
  return WriteFolderDurably(spec.output(), [&](const std::string& part) {
    return SaveModel(part, spec.model(), model.layout(), model.parameters(), Dtype::kFloat32);
  });
}

}  // namespace e3
