// `e3 up`: all services on this machine, kept alive.
#ifndef E3_SERVICES_CLI_SUPERVISOR_H_
#define E3_SERVICES_CLI_SUPERVISOR_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace e3 {

struct UpOptions {
  std::string state = "state";  // databases, logs, jobs
  int port_base = 7400;  // job service; +1 curriculum, +2 learner, +3 reward, +10 … rollout
                         // servers, +20 … their HTTP doors, +30 … further ranks of the learner;
                         // /metrics 100 above each
  int threads = 0;  // of the learner and of each rollout server, which take turns; 0: one a core
  int rollout_servers = 1;
  int learner_ranks = 1;
  bool shard_optimizer = false;
  int64_t kv_cache_mib = 1024;
  std::string device = "cpu";  // of models; "cuda": several processes of a kind take a GPU each
  bool foreground = false;
};

// Starts the services under a supervisor in the background and returns when all are healthy.
// AlreadyExists when they run from this state folder; Unavailable with the end of its log when one
// does not come up.
absl::Status Up(const UpOptions& options);
// Ends what Up started from this state folder: SIGTERM first, so that all drain. NotFound when
// nothing runs.
absl::Status Down(const std::string& state);
// Whether a supervisor of this state folder runs.
bool IsUp(const std::string& state);
// A table of the services: address, metrics, process, restarts.
std::string DescribeProcesses(const std::string& state);
// Address of the job service of what runs from this state folder; empty when nothing does.
std::string JobServiceOf(const std::string& state);

// Sets how long idle OpenMP threads of the programs started from here spin before they sleep,
// unless OMP_WAIT_POLICY or GOMP_SPINCOUNT say it already. Spinning takes cores from the other
// processes; sleeping at once makes every wake-up cost as much as a small model's layer
// (docs/performance.md).
void LimitSpinning();

}  // namespace e3

#endif  // E3_SERVICES_CLI_SUPERVISOR_H_
