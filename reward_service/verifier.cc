#include "reward_service/verifier.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "reward_service/countdown/countdown_verifier.h"
#include "reward_service/math/math_verifier.h"
#include "reward_service/math/utf8.h"
#include "reward_service/multiplication/multiplication_verifier.h"
#include "reward_service/trace/trace_statistics.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, TaskFactory> factories;
};
Registry& Plugins() {
  static auto* registry = new Registry;
  return *registry;
}

math::Limits Limited(math::Limits limits, const v1::VerifierLimits& wanted) {
  auto lower = [](auto limit, uint32_t value) {
    return value == 0 ? limit : std::min(limit, decltype(limit)(value));
  };
  limits.characters = lower(limits.characters, wanted.characters());
  limits.depth = static_cast<int>(lower(int64_t{limits.depth}, wanted.depth()));
  limits.digits = lower(limits.digits, wanted.digits());
  limits.bits = lower(limits.bits, wanted.bits());
  limits.time = lower(limits.time, wanted.milliseconds());
  return limits;
}

absl::StatusOr<std::unique_ptr<TaskVerifier>> MakeTask(const v1::ScoreRequest& request,
                                                       const math::Limits& limits) {
  switch (request.task_case()) {
    case v1::ScoreRequest::kMath: {
      const v1::MathTask& task = request.math();
      if (task.gold().find_first_not_of(" \t\r\n") == std::string::npos)
        return absl::InvalidArgumentError("a math request needs a gold answer");
      MathOptions options;
      options.extract = task.extract() == v1::EXTRACT_ANY ? Extract::kAny : Extract::kBoxed;
      if (task.has_precision()) {
        if (task.precision() > 1000)
          return absl::InvalidArgumentError("a precision of more than 1000 digits");
        options.comparison.precision = static_cast<int>(task.precision());
      }
      options.limits = Limited(limits, request.limits());
      return std::make_unique<MathVerifier>(task.gold(), options);
    }
    case v1::ScoreRequest::kCountdown: {
      const v1::CountdownTask& task = request.countdown();
      if (task.numbers().empty())
        return absl::InvalidArgumentError("a countdown request needs numbers");
      CountdownProblem problem{{task.numbers().begin(), task.numbers().end()}, task.target()};
      const bool tinyzero = task.rule() == v1::COUNTDOWN_RULE_TINYZERO;
      problem.rule = tinyzero ? CountdownRule::kTinyZero : CountdownRule::kStrict;
      problem.format_score = task.has_format_score() ? task.format_score() : tinyzero ? 0.1 : 0;
      return std::make_unique<CountdownVerifier>(std::move(problem));
    }
    case v1::ScoreRequest::kMultiplication:
      return MultiplicationVerifier::Create(request.multiplication().a(),
                                            request.multiplication().b());
    case v1::ScoreRequest::kPlugin: {
      Registry& registry = Plugins();
      std::lock_guard<std::mutex> lock(registry.mutex);
      auto it = registry.factories.find(request.plugin().name());
      if (it == registry.factories.end()) {
        std::vector<std::string> known;
        for (const auto& [name, factory] : registry.factories) known.push_back(name);
        return absl::NotFoundError(
            absl::StrCat("no plug-in task of this name; there ", known.size() == 1 ? "is " : "are ",
                         known.empty() ? "none" : absl::StrJoin(known, ", ")));
      }
      return it->second(request.plugin().problem());
    }
    case v1::ScoreRequest::TASK_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the request names no task (math, countdown, multiplication or plugin)");
}

}  // namespace

void RegisterTask(std::string name, TaskFactory factory) {
  Registry& registry = Plugins();
  std::lock_guard<std::mutex> lock(registry.mutex);
  registry.factories[std::move(name)] = std::move(factory);
}

std::string TaskName(const v1::ScoreRequest& request) {
  switch (request.task_case()) {
    case v1::ScoreRequest::kMath:
      return "math";
    case v1::ScoreRequest::kCountdown:
      return "countdown";
    case v1::ScoreRequest::kMultiplication:
      return "multiplication";
    case v1::ScoreRequest::kPlugin: {
      // Only names that are known: a metric has one series a name.
      Registry& registry = Plugins();
      std::lock_guard<std::mutex> lock(registry.mutex);
      return registry.factories.count(request.plugin().name()) > 0 ? request.plugin().name()
                                                                   : "none";
    }
    case v1::ScoreRequest::TASK_NOT_SET:
      break;
  }
  return "none";
}

absl::StatusOr<Verdict> Scorer::Judge(const std::string& name, const TaskVerifier& task,
                                      const Answer& answer) {
  if (!cache_.enabled()) return task.Judge(answer);
  // With lengths, so that no two problems or answers have one key.
  const std::string problem = task.Key();
  std::string key = absl::StrCat(name, " ", problem.size(), ":", problem);
  for (const std::string& reading : answer.readings)
    absl::StrAppend(&key, " ", reading.size(), ":", reading);
  if (std::optional<Verdict> known = cache_.Find(key)) return *known;
  absl::StatusOr<Verdict> verdict = task.Judge(answer);
  if (verdict.ok()) cache_.Put(key, *verdict);
  return verdict;
}

v1::ScoreReply Scorer::Score(const v1::ScoreRequest& request) {
  v1::ScoreReply reply;
  reply.set_id(request.id());
  auto fail = [&](const absl::Status& status) {
    reply.set_error_code(static_cast<int>(status.code()));
    reply.set_error(math::ValidUtf8(status.message()));
    return reply;
  };
  const absl::string_view response = request.response();
  const auto& ends = request.token_ends();
  if (!std::is_sorted(ends.begin(), ends.end()) ||
      (!ends.empty() && ends[ends.size() - 1] > response.size())) {
    return fail(absl::InvalidArgumentError("token_ends must rise and stay within the response"));
  }
  if (request.budgets_size() > 0 && ends.empty())
    return fail(absl::InvalidArgumentError("budgets need token_ends"));
  if (request.budgets_size() > 256)
    return fail(absl::InvalidArgumentError("more than 256 budgets"));

  const std::string name = TaskName(request);
  absl::StatusOr<std::unique_ptr<TaskVerifier>> task = MakeTask(request, limits_);
  if (!task.ok()) return fail(task.status());
  auto judge = [&](absl::string_view text, size_t* end) -> absl::StatusOr<Verdict> {
    std::optional<Answer> answer = (*task)->FindAnswer(text);
    if (!answer) return NoAnswer();
    if (end != nullptr) *end = answer->end;
    return Judge(name, **task, *answer);
  };
  size_t end = 0;
  absl::StatusOr<Verdict> verdict = judge(response, &end);
  if (!verdict.ok()) return fail(verdict.status());
  for (uint32_t budget : request.budgets()) {
    const size_t tokens = std::min<size_t>(budget, static_cast<size_t>(ends.size()));
    const size_t bytes = tokens == 0 ? 0 : ends[static_cast<int>(tokens) - 1];
    if (tokens == static_cast<size_t>(ends.size())) {
      reply.add_budget_scores(verdict->score);
      continue;
    }
    absl::StatusOr<Verdict> cut = judge(response.substr(0, bytes), nullptr);
    if (!cut.ok()) return fail(cut.status());
    reply.add_budget_scores(cut->score);
  }
  reply.set_score(verdict->score);
  reply.set_extracted(math::ValidUtf8(verdict->extracted));
  reply.set_rule(verdict->rule);
  reply.set_reason(math::ValidUtf8(verdict->reason));
  *reply.mutable_trace() = MeasureTrace(
      response, {request.verification_phrases().begin(), request.verification_phrases().end()});
  reply.mutable_trace()->set_tokens(static_cast<uint32_t>(ends.size()));
  if (end > 0 && !ends.empty()) {
    auto it = std::lower_bound(ends.begin(), ends.end(), end);
    reply.set_answer_tokens(
        static_cast<uint32_t>(std::min<std::ptrdiff_t>(it - ends.begin() + 1, ends.size())));
  }
  return reply;
}

}  // namespace e3
