// e3-curriculum-controller: runs the stages of jobs.
#include "CLI/CLI.hpp"
#include "curriculum_controller/service/controller.h"
#include "services/runtime/log.h"
#include "services/runtime/server_process.h"

int main(int argc, char** argv) {
  CLI::App app{
      "e3 curriculum controller: measures J, picks budgets (Eq. 2), runs the stages of a job on "
      "the learner"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7401, &flags);
  e3::ControllerOptions options;
  std::string state = "state/curriculum-controller";
  app.add_option("--state", state, "Folder of the database")->capture_default_str();
  app.add_option("--name", options.name, "Holder of leases; the same after a restart")
      ->capture_default_str();
  app.add_option("--job-service", options.job_service, "Address of the job service")
      ->capture_default_str();
  app.add_option("--learner", options.learner, "Address of the learner")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  e3::ServerProcess process("curriculum-controller", flags);
  auto store = e3::Store::Open(state);
  if (!store.ok()) {
    e3::Log("error", "cannot open the database",
            {{"error", std::string(store.status().message())}});
    return 1;
  }
  e3::Controller controller(options, store->get());
  return process.Run({&controller}, [&] { controller.Stop(); });
}
