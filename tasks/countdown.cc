#include "tasks/countdown.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace e3 {
namespace {

std::optional<int64_t> Apply(char op, int64_t a, int64_t b, const v1::Countdown& spec) {
  int64_t value;
  switch (op) {
    case '+':
      value = a + b;
      break;
    case '-':
      value = a - b;
      break;
    case '*':
      value = a * b;
      break;
    default:
      if (b == 0 || a % b != 0) return std::nullopt;
      value = a / b;
  }
  if (value < spec.min_value() || value > spec.max_value()) return std::nullopt;
  if (spec.positive_only() && value <= 0) return std::nullopt;
  return value;
}

// Every left-to-right attempt that reaches the target, up to a limit.
void Solve(const v1::Countdown& spec, CountdownAttempt& partial, std::vector<int64_t>& rest,
           int64_t target, std::vector<CountdownAttempt>& found) {
  if (rest.empty()) {
    if (partial.value == target) found.push_back(partial);
    return;
  }
  for (size_t i = 0; i < rest.size() && found.size() < 64; ++i) {
    int64_t number = rest[i];
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
    for (char op : {'+', '-', '*', '/'}) {
      std::optional<int64_t> value = Apply(op, partial.value, number, spec);
      if (!value) continue;
      CountdownAttempt next = partial;
      next.operands.push_back(number);
      next.operators.push_back(op);
      next.value = *value;
      Solve(spec, next, rest, target, found);
    }
    rest.insert(rest.begin() + static_cast<std::ptrdiff_t>(i), number);
  }
}

std::vector<CountdownAttempt> Solutions(const v1::Countdown& spec, const CountdownPuzzle& puzzle) {
  std::vector<CountdownAttempt> found;
  for (size_t i = 0; i < puzzle.numbers.size(); ++i) {
    std::vector<int64_t> rest = puzzle.numbers;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
    CountdownAttempt start{{puzzle.numbers[i]}, "", puzzle.numbers[i]};
    Solve(spec, start, rest, puzzle.target, found);
  }
  return found;
}

}  // namespace

std::string CountdownPuzzle::Key() const {
  std::vector<int64_t> sorted = numbers;
  std::sort(sorted.begin(), sorted.end());
  return absl::StrCat(absl::StrJoin(sorted, " "), "=", target);
}

v1::Countdown CountdownWithDefaults(v1::Countdown spec) {
  if (spec.numbers() == 0) spec.set_numbers(3);
  if (spec.max_number() == 0) spec.set_max_number(15);
  if (spec.max_target() == 0) spec.set_max_target(100);
  if (!spec.has_min_value()) spec.set_min_value(-15);
  if (!spec.has_max_value()) spec.set_max_value(225);
  if (spec.template_().empty()) spec.set_template_("Numbers {numbers} Target {target} <think>");
  return spec;
}

absl::StatusOr<std::vector<CountdownPuzzle>> GenerateCountdown(
    const v1::Countdown& unresolved, const std::set<std::string>& excluded) {
  const v1::Countdown spec = CountdownWithDefaults(unresolved);
  PhiloxStream random(spec.seed(), /*stream=*/1);
  std::set<std::string> seen = excluded;
  std::vector<CountdownPuzzle> puzzles;
  int64_t misses = 0;
  while (static_cast<int64_t>(puzzles.size()) < spec.count()) {
    // Distinct puzzles run out gradually; a long row of draws without a new one means that (nearly)
    // all are taken, or that none is within the ranges.
    if (misses > 1000000) {
      return absl::InvalidArgumentError(
          absl::StrCat("only ", puzzles.size(), " distinct Countdown puzzles with ", spec.numbers(),
                       " numbers up to ", spec.max_number(), " and targets up to ",
                       spec.max_target(), " could be found, not ", spec.count()));
    }
    CountdownPuzzle puzzle;
    for (int i = 0; i < spec.numbers(); ++i)
      puzzle.numbers.push_back(random.Between(1, spec.max_number()));
    std::optional<CountdownAttempt> attempt = RandomAttempt(spec, puzzle.numbers, random);
    const bool in_range = attempt && attempt->value >= 1 && attempt->value <= spec.max_target();
    if (in_range) puzzle.target = attempt->value;
    if (in_range && seen.insert(puzzle.Key()).second) {
      puzzles.push_back(std::move(puzzle));
      misses = 0;
    } else {
      ++misses;
    }
  }
  return puzzles;
}

std::string CountdownPrompt(const std::string& text_template, const CountdownPuzzle& puzzle) {
  return absl::StrReplaceAll(text_template, {{"{numbers}", absl::StrJoin(puzzle.numbers, " ")},
                                             {"{target}", absl::StrCat(puzzle.target)}});
}

std::optional<CountdownAttempt> RandomAttempt(const v1::Countdown& spec,
                                              const std::vector<int64_t>& numbers,
                                              PhiloxStream& random) {
  std::vector<int64_t> order = numbers;
  random.Shuffle(order);
  CountdownAttempt attempt{{order[0]}, "", order[0]};
  for (size_t i = 1; i < order.size(); ++i) {
    char op = "+-*/"[random.Below(4)];
    std::optional<int64_t> value = Apply(op, attempt.value, order[i], spec);
    if (!value) return std::nullopt;
    attempt.operands.push_back(order[i]);
    attempt.operators.push_back(op);
    attempt.value = *value;
  }
  return attempt;
}

std::string CountdownAttempt::Steps() const {
  std::vector<std::string> steps;
  int64_t value = operands[0];
  for (size_t i = 0; i < operators.size(); ++i) {
    int64_t b = operands[i + 1];
    int64_t next = operators[i] == '+'   ? value + b
                   : operators[i] == '-' ? value - b
                   : operators[i] == '*' ? value * b
                                         : value / b;
    steps.push_back(absl::StrCat(value, " ", std::string(1, operators[i]), " ", b, " = ", next));
    value = next;
  }
  return absl::StrJoin(steps, " , ");
}

std::string CountdownAttempt::Expression() const {
  std::string text = absl::StrCat(operands[0]);
  bool sum = false;  // the text so far binds less tightly than * and /
  for (size_t i = 0; i < operators.size(); ++i) {
    bool product = operators[i] == '*' || operators[i] == '/';
    if (product && sum) text = absl::StrCat("( ", text, " )");
    text = absl::StrCat(text, " ", std::string(1, operators[i]), " ", operands[i + 1]);
    sum = !product;
  }
  return text;
}

std::string SearchTrace(const v1::Countdown& unresolved, const CountdownPuzzle& puzzle,
                        const TraceOptions& options, PhiloxStream& random) {
  const v1::Countdown spec = CountdownWithDefaults(unresolved);
  std::vector<CountdownAttempt> solutions = Solutions(spec, puzzle);
  std::string text;
  CountdownAttempt attempt;
  for (int i = 0; i < options.max_attempts; ++i) {
    if (!solutions.empty() && random.Uniform() < options.right_attempt) {
      attempt =
          solutions[static_cast<size_t>(random.Below(static_cast<int64_t>(solutions.size())))];
    } else {
      std::optional<CountdownAttempt> drawn;
      while (!drawn) drawn = RandomAttempt(spec, puzzle.numbers, random);
      attempt = *drawn;
    }
    if (i > 0 && random.Uniform() < options.say_wait) text += "Wait ";
    bool right = attempt.value == puzzle.target;
    absl::StrAppend(&text, "Try : ", attempt.Steps(), " , ", right ? "yes" : "no", " . ");
    if (right || random.Uniform() < options.stop_after_wrong) break;
  }
  absl::StrAppend(&text, "</think> <answer> ", attempt.Expression(), " </answer>");
  return text;
}

}  // namespace e3
