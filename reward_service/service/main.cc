// e3-reward-service: verifies responses.
#include "CLI/CLI.hpp"
#include "reward_service/service/reward_service.h"
#include "services/runtime/server_process.h"

int main(int argc, char** argv) {
  CLI::App app{
      "e3 reward service: exact verification of math, Countdown and multiplication answers"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7403, &flags);
  CLI11_PARSE(app, argc, argv);
  e3::ServerProcess process("reward-service", flags);
  e3::RewardService service;
  return process.Run({&service}, [&] { service.Drain(); });
}
