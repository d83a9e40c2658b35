#include "reward_service/verifier.h"

#include "absl/status/statusor.h"
#include "reward_service/countdown/countdown_verifier.h"
#include "reward_service/math/math_verifier.h"
#include "reward_service/multiplication/multiplication_verifier.h"
#include "reward_service/trace/trace_statistics.h"

namespace e3 {
namespace {

absl::StatusOr<Verdict> Verify(const v1::ScoreRequest& request) {
  switch (request.task_case()) {
    case v1::ScoreRequest::kMath:
      if (request.math().gold().empty())
        return absl::InvalidArgumentError("a math request needs a gold answer");
      return VerifyMath(request.response(), request.math().gold());
    case v1::ScoreRequest::kCountdown: {
      const v1::CountdownTask& task = request.countdown();
      if (task.numbers().empty())
        return absl::InvalidArgumentError("a countdown request needs numbers");
      return VerifyCountdown(request.response(), {task.numbers().begin(), task.numbers().end()},
                             task.target(), task.format_score());
    }
    case v1::ScoreRequest::kMultiplication:
      return VerifyMultiplication(request.response(), request.multiplication().a(),
                                  request.multiplication().b());
    case v1::ScoreRequest::TASK_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the request names no task (math, countdown or multiplication)");
}

}  // namespace

v1::ScoreReply Score(const v1::ScoreRequest& request) {
  v1::ScoreReply reply;
  reply.set_id(request.id());
  absl::StatusOr<Verdict> verdict = Verify(request);
  if (!verdict.ok()) {
    reply.set_error_code(static_cast<int>(verdict.status().code()));
    reply.set_error(std::string(verdict.status().message()));
    return reply;
  }
  reply.set_score(verdict->score);
  reply.set_extracted(verdict->extracted);
  reply.set_rule(verdict->rule);
  reply.set_reason(verdict->reason);
  *reply.mutable_trace() = MeasureTrace(request.response(), {request.verification_phrases().begin(),
                                                             request.verification_phrases().end()});
  return reply;
}

}  // namespace e3
