// The reward service as its clients see it.
#ifndef E3_LEARNER_SERVICE_REWARD_CLIENT_H_
#define E3_LEARNER_SERVICE_REWARD_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/rewards.grpc.pb.h"

namespace e3 {

class RewardClient {
 public:
  // `answer`: how long the service may take for all that it is asked at once; then what has no
  // verdict yet is asked again.
  explicit RewardClient(const std::string& address,
                        std::chrono::milliseconds answer = std::chrono::seconds(120));

  // A reply to every request, in order (ids are overwritten). When the service is away, what has no
  // verdict yet is asked again. A response that could not be judged in three attempts has a reply
  // with `error_code` and `error` and no verdict: it is the caller's to leave it out, there is no
  // silent zero. Cancelled when `stop` says so; Unavailable after five minutes without an answer.
  // Thread-safe.
  absl::StatusOr<std::vector<v1::ScoreReply>> Score(std::vector<v1::ScoreRequest> requests,
                                                    const std::function<bool()>& stop);

 private:
  std::string address_;
  std::chrono::milliseconds answer_;
  std::unique_ptr<v1::Rewards::Stub> stub_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_REWARD_CLIENT_H_
