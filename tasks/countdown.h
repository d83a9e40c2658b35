// Countdown puzzles: reach a target from numbers, each used once, with + - * / (Gandhi et al.
// 2024). And synthetic search traces over them, from which the starter model learns to try, check
// and give up too early.
#ifndef E3_TASKS_COUNTDOWN_H_
#define E3_TASKS_COUNTDOWN_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "services/runtime/philox.h"

namespace e3 {

struct CountdownPuzzle {
  std::vector<int64_t> numbers;
  int64_t target;
  // Two puzzles are the same when their sorted numbers and targets are.
  std::string Key() const;
};

// `spec` with its defaults filled in.
v1::Countdown CountdownWithDefaults(v1::Countdown spec);

// spec.count distinct puzzles, none of whose keys is in `excluded`. A puzzle's target is the value
// of a random left-to-right expression over all its numbers, so every puzzle can be solved.
// InvalidArgument when the settings do not allow that many puzzles.
absl::StatusOr<std::vector<CountdownPuzzle>> GenerateCountdown(
    const v1::Countdown& spec, const std::set<std::string>& excluded);

std::string CountdownPrompt(const std::string& text_template, const CountdownPuzzle& puzzle);

// One left-to-right attempt: ((a op b) op c) …, with every intermediate result a whole number
// within bounds.
struct CountdownAttempt {
  std::vector<int64_t> operands;
  std::string operators;  // one character between two operands
  int64_t value;
  // "3 * 7 = 21 , 21 + 12 = 33"
  std::string Steps() const;
  // "( 3 * 7 ) + 12", with parentheses only where precedence asks for them.
  std::string Expression() const;
};

// A random attempt over all numbers in random order; nullopt when the draw left the bounds.
std::optional<CountdownAttempt> RandomAttempt(const v1::Countdown& spec,
                                              const std::vector<int64_t>& numbers,
                                              PhiloxStream& random);

// The settings of synthetic traces; see ../deploy/models/countdown-starter.
struct TraceOptions {
  double right_attempt =
      0.15;  // an attempt is a right one with this probability, else a random one
  double stop_after_wrong = 0.25;  // give up after a wrong attempt and answer with it
  double say_wait = 0.5;           // begin the next attempt with "Wait"
  int max_attempts = 40;
};

// The response that follows the prompt: attempts, then the answer. The end-of-sequence token is not
// part of it.
std::string SearchTrace(const v1::Countdown& spec, const CountdownPuzzle& puzzle,
                        const TraceOptions& options, PhiloxStream& random);

}  // namespace e3

#endif  // E3_TASKS_COUNTDOWN_H_
