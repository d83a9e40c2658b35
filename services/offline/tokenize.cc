#include "services/offline/commands.h"
#include "services/offline/prompt_line.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

// Reads lines, turns each into another with `f`, and names the line of what cannot be turned.
template <typename F>
absl::Status ForEachLine(const TokenizeOptions& o, F f) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(o.in));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlWriter> writer, JsonlWriter::Open(o.out, o.in));
  while (true) {
    E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
    if (!line) break;
    absl::StatusOr<Json> result = f(*line);
    if (!result.ok()) return reader->Error(result.status().message());
    Json out = {{"id", line->value("id", Json(reader->line()))}};
    out.update(*result);
    E3_RETURN_IF_ERROR(writer->Write(out));
  }
  return writer->Close();
}

}  // namespace

absl::Status RunEncode(const TokenizeOptions& o) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<PromptEncoder> encoder, PromptEncoder::Load(o.model));
  return ForEachLine(o, [&](const Json& line) -> absl::StatusOr<Json> {
    E3_ASSIGN_OR_RETURN(std::vector<uint32_t> ids, PromptIds(line, *encoder));
    return Json{{"token_ids", ids}};
  });
}

absl::Status RunDecode(const TokenizeOptions& o) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(o.model));
  return ForEachLine(o, [&](const Json& line) -> absl::StatusOr<Json> {
    E3_ASSIGN_OR_RETURN(std::vector<uint32_t> ids, TokenIds(line));
    E3_ASSIGN_OR_RETURN(std::string text, tokenizer->Decode(ids, /*skip_special_tokens=*/true));
    return Json{{"text", text}};
  });
}

}  // namespace e3
