#include "learner/sft.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/checkpoint.h"
#include "learner/device_memory.h"
#include "model/device.h"
#include "model/prompt_encoder.h"
#include "re2/re2.h"
#include "services/offline/commands.h"
#include "services/offline/jsonl.h"
#include "services/offline/sft_batches.h"
#include "services/offline/sft_output.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/yaml_message.h"
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
  if (!t->has_checkpoint_every()) t->set_checkpoint_every(500);
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
  while (spec.output().size() > 1 && spec.output().back() == '/') spec.mutable_output()->pop_back();
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
                             {"warmup_steps", static_cast<double>(t.warmup_steps())},
                             {"checkpoint_every", static_cast<double>(t.checkpoint_every())}}) {
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

// Asked to stop: at the end of the step, with a checkpoint of it. The second time at once.
volatile std::sig_atomic_t interrupted = 0;
void Interrupt(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

// What the memory check wants to know of a job's training, of this one's.
v1::Training MemoryTerms(const v1::SftTraining& t) {
  v1::Training training;
  // A step has no more tokens than a batch, whose last sequence may go beyond it.
  training.set_micro_batch_tokens(
      std::min(t.micro_batch_tokens(), t.batch_tokens() + t.max_tokens()));
  training.set_recompute_activations(t.recompute_activations());
  training.set_compute_dtype(t.compute_dtype());
  training.set_offload_optimizer(t.offload_optimizer());
  return training;
}

// Names the training in its checkpoints: one that differs in settings, data or the parameters that
// it starts from goes on from none of them.
absl::StatusOr<std::string> Identity(v1::SftSpec spec, const Transformer& start) {
  spec.clear_name();
  spec.clear_output();
  spec.mutable_training()->clear_checkpoint_every();
  std::string bytes;
  if (!spec.data().file().empty()) {
    E3_ASSIGN_OR_RETURN(const std::string data, ReadFile(spec.data().file()));
    spec.set_name(absl::StrCat(XXH3_64bits(data.data(), data.size())));
  }
  absl::StrAppend(
      spec.mutable_name(), " ",
      XXH3_64bits(start.parameters(), static_cast<size_t>(start.layout().size()) * sizeof(float)));
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  return absl::StrFormat("sft-%016x", XXH3_64bits(bytes.data(), bytes.size()));
}

// The newest checkpoint in `folder` that this training can go on from.
std::optional<TrainerState> Resume(const std::string& folder, const std::string& id,
                                   const Transformer& model) {
  for (const std::string& checkpoint : ListCheckpoints(folder)) {
    absl::StatusOr<Checkpoint> loaded =
        LoadCheckpoint(checkpoint, id, model.config(), model.layout());
    if (loaded.ok()) {
      std::cerr << "sft: goes on from " << checkpoint << "\n";
      loaded->state.reference.reset();  // which is a copy of the parameters here
      return std::move(loaded->state);
    }
    if (absl::IsFailedPrecondition(loaded.status())) {
      std::cerr << "sft: passed over: " << checkpoint
                << " was made with other settings, other data or another model\n";
    } else {
      std::cerr << "sft: passed over: " << loaded.status().message() << "\n";
    }
  }
  return std::nullopt;
}

}  // namespace

absl::Status RunSftFile(const SftOptions& o) {
  SetThreads(o.threads);
  E3_ASSIGN_OR_RETURN(v1::SftSpec spec, ParseSftFile(o.file));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<SftOutput> output,
                      SftOutput::Open(spec, o.file, o.overwrite));
  E3_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::Load(spec.model()));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<PromptEncoder> prompts, PromptEncoder::Load(spec.model()));
  if (config.eos_token_ids.empty())
    return absl::InvalidArgumentError(absl::StrCat(spec.model(), " names no eos_token_id"));
  E3_ASSIGN_OR_RETURN(c10::Device device, ParseDevice(o.device));
  const v1::SftTraining& training = spec.training();
  E3_RETURN_IF_ERROR(CheckMemory(config, MemoryTerms(training), training.max_tokens(), device));
  KeepFreedMemory();

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
  E3_ASSIGN_OR_RETURN(const std::string id, Identity(spec, model));
  const std::string& checkpoints = output->checkpoints();
  std::optional<TrainerState> start = Resume(checkpoints, id, model);
  if (!start.has_value()) start = InitialState(model);
  E3_ASSIGN_OR_RETURN(SftBatches batches,
                      MakeSftBatches(spec, prompts.get(), config.eos_token_ids[0]));
  ProgressLine progress("sft");
  auto done = [&](const SftProgress& p, const SftState& state) -> absl::Status {
    std::string text = absl::StrFormat("step %d/%d  loss %.4f  lr %.2e  %.0f tokens/s", p.step,
                                       p.steps, p.loss, p.learning_rate, p.tokens_per_second);
    progress.Show(text);
    if (p.step % 50 == 0 || p.step == 1 || p.step == p.steps)
      std::cerr << (isatty(2) ? "\n" : "") << "sft: " << text << "\n";
    const int64_t every = training.checkpoint_every();
    if (every == 0 || p.step == p.steps || (p.step % every != 0 && !interrupted))
      return absl::OkStatus();
    const auto step = static_cast<uint64_t>(p.step);
    E3_RETURN_IF_ERROR(SaveCheckpoint(CheckpointFolder(checkpoints, step), id, step, spec.model(),
                                      model.layout(), state()));
    PruneCheckpoints(checkpoints, step, /*keep=*/2, step);  // one may be torn
    if (!interrupted) return absl::OkStatus();
    return absl::CancelledError(
        absl::StrCat("interrupted; the same command goes on after step ", step));
  };
  if (training.checkpoint_every() > 0) {
    for (int signal : {SIGINT, SIGTERM}) std::signal(signal, Interrupt);
  }
  E3_RETURN_IF_ERROR(RunSft(training, *std::move(start), batches, done, &model));
  E3_RETURN_IF_ERROR(WriteFolderDurably(spec.output(), [&](const std::string& part) {
    return SaveModel(part, spec.model(), model.layout(), model.parameters(), Dtype::kFloat32);
  }));
  output->Finish();
  return absl::OkStatus();
}

}  // namespace e3
