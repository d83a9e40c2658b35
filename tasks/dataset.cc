#include "tasks/dataset.h"

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "services/runtime/status_macros.h"
#include "tasks/countdown.h"
#include "tasks/records.h"

namespace e3 {
namespace {

using Json = nlohmann::json;

// The value at a field, which may be a path ("reward_model.ground_truth"); null where there is
// none.
const Json* Find(const Json& record, const std::string& field) {
  auto it = record.find(field);
  if (it != record.end()) return &*it;
  const Json* at = &record;
  for (absl::string_view part : absl::StrSplit(field, '.')) {
    if (!at->is_object()) return nullptr;
    auto next = at->find(std::string(part));
    if (next == at->end()) return nullptr;
    at = &*next;
  }
  return at;
}

// A value as text: strings as they are, numbers as JSON writes them.
std::optional<std::string> Text(const Json* value) {
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (value->is_number() || value->is_boolean()) return value->dump();
  return std::nullopt;
}

// Of 64 bits with a sign.
bool IsWhole(const Json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() &&
           value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
}

bool Passes(const Json& record, const v1::Dataset& dataset) {
  for (const v1::Filter& filter : dataset.filters()) {
    std::optional<std::string> value = Text(Find(record, filter.field()));
    bool found = false;
    for (const std::string& wanted : filter.values()) found = found || (value && *value == wanted);
    if (!found) return false;
  }
  return true;
}

// What a record of a file becomes. Fields that the data set does not name are found where plain
// files and those of verl have them.
class RecordReader {
 public:
  explicit RecordReader(const v1::Dataset& dataset)
      : dataset_(dataset),
        prompt_field_(dataset.prompt_field().empty() ? "prompt" : dataset.prompt_field()),
        template_(dataset.template_().empty() ? "{prompt}" : dataset.template_()),
        gold_pattern_(dataset.gold_pattern(), RE2::Quiet) {}  // linear in the text, whatever it is

  absl::Status Check() const {
    if (gold_pattern_.ok()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("gold_pattern is not a regular expression: ", gold_pattern_.error()));
  }

  absl::StatusOr<Problem> Read(const Json& record) const {
    const std::string gold_field = !dataset_.gold_field().empty()       ? dataset_.gold_field()
                                   : Find(record, kVerlGold) != nullptr ? kVerlGold
                                                                        : "answer";
    const Json* gold = Find(record, gold_field);
    // Puzzles are told by their numbers: in the record itself, or as its gold answer.
    const Json* puzzle = gold != nullptr && gold->is_object() ? gold : &record;
    Problem problem;
    if (dataset_.task() == "countdown" || (dataset_.task().empty() && puzzle == gold)) {
      E3_RETURN_IF_ERROR(ReadCountdown(*puzzle, record, &problem));
    } else {
      E3_RETURN_IF_ERROR(ReadMath(gold, gold_field, record, &problem));
    }
    return problem;
  }

 private:
  static constexpr char kVerlGold[] = "reward_model.ground_truth";
  static absl::Status Bad(const std::string& why) { return absl::InvalidArgumentError(why); }

  absl::Status ReadCountdown(const Json& puzzle, const Json& record, Problem* problem) const {
    const Json* numbers = Find(puzzle, "numbers");
    const Json* target = Find(puzzle, "target");
    if (numbers == nullptr || !numbers->is_array() || target == nullptr)
      return Bad("a countdown record needs \"numbers\" and \"target\"");
    if (numbers->empty()) return Bad("\"numbers\" is empty");
    v1::CountdownTask* task = problem->grading.mutable_countdown();
    CountdownPuzzle filled;
    for (const Json& n : *numbers) {
      if (!IsWhole(n)) return Bad("\"numbers\" must be whole numbers");
      filled.numbers.push_back(n.get<int64_t>());
      task->add_numbers(filled.numbers.back());
    }
    if (!IsWhole(*target)) return Bad("\"target\" must be a whole number");
    filled.target = target->get<int64_t>();
    task->set_target(filled.target);
    problem->prompt = CountdownPrompt(template_, filled);
    if (absl::StrContains(template_, "{prompt}"))
      return ReadPrompt(record, problem->prompt, problem);
    return absl::OkStatus();
  }

  absl::Status ReadMath(const Json* value, const std::string& field, const Json& record,
                        Problem* problem) const {
    std::optional<std::string> gold = Text(value);
    if (!gold) return Bad(absl::StrCat("no text or number in field \"", field, "\""));
    if (!dataset_.gold_pattern().empty()) {
      std::string found;
      if (!RE2::PartialMatch(*gold, gold_pattern_, &found)) {
        return Bad(absl::StrCat("gold_pattern '", dataset_.gold_pattern(),
                                "' does not match field \"", field, "\""));
      }
      gold = found;
    }
    if (absl::StripAsciiWhitespace(*gold).empty())
      return Bad(absl::StrCat("the answer in field \"", field, "\" is empty"));
    problem->grading.mutable_math()->set_gold(*gold);
    return ReadPrompt(record, template_, problem);
  }

  // The prompt's text in the place of {prompt}; or its messages, where there is no template.
  absl::Status ReadPrompt(const Json& record, const std::string& text_template,
                          Problem* problem) const {
    const Json* prompt = Find(record, prompt_field_);
    if (prompt != nullptr && prompt->is_array()) {
      if (template_ != "{prompt}")
        return Bad("a template is for prompts that are text; these are chat messages");
      problem->prompt.clear();
      for (const Json& message : *prompt) {
        std::optional<std::string> role =
                                       Text(message.is_object() ? Find(message, "role") : nullptr),
                                   content = Text(message.is_object() ? Find(message, "content")
                                                                      : nullptr);
        if (!role || !content)
          return Bad(absl::StrCat("a message in field \"", prompt_field_,
                                  "\" has no \"role\" and \"content\" of text"));
        problem->messages.push_back({*role, *content});
      }
      if (problem->messages.empty())
        return Bad(absl::StrCat("field \"", prompt_field_, "\" has no messages"));
      return absl::OkStatus();
    }
    std::optional<std::string> text = Text(prompt);
    if (!text) return Bad(absl::StrCat("no field \"", prompt_field_, "\""));
    problem->prompt = absl::StrReplaceAll(text_template, {{"{prompt}", *text}});
    return absl::OkStatus();
  }

  const v1::Dataset& dataset_;
  const std::string prompt_field_, template_;
  const RE2 gold_pattern_;
};

absl::StatusOr<std::vector<Problem>> LoadFile(const v1::Dataset& dataset) {
  const RecordReader reader(dataset);
  E3_RETURN_IF_ERROR(reader.Check());
  std::vector<Problem> problems;
  E3_RETURN_IF_ERROR(
      ForEachRecord(dataset.file(), [&](const Json& record, int64_t number) -> absl::Status {
        if (!Passes(record, dataset)) return absl::OkStatus();
        absl::StatusOr<Problem> problem = reader.Read(record);
        if (!problem.ok()) {
          return absl::InvalidArgumentError(
              absl::StrCat(dataset.file(), ":", number, ": ", problem.status().message()));
        }
        problems.push_back(*std::move(problem));
        return absl::OkStatus();
      }));
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
