#include <ATen/core/grad_mode.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/token_logprobs.h"
#include "model/device.h"
#include "services/offline/commands.h"
#include "services/offline/prompt_line.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::Status RunScore(const ScoreOptions& o) {
  SetThreads(o.threads);
  at::NoGradGuard no_grad;
  E3_ASSIGN_OR_RETURN(c10::Device device, ParseDevice(o.device));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model, Transformer::Load(o.model, device));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<PromptEncoder> encoder, PromptEncoder::Load(o.model));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(o.in));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlWriter> writer, JsonlWriter::Open(o.out, o.in));
  ProgressLine progress("score");
  while (true) {
    E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
    if (!line) break;
    std::vector<uint32_t> ids;
    if (line->contains("token_ids")) {
      absl::StatusOr<std::vector<uint32_t>> given = TokenIds(*line);
      if (!given.ok()) return reader->Error(given.status().message());
      ids = *std::move(given);
      for (uint32_t id : ids) {
        if (id >= model->config().vocab_size)
          return reader->Error(absl::StrCat("token id ", id, " is not in the vocabulary"));
      }
    } else if (line->contains("text") && (*line)["text"].is_string()) {
      absl::StatusOr<std::vector<uint32_t>> encoded =
          encoder->EncodeText((*line)["text"].get<std::string>());
      if (!encoded.ok()) return reader->Error(encoded.status().message());
      ids = *std::move(encoded);
    } else {
      return reader->Error("expected \"token_ids\" or \"text\"");
    }
    if (static_cast<int64_t>(ids.size()) > model->config().context_length) {
      return reader->Error(absl::StrCat(ids.size(), " tokens exceed the model's context of ",
                                        model->config().context_length));
    }
    Json logprobs = Json::array();
    if (!ids.empty()) logprobs.push_back(nullptr);
    if (ids.size() > 1) {
      TrainingSequence sequence{{ids[0]}, {ids.begin() + 1, ids.end()}};
      at::Tensor scores = ForwardLogprobs(*model, Pack({&sequence}), 1.0).logprobs.cpu();
      const float* data = scores.const_data_ptr<float>();
      for (int64_t i = 0; i < scores.size(0); ++i) logprobs.push_back(data[i]);
    }
    E3_RETURN_IF_ERROR(writer->Write({{"id", line->value("id", Json(reader->line()))},
                                      {"token_ids", ids},
                                      {"logprobs", logprobs}}));
    progress.Show(absl::StrFormat("%d lines", reader->line()));
  }
  return writer->Close();
}

}  // namespace e3
