// e3-learner: trains the policy.
#include <ATen/Parallel.h>

#include <thread>

#include "CLI/CLI.hpp"
#include "learner/ranks/rank_worker.h"
#include "learner/service/learner_service.h"
#include "model/device.h"
#include "model/numerics_check.h"
#include "services/runtime/log.h"
#include "services/runtime/server_process.h"
#include "services/runtime/startup_check.h"

int main(int argc, char** argv) {
  CLI::App app{"e3 learner: GRPO on rollouts, step by durable step"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7402, &flags);
  std::string state = "state/learner";
  std::vector<std::string> rollout_servers = {"127.0.0.1:7410"};
  std::string reward_service = "127.0.0.1:7403";
  int threads = 0;
  app.add_option("--state", state,
                 "Folder of the database and of jobs without an output of their own")
      ->capture_default_str();
  app.add_option("--rollout-servers", rollout_servers, "Addresses of the rollout servers")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--reward-service", reward_service, "Address of the reward service")
      ->capture_default_str();
  app.add_option("--threads", threads, "Threads of the model; 0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  std::string device_name = "cpu";
  app.add_option("--device", device_name, "Where updates are computed: cpu, cuda or cuda:N")
      ->capture_default_str();
  bool worker = false;
  e3::RankOptions ranks;
  app.add_flag(
      "--worker", worker,
      "Be a further rank of a learner: compute a part of every update for the learner that "
      "names this process in its --ranks");
  app.add_option("--ranks", ranks.workers,
                 "Addresses of the workers among which updates are divided (data parallel); none: "
                 "learn alone")
      ->delimiter(',');
  app.add_option("--rank-host", ranks.host,
                 "Name or address by which the other ranks reach this process")
      ->capture_default_str();
  app.add_flag("--shard-optimizer", ranks.shard_optimizer,
               "Divide the optimizer's state among the ranks: less memory, the same result");
  app.add_option("--rank-timeout", ranks.timeout_seconds,
                 "Seconds after which an exchange between ranks that has not ended fails")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  e3::KeepFreedMemory();
  e3::ServerProcess process(worker ? "learner-rank" : "learner", flags);
  auto device = e3::ParseDevice(device_name);
  if (!device.ok()) {
    e3::Log("error", "no such device (--device)",
            {{"error", std::string(device.status().message())}});
    return 1;
  }
  at::set_num_threads(
      threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  e3::ReportStartupCheck("numerics", e3::CheckNumerics());
  if (worker) {
    e3::RankWorker service(ranks.host, *device);
    return process.Run({&service}, [&] { service.Drain(); });
  }
  auto store = e3::Store::Open(state + "/db");
  if (!store.ok()) {
    e3::Log("error", "cannot open the database",
            {{"error", std::string(store.status().message())}});
    return 1;
  }
  e3::RolloutPool pool(rollout_servers);
  e3::RewardClient rewards(reward_service);
  e3::Log("info", "peak measured",
          {{"device", device->str()}, {"gflops", e3::PeakFlops(*device, at::kFloat) / 1e9}});
  e3::LearnerService service({store->get(), &pool, &rewards, state + "/jobs", ranks, *device});
  return process.Run({&service}, [&] { service.Drain(); });
}
