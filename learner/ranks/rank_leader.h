// Rank 0's side of a group: it deals mini-batches out and hears from every rank.
#ifndef E3_LEARNER_RANKS_RANK_LEADER_H_
#define E3_LEARNER_RANKS_RANK_LEADER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/ranks.grpc.pb.h"
#include "learner/ranks/collectives.h"
#include "learner/ranks/process_group.h"
#include "learner/ranks/rank_state.h"
#include "learner/trainer.h"

namespace e3 {

struct RankOptions {
  std::vector<std::string> workers;  // addresses of the other ranks (TrainerRank)
  std::string host = "127.0.0.1";    // by which they reach this process
  bool shard_optimizer = false;
  double timeout_seconds = 3600;  // for one exchange, the slowest rank's computing included
};

// Not thread-safe. A rank that dies or stalls is noticed within seconds (its connection breaks, or
// its process does not answer pings), one whose computation hangs within the time-out: Unavailable,
// with the rank's name. What no new group would mend (a rank without the model's folder, parameters
// that differ) has a code that is not transient. After any error the group is of no use.
class RankLeader {
 public:
  // Lets every worker join a new group, called `group`, whose rank 0 computes on `device`. Waits
  // for workers that are not there yet, until `stop` says so or five minutes have passed.
  static absl::StatusOr<std::unique_ptr<RankLeader>> Form(const RankOptions& options,
                                                          c10::Device device,
                                                          const std::string& group,
                                                          const std::function<bool()>& stop);

  // Rank 0's end, for its trainer.
  Collectives* collectives() { return collectives_.get(); }
  // Gives every rank the state that rank 0 begins with, `parameters` floats a part, of the model in
  // a folder: once, before the first update.
  absl::Status SendState(const TrainerState& state, int64_t parameters, const std::string& model,
                         bool offload_optimizer = false);

  // One update by all ranks; `trainer` is rank 0's. Statistics are sums over all.
  absl::StatusOr<UpdateStatistics> Update(Trainer& trainer, const MiniBatch& mini_batch,
                                          const v1::Training& training, double temperature);
  // Of the other ranks: checks that the stage's updates, on sequences of up to `longest` tokens,
  // fit into their memory (OutOfRange), and, at the first step, begins afresh what the stage says.
  absl::Status BeginStage(const v1::Training& training, bool first, int64_t longest);
  // Ranks on the host of this one, itself included.
  int Neighbours() const { return NeighboursOf(HostIdentity()); }
  // The whole state of the trainers.
  absl::StatusOr<TrainerState> State(Trainer& trainer, bool copy);

 private:
  struct Worker {
    std::string address;
    std::unique_ptr<v1::TrainerRank::Stub> stub;
    std::string host;  // HostIdentity, after Join
  };
  RankLeader() = default;
  // Calls every worker at once while `own` runs here, and waits for all. The first error of a
  // worker, which makes `own` give up, else that of `own`.
  absl::Status OnAll(const std::function<grpc::Status(size_t worker, grpc::ClientContext*)>& call,
                     const std::function<absl::Status()>& own);

  int NeighboursOf(const std::string& host_identity) const;
  // The error of a call to a worker, with the rank's name.
  absl::Status Named(size_t worker, const grpc::Status& status) const;

  RankOptions options_;
  std::string group_;
  std::vector<Worker> workers_;  // worker i is rank i + 1
  std::unique_ptr<Rendezvous> rendezvous_;
  std::mutex mutex_;  // of the pointer, while a group is formed
  std::unique_ptr<Collectives> collectives_;
};

}  // namespace e3

#endif  // E3_LEARNER_RANKS_RANK_LEADER_H_
