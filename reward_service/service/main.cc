// e3-reward-service: verifies responses.
#include "CLI/CLI.hpp"
#include "reward_service/service/reward_service.h"
#include "services/runtime/server_process.h"

int main(int argc, char** argv) {
  CLI::App app{
      "e3 reward service: exact verification of math, Countdown and multiplication answers"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7403, &flags);
  e3::RewardServiceOptions options;
  int64_t milliseconds = options.limits.time.count();
  app.add_option("--threads", options.threads, "Threads that judge; 0: one a core")
      ->check(CLI::Range(0, 256))
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--in-flight", options.in_flight,
                 "Requests of a stream that wait for their verdict")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--cache-entries", options.cache_entries, "Verdicts kept; 0: none")
      ->check(CLI::Range(0, 10000000))
      ->capture_default_str();
  app.add_option("--max-characters", options.limits.characters, "Of an answer")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--max-depth", options.limits.depth, "Of nested brackets and signs")
      ->check(CLI::Range(1, 300))
      ->capture_default_str();
  app.add_option("--max-digits", options.limits.digits, "Of one number")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--max-bits", options.limits.bits, "Of an exact value")
      ->check(CLI::Range(64, 10000000))
      ->capture_default_str();
  app.add_option("--max-milliseconds", milliseconds, "For one verdict")
      ->check(CLI::Range(1, 600000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  options.limits.time = std::chrono::milliseconds(milliseconds);
  e3::ServerProcess process("reward-service", flags);
  e3::RewardService service(options);
  return process.Run({&service}, [&] { service.Drain(); });
}
