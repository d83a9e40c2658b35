#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reward_service/verifier.h"
#include "services/offline/commands.h"
#include "services/offline/jsonl.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

// Lines judged at once, on all cores: what bounds the memory.
constexpr size_t kBatch = 1024;

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
    v1::MathTask* task = request.mutable_math();
    task->set_gold(*gold);
    task->set_extract(o.extract == "any" ? v1::EXTRACT_ANY : v1::EXTRACT_BOXED);
    if (o.precision >= 0) task->set_precision(static_cast<uint32_t>(o.precision));
  } else if (o.task == "countdown") {
    v1::CountdownTask* task = request.mutable_countdown();
    if (!line.contains("numbers") || !line["numbers"].is_array())
      return absl::InvalidArgumentError("no \"numbers\"");
    for (const Json& n : line["numbers"]) {
      if (!n.is_number_integer() || (n.is_number_unsigned() && n.get<uint64_t>() > INT64_MAX))
        return absl::InvalidArgumentError("\"numbers\" must be whole numbers below 2^63");
      task->add_numbers(n.get<int64_t>());
    }
    if (!line.contains("target") || !line["target"].is_number_integer())
      return absl::InvalidArgumentError("\"target\" must be a whole number");
    task->set_target(line["target"].get<int64_t>());
    task->set_rule(o.rule == "tinyzero" ? v1::COUNTDOWN_RULE_TINYZERO : v1::COUNTDOWN_RULE_STRICT);
    if (o.format_score >= 0) task->set_format_score(o.format_score);
  } else {
    std::optional<std::string> a = Text(line, "a"), b = Text(line, "b");
    if (!a || !b) return absl::InvalidArgumentError("a multiplication line needs \"a\" and \"b\"");
    for (const char* field : {"a", "b"}) {
      if (line[field].is_number_float())
        return absl::InvalidArgumentError(
            absl::StrCat("\"", field, "\" is too large for a JSON number: write it as a string"));
    }
    request.mutable_multiplication()->set_a(*a);
    request.mutable_multiplication()->set_b(*b);
  }
  return request;
}

struct Line {
  Json id;
  absl::StatusOr<v1::ScoreRequest> request = absl::UnknownError("");
  Json verdict;
  double score = 0;
  bool failed = false;
};

void Judge(Scorer* scorer, Line* line) {
  line->verdict = {{"id", line->id}};
  if (line->request.ok()) {
    v1::ScoreReply reply = scorer->Score(*line->request);
    if (reply.error_code() == 0) {
      line->score = reply.score();
      line->verdict["score"] = reply.score();
      line->verdict["extracted"] = reply.extracted();
      line->verdict["rule"] = reply.rule();
      line->verdict["reason"] = reply.reason();
      return;
    }
    line->request = absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error());
  }
  line->failed = true;
  line->verdict["error"] = std::string(line->request.status().message());
}

void JudgeAll(Scorer* scorer, std::vector<Line>* lines) {
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next++; i < lines->size(); i = next++) Judge(scorer, &(*lines)[i]);
  };
  std::vector<std::thread> threads;
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  for (size_t i = 1; i < cores && lines->size() > 64; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

absl::Status RunVerify(const VerifyOptions& o) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlReader> reader, JsonlReader::Open(o.in));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<JsonlWriter> writer, JsonlWriter::Open(o.out, o.in));
  ProgressLine progress("verify");
  Scorer scorer;
  int64_t count = 0, failed = 0;
  std::string first_failure;
  double score = 0;
  bool more = true;
  while (more) {
    std::vector<Line> lines;
    while (lines.size() < kBatch) {
      absl::StatusOr<std::optional<Json>> json = reader->Next();
      if (json.ok() && !json->has_value()) {
        more = false;
        break;
      }
      Line& line = lines.emplace_back();
      line.id = Json(reader->line());
      if (!json.ok()) {
        line.request = absl::InvalidArgumentError("not a JSON object");
      } else {
        line.id = (*json)->value("id", line.id);
        line.request = Request(**json, o);
      }
      if (!line.request.ok() && first_failure.empty())
        first_failure = std::string(reader->Error(line.request.status().message()).message());
    }
    JudgeAll(&scorer, &lines);
    for (const Line& line : lines) {
      E3_RETURN_IF_ERROR(writer->Write(line.verdict));
      score += line.score;
      ++count;
      if (!line.failed) continue;
      if (failed++ == 0 && first_failure.empty())
        first_failure =
            absl::StrCat("id ", line.id.dump(), ": ", line.verdict["error"].get<std::string>());
    }
    progress.Show(absl::StrFormat("%d lines, mean score %.4f", count,
                                  count == 0 ? 0 : score / static_cast<double>(count)));
  }
  E3_RETURN_IF_ERROR(writer->Close());
  if (failed == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      first_failure,
      count == 1 ? ""
                 : absl::StrCat(" (lines that could not be judged have an \"error\": ", failed,
                                " of ", count, ")")));
}

}  // namespace e3
