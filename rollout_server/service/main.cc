// e3-rollout-server: generates rollouts within token budgets.
#include "CLI/CLI.hpp"
#include "model/numerics_check.h"
#include "model/transformer.h"
#include "rollout_server/service/engine_thread.h"
#include "rollout_server/service/rollout_service.h"
#include "services/runtime/log.h"
#include "services/runtime/server_process.h"
#include "services/runtime/startup_check.h"

int main(int argc, char** argv) {
  CLI::App app{"e3 rollout server: continuous batching over a paged KV cache"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7410, &flags);
  e3::EngineThreadOptions options;
  std::string model_path;
  app.add_option("--model", model_path,
                 "Hugging Face folder to serve from the start (a learner's LoadModel replaces it)");
  app.add_option("--threads", options.threads, "Threads of the model; 0: one a core")
      ->capture_default_str();
  app.add_option("--max-sequences", options.max_sequences, "Samples running at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-batch-tokens", options.max_batch_tokens, "Tokens of one engine step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--kv-cache-mib", options.kv_cache_mib, "Memory of the KV cache")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  e3::ServerProcess process("rollout-server", flags);
  e3::ReportStartupCheck("numerics", e3::CheckNumerics());
  e3::EngineThread engine(options);
  if (!model_path.empty()) {
    auto model = e3::Transformer::Load(model_path);
    if (!model.ok()) {
      e3::Log("error", "cannot load the model", {{"error", std::string(model.status().message())}});
      return 1;
    }
    engine.SetModel(*std::move(model), model_path, {});
  }
  e3::RolloutService rollouts(&engine);
  e3::WeightsService weights(&engine);
  return process.Run({&rollouts, &weights}, [&] { rollouts.Drain(); });
}
