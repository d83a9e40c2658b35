// A rank of a learner that is not its leader, on gRPC: holds a copy of the policy and computes its
// part of every update. Keeps nothing durable; whoever leads gives it everything.
#ifndef E3_LEARNER_RANKS_RANK_WORKER_H_
#define E3_LEARNER_RANKS_RANK_WORKER_H_

#include <memory>
#include <mutex>
#include <string>

#include "e3/v1/ranks.grpc.pb.h"
#include "learner/ranks/collectives.h"
#include "learner/trainer.h"

namespace e3 {

class RankWorker final : public v1::TrainerRank::Service {
 public:
  // `host`: by which the other ranks reach this process; `device`: where it computes.
  RankWorker(std::string host, c10::Device device) : host_(std::move(host)), device_(device) {}

  grpc::Status Join(grpc::ServerContext*, const v1::JoinRequest* request, v1::JoinReply*) override;
  grpc::Status ReceiveState(grpc::ServerContext*, const v1::ReceiveStateRequest* request,
                            v1::ReceiveStateReply*) override;
  grpc::Status Update(grpc::ServerContext*, grpc::ServerReader<v1::RankUpdateRequest>* reader,
                      v1::RankUpdateReply* reply) override;
  grpc::Status BeginStage(grpc::ServerContext*, const v1::RankStageRequest* request,
                          v1::RankStageReply*) override;
  grpc::Status GatherState(grpc::ServerContext*, const v1::GatherStateRequest* request,
                           v1::GatherStateReply*) override;

  // Ends what is being computed.
  void Drain();

 private:
  absl::Status Receive(const v1::ReceiveStateRequest& request);
  // The parameters may be a mixture after an error of a collective: the rank waits for a new group.
  grpc::Status Done(const absl::Status& status);
  void Leave();
  // FailedPrecondition when the rank is not in the group; and, for what needs it, has no state yet.
  absl::Status CheckGroup(const std::string& group, bool needs_state) const;

  const std::string host_;
  const c10::Device device_;
  std::mutex mutex_;  // one call at a time
  std::string group_;
  std::mutex collectives_mutex_;  // of the pointer, for who makes the call at hand give up
  std::unique_ptr<Collectives> collectives_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace e3

#endif  // E3_LEARNER_RANKS_RANK_WORKER_H_
