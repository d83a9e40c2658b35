// Collectives over c10d: its Gloo back end for tensors on the CPU, NCCL for those on GPUs.
#ifndef E3_LEARNER_RANKS_PROCESS_GROUP_H_
#define E3_LEARNER_RANKS_PROCESS_GROUP_H_

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "learner/ranks/collectives.h"

namespace e3 {

// Where the ranks of a group find each other. Kept by the leader for as long as the group lives.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual int port() const = 0;
  // On a free port of this host, and of no other interface.
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Create(const std::string& host);
};

struct GroupOptions {
  std::string store_host;  // of the leader's rendezvous
  int store_port = 0;
  std::string host;  // by which the other ranks reach this one
  int rank = 0, size = 1;
  c10::Device device = c10::kCPU;  // of this rank's gradients; all ranks have a GPU or none has
  double timeout_seconds = 3600;   // for an operation
};

// Enters the group; waits for all ranks. Unavailable when one does not come within half a minute.
absl::StatusOr<std::unique_ptr<Collectives>> JoinGroup(const GroupOptions& options);

}  // namespace e3

#endif  // E3_LEARNER_RANKS_PROCESS_GROUP_H_
