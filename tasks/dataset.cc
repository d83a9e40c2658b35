#include "tasks/dataset.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/runtime/status_macros.h"
#include "tasks/countdown.h"

namespace e3 {
namespace {

using Json = nlohmann::json;

// A field as text: strings as they are, numbers as JSON writes them.
std::optional<std::string> FieldText(const Json& line, const std::string& field) {
  auto it = line.find(field);
  if (it == line.end()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (it->is_number() || it->is_boolean()) return it->dump();
  return std::nullopt;
}

bool Passes(const Json& line, const v1::Dataset& dataset) {
  for (const v1::Filter& filter : dataset.filters()) {
    std::optional<std::string> value = FieldText(line, filter.field());
    bool found = false;
    for (const std::string& wanted : filter.values()) found = found || (value && *value == wanted);
    if (!found) return false;
  }
  return true;
}

absl::StatusOr<std::vector<Problem>> LoadFile(const v1::Dataset& dataset) {
  const std::string& path = dataset.file();
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot open data file ", path));
  const std::string prompt_field =
      dataset.prompt_field().empty() ? "prompt" : dataset.prompt_field();
  const std::string gold_field = dataset.gold_field().empty() ? "answer" : dataset.gold_field();
  const std::string text_template = dataset.template_().empty() ? "{prompt}" : dataset.template_();
  const std::string task = dataset.task().empty() ? "math" : dataset.task();
  RE2 gold_pattern(dataset.gold_pattern(), RE2::Quiet);  // linear in the text, whatever the pattern
  if (!gold_pattern.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("gold_pattern is not a regular expression: ", gold_pattern.error()));
  }

  std::vector<Problem> problems;
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number) {
    if (absl::StripAsciiWhitespace(text).empty()) continue;
    auto bad = [&](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", why));
    };
    Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) return bad("not a JSON object");
    if (!Passes(line, dataset)) continue;
    Problem problem;
    if (task == "countdown") {
      if (!line.contains("numbers") || !line["numbers"].is_array() || !line.contains("target")) {
        return bad("a countdown line needs \"numbers\" and \"target\"");
      }
      v1::CountdownTask* countdown = problem.grading.mutable_countdown();
      CountdownPuzzle puzzle;
      if (line["numbers"].empty()) return bad("\"numbers\" is empty");
      for (const Json& n : line["numbers"]) {
        if (!n.is_number_integer()) return bad("\"numbers\" must be whole numbers");
        puzzle.numbers.push_back(n.get<int64_t>());
        countdown->add_numbers(puzzle.numbers.back());
      }
      if (!line["target"].is_number_integer()) return bad("\"target\" must be a whole number");
      puzzle.target = line["target"].get<int64_t>();
      countdown->set_target(puzzle.target);
      problem.prompt = CountdownPrompt(text_template, puzzle);
      if (absl::StrContains(text_template, "{prompt}")) {
        std::optional<std::string> prompt = FieldText(line, prompt_field);
        if (!prompt) return bad(absl::StrCat("no field \"", prompt_field, "\" for the template"));
        problem.prompt = absl::StrReplaceAll(problem.prompt, {{"{prompt}", *prompt}});
      }
    } else {
      std::optional<std::string> prompt = FieldText(line, prompt_field);
      if (!prompt) return bad(absl::StrCat("no field \"", prompt_field, "\""));
      std::optional<std::string> gold = FieldText(line, gold_field);
      if (!gold) return bad(absl::StrCat("no field \"", gold_field, "\""));
      if (!dataset.gold_pattern().empty()) {
        std::string found;
        if (!RE2::PartialMatch(*gold, gold_pattern, &found)) {
          return bad(absl::StrCat("gold_pattern '", dataset.gold_pattern(),
                                  "' does not match field \"", gold_field, "\""));
        }
        gold = found;
      }
      if (absl::StripAsciiWhitespace(*gold).empty())
        return bad(absl::StrCat("the answer in field \"", gold_field, "\" is empty"));
      problem.prompt = absl::StrReplaceAll(text_template, {{"{prompt}", *prompt}});
      problem.grading.mutable_math()->set_gold(*gold);
    }
    problems.push_back(std::move(problem));
  }
  return problems;
}

absl::StatusOr<std::vector<Problem>> GenerateMultiplication(const v1::Multiplication& spec) {
  std::string text_template = spec.template_().empty()
                                  ? "Multiply {a} and {b}. Please reason step by step, and put "
                                    "your final answer within \\boxed{}."
                                  : spec.template_();
  int digits = spec.digits() == 0 ? 5 : spec.digits();
  int64_t low = 1;
  for (int i = 1; i < digits; ++i) low *= 10;
  PhiloxStream random(spec.seed(), /*stream=*/2);
  std::vector<Problem> problems;
  for (int64_t i = 0; i < spec.count(); ++i) {
    std::string a = absl::StrCat(random.Between(low, low * 10 - 1)),
                b = absl::StrCat(random.Between(low, low * 10 - 1));
    Problem problem;
    problem.prompt = absl::StrReplaceAll(text_template, {{"{a}", a}, {"{b}", b}});
    problem.grading.mutable_multiplication()->set_a(a);
    problem.grading.mutable_multiplication()->set_b(b);
    problems.push_back(std::move(problem));
  }
  return problems;
}

absl::StatusOr<std::vector<CountdownPuzzle>> Puzzles(const v1::JobSpec& spec,
                                                     const std::string& name) {
  const v1::Countdown& countdown = spec.datasets().at(name).countdown();
  std::set<std::string> excluded;
  for (const std::string& other : countdown.exclude()) {
    E3_ASSIGN_OR_RETURN(std::vector<CountdownPuzzle> theirs, Puzzles(spec, other));
    for (const CountdownPuzzle& puzzle : theirs) excluded.insert(puzzle.Key());
  }
  return GenerateCountdown(countdown, excluded);
}

}  // namespace

absl::StatusOr<std::vector<Problem>> LoadDataset(const v1::JobSpec& spec, const std::string& name) {
  auto it = spec.datasets().find(name);
  if (it == spec.datasets().end())
    return absl::NotFoundError(absl::StrCat("the job has no data set '", name, "'"));
  const v1::Dataset& dataset = it->second;
  std::vector<Problem> problems;
  if (dataset.has_countdown()) {
    E3_ASSIGN_OR_RETURN(std::vector<CountdownPuzzle> puzzles, Puzzles(spec, name));
    std::string text_template = CountdownWithDefaults(dataset.countdown()).template_();
    for (const CountdownPuzzle& puzzle : puzzles) {
      Problem problem;
      problem.prompt = CountdownPrompt(text_template, puzzle);
      v1::CountdownTask* task = problem.grading.mutable_countdown();
      for (int64_t n : puzzle.numbers) task->add_numbers(n);
      task->set_target(puzzle.target);
      problems.push_back(std::move(problem));
    }
  } else if (dataset.has_multiplication()) {
    E3_ASSIGN_OR_RETURN(problems, GenerateMultiplication(dataset.multiplication()));
  } else {
    E3_ASSIGN_OR_RETURN(problems, LoadFile(dataset));
  }
  size_t begin =
      std::min(problems.size(), static_cast<size_t>(std::max<int64_t>(dataset.offset(), 0)));
  problems.erase(problems.begin(), problems.begin() + static_cast<std::ptrdiff_t>(begin));
  if (dataset.limit() > 0 && static_cast<int64_t>(problems.size()) > dataset.limit()) {
    problems.resize(static_cast<size_t>(dataset.limit()));
  }
  for (Problem& problem : problems) {
    const v1::Reward& reward = spec.reward();
    if (problem.grading.has_countdown()) {
      v1::CountdownTask* task = problem.grading.mutable_countdown();
      task->set_rule(reward.countdown_rule());
      if (reward.has_format_score()) task->set_format_score(reward.format_score());
    } else if (problem.grading.has_math()) {
      v1::MathTask* task = problem.grading.mutable_math();
      task->set_extract(reward.extract());
      if (reward.has_precision()) task->set_precision(static_cast<uint32_t>(reward.precision()));
    }
    *problem.grading.mutable_verification_phrases() = spec.reward().verification_phrases();
  }
  if (problems.empty())
    return absl::InvalidArgumentError(absl::StrCat("data set '", name, "' has no problems"));
  return problems;
}

absl::StatusOr<std::string> ResolvePath(const std::string& path, const std::string& base) {
  std::string result = path;
  for (size_t at; (at = result.find("${")) != std::string::npos;) {
    size_t end = result.find('}', at);
    if (end == std::string::npos)
      return absl::InvalidArgumentError(absl::StrCat("'", path, "': '${' without '}'"));
    std::string name = result.substr(at + 2, end - at - 2);
    const char* value = getenv(name.c_str());
    std::string text = value != nullptr ? value : "";
    if (value == nullptr) {
      if (name != "E3_DATA_DIR") {
        return absl::InvalidArgumentError(
            absl::StrCat("'", path, "': environment variable ", name, " is not set"));
      }
      text = std::filesystem::absolute("../shared/data").lexically_normal().string();
    }
    result.replace(at, end - at + 1, text);
  }
  std::filesystem::path p(result);
  return (p.is_absolute() ? p : std::filesystem::path(base) / p).lexically_normal().string();
}

}  // namespace e3
