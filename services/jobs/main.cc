// e3-job-service: takes training jobs and keeps them.
#include "CLI/CLI.hpp"
#include "services/jobs/job_service.h"
#include "services/runtime/log.h"
#include "services/runtime/server_process.h"

int main(int argc, char** argv) {
  CLI::App app{"e3 job service: takes training jobs and leases them to the curriculum controller"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7400, &flags);
  std::string state = "state/job-service";
  app.add_option("--state", state, "Folder of the database")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  e3::ServerProcess process("job-service", flags);
  auto store = e3::Store::Open(state);
  if (!store.ok()) {
    e3::Log("error", "cannot open the database",
            {{"error", std::string(store.status().message())}});
    return 1;
  }
  auto service = e3::JobService::Open(store->get());
  if (!service.ok()) {
    e3::Log("error", "cannot read the jobs", {{"error", std::string(service.status().message())}});
    return 1;
  }
  return process.Run({service->get()}, [&] { (*service)->Drain(); });
}
