#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reward_service/verifier.h"
#include "services/offline/commands.h"
#include "services/offline/jsonl.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

// A field as text; numbers as JSON writes them.
std::optional<std::string> Text(const Json& line, const char* field) {
  auto it = line.find(field);
  if (it == line.end()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (it->is_number()) return it->dump();
  return std::nullopt;
}

absl::StatusOr<v1::ScoreRequest> Request(const Json& line, const VerifyOptions& o) {
  v1::ScoreRequest request;
  std::optional<std::string> response = Text(line, "response");
  if (!response) return absl::InvalidArgumentError("no \"response\"");
  request.set_response(*response);
  if (o.task == "math") {
    std::optional<std::string> gold = Text(line, "gold");
    if (!gold) return absl::InvalidArgumentError("no \"gold\"");
    request.mutable_math()->set_gold(*gold);
  } else if (o.task == "countdown") {
    v1::CountdownTask* task = request.mutable_countdown();
    if (!line.contains("numbers") || !line["numbers"].is_array())
      return absl::InvalidArgumentError("no \"numbers\"");
    for (const Json& n : line["numbers"]) {
      if (!n.is_number_integer())
        return absl::InvalidArgumentError("\"numbers\" must be whole numbers");
      task->add_numbers(n.get<int64_t>());
    }
    if (!line.contains("target") || !line["target"].is_number_integer())
      return absl::InvalidArgumentError("\"target\" must be a whole number");
    task->set_target(line["target"].get<int64_t>());
    task->set_format_score(o.format_score);
  } else {
    std::optional<std::string> a = Text(line, "a"), b = Text(line, "b");
    if (!a || !b) return absl::InvalidArgumentError("a multiplication line needs \"a\" and \"b\"");
    request.mutable_multiplication()->set_a(*a);
    request.mutable_multiplication()->set_b(*b);
  }
  return request;
}

}  // namespace

absl::Status RunVerify(const VerifyOptions& o) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(o.in));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlWriter> writer, JsonlWriter::Open(o.out, o.in));
  ProgressLine progress("verify");
  int64_t lines = 0;
  double score = 0;
  while (true) {
    E3_ASSIGN_OR_RETURN(std::optional<Json> line, reader->Next());
    if (!line) break;
    absl::StatusOr<v1::ScoreRequest> request = Request(*line, o);
    if (!request.ok()) return reader->Error(request.status().message());
    v1::ScoreReply reply = Score(*request);
    if (reply.error_code() != 0) return reader->Error(reply.error());
    E3_RETURN_IF_ERROR(writer->Write({{"id", line->value("id", Json(reader->line()))},
                                      {"score", reply.score()},
                                      {"extracted", reply.extracted()},
                                      {"rule", reply.rule()},
                                      {"reason", reply.reason()}}));
    score += reply.score();
    if (++lines % 1000 == 0)
      progress.Show(
          absl::StrFormat("%d lines, mean score %.4f", lines, score / static_cast<double>(lines)));
  }
  return writer->Close();
}

}  // namespace e3
