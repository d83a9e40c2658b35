// The reward service on gRPC.
#ifndef E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_
#define E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_

#include <mutex>
#include <set>

#include "e3/v1/rewards.grpc.pb.h"
#include "reward_service/service/worker_pool.h"
#include "reward_service/verifier.h"

namespace e3 {

struct RewardServiceOptions {
  int threads = 0;               // that judge; 0: one a core
  int in_flight = 256;           // requests of one stream that are read and not yet answered
  size_t cache_entries = 65536;  // verdicts kept; 0: none
  math::Limits limits;
};

// Every stream has its requests judged on all cores; replies go out as they are ready. A stream
// whose client does not read its replies is not read further once `in_flight` of its requests wait,
// and holds up nobody else.
class RewardService final : public v1::Rewards::Service {
 public:
  explicit RewardService(const RewardServiceOptions& options);
  grpc::Status Score(grpc::ServerContext* context,
                     grpc::ServerReaderWriter<v1::ScoreReply, v1::ScoreRequest>* stream) override;
  // Ends all streams.
  void Drain();

 private:
  v1::ScoreReply Judge(const v1::ScoreRequest& request);

  const RewardServiceOptions options_;
  Scorer scorer_;
  std::mutex mutex_;
  std::set<grpc::ServerContext*> streams_;
  WorkerPool workers_;  // last: its threads use what stands above
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_
