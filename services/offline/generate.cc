#include <chrono>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/device.h"
#include "model/transformer.h"
#include "rollout_server/engine.h"
#include "rollout_server/transformer_runner.h"
#include "services/offline/commands.h"
#include "services/offline/prompt_line.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

struct Sample {
  std::vector<uint32_t> tokens;
  std::vector<float> logprobs;
  Finish finish = Finish::kNone;
};

// A line on its way: printed when all its samples, and all lines before it, are done.
struct Pending {
  Json id;
  uint64_t request_id;
  std::vector<Sample> samples;
  int64_t unfinished;
};

const char* FinishName(Finish finish) { return finish == Finish::kStop ? "stop" : "length"; }

absl::Status Print(const Pending& pending, const Tokenizer& tokenizer, JsonlWriter& writer) {
  for (size_t i = 0; i < pending.samples.size(); ++i) {
    const Sample& sample = pending.samples[i];
    E3_ASSIGN_OR_RETURN(std::string text,
                        tokenizer.Decode(sample.tokens, /*skip_special_tokens=*/true));
    E3_RETURN_IF_ERROR(writer.Write({{"id", pending.id},
                                     {"sample", i},
                                     {"token_ids", sample.tokens},
                                     {"text", text},
                                     {"logprobs", sample.logprobs},
                                     {"finish_reason", FinishName(sample.finish)}}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunGenerate(const GenerateOptions& o) {
  SetThreads(o.threads);
  E3_ASSIGN_OR_RETURN(c10::Device device, ParseDevice(o.device));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model, Transformer::Load(o.model, device));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<PromptEncoder> encoder, PromptEncoder::Load(o.model));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(o.in));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlWriter> writer, JsonlWriter::Open(o.out, o.in));

  EngineLimits limits;
  limits.scheduler.max_sequences = std::max(o.max_sequences, o.samples);
  limits.num_blocks =
      static_cast<int32_t>((o.kv_cache_mib << 20) / TransformerRunner::BlockBytes(*model));
  limits.context_length = model->config().context_length;
  limits.eos_token_ids = model->config().eos_token_ids;
  TransformerRunner runner(model.get(), limits.num_blocks);
  Engine engine(limits, &runner);

  std::deque<Pending> pending;
  uint64_t next_request = 0, first_pending = 0;
  int64_t tokens = 0, done = 0;
  bool more = true;
  absl::Status bad_line;
  ProgressLine progress("generate");
  auto begin = std::chrono::steady_clock::now();
  // The next line becomes a request. False when there is none.
  auto add_line = [&]() -> absl::StatusOr<bool> {
    E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
    if (!line) return false;
    absl::StatusOr<std::vector<uint32_t>> prompt = PromptIds(*line, *encoder);
    if (!prompt.ok()) return reader->Error(prompt.status().message());
    RolloutRequest request;
    request.id = next_request;
    request.prompt = *std::move(prompt);
    request.n = o.samples;
    request.budget = o.budget;
    request.sampling.temperature = o.temperature;
    request.sampling.top_p = o.top_p;
    request.sampling.min_p = o.min_p;
    request.sampling.top_k = o.top_k;
    // A line's draws do not depend on the lines around it, only on its position.
    request.seed = o.seed + next_request * 0x9E3779B97F4A7C15u;
    if (absl::Status status = engine.Add(request); !status.ok())
      return reader->Error(status.message());
    pending.push_back({line->value("id", Json(reader->line())), next_request,
                       std::vector<Sample>(static_cast<size_t>(o.samples)), o.samples});
    ++next_request;
    return true;
  };
  while (more || !pending.empty()) {
    // Enough waiting requests to keep the engine full.
    while (more && engine.scheduler().num_waiting() < 64 && pending.size() < 4096) {
      absl::StatusOr<bool> added = add_line();
      // After a bad line nothing more is read; the lines before it are answered.
      if (!added.ok()) bad_line = added.status();
      more = added.ok() && *added;
    }
    for (const SampleOutput& output : engine.Step()) {
      Pending& p = pending[output.request_id - first_pending];
      Sample& sample = p.samples[output.sample];
      for (const OutputToken& token : output.tokens) {
        sample.tokens.push_back(token.token);
        sample.logprobs.push_back(token.logprob);
        ++tokens;
      }
      if (output.finish == Finish::kBroken) {
        return absl::DataLossError(
            absl::StrCat("the logits of ", o.model, " are not finite; the model is broken"));
      }
      sample.finish = output.finish;
      if (output.finish != Finish::kNone) --p.unfinished;
    }
    while (!pending.empty() && pending.front().unfinished == 0) {
      E3_RETURN_IF_ERROR(Print(pending.front(), encoder->tokenizer(), *writer));
      pending.pop_front();
      ++first_pending;
      ++done;
    }
    double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    progress.Show(absl::StrFormat("%d prompts done, %d running, %d tokens, %.0f tokens/s", done,
                                  engine.scheduler().num_running(), tokens,
                                  static_cast<double>(tokens) / seconds));
  }
  absl::Status closed = writer->Close();
  return bad_line.ok() ? closed : bad_line;
}

}  // namespace e3
