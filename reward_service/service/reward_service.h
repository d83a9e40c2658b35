// The reward service on gRPC.
#ifndef E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_
#define E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_

#include <mutex>
#include <set>

#include "e3/v1/rewards.grpc.pb.h"

namespace e3 {

class RewardService final : public v1::Rewards::Service {
 public:
  grpc::Status Score(grpc::ServerContext* context,
                     grpc::ServerReaderWriter<v1::ScoreReply, v1::ScoreRequest>* stream) override;
  // Ends all streams.
  void Drain();

 private:
  std::mutex mutex_;
  std::set<grpc::ServerContext*> streams_;
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_SERVICE_REWARD_SERVICE_H_
