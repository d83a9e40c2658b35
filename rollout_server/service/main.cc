// e3-rollout-server: generates rollouts within token budgets.
#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "model/device.h"
#include "model/numerics_check.h"
#include "rollout_server/http/openai_door.h"
#include "rollout_server/service/engine_thread.h"
#include "rollout_server/service/rollout_service.h"
#include "rollout_server/service/weights_service.h"
#include "rollout_server/transformer_model.h"
#include "services/runtime/log.h"
#include "services/runtime/server_process.h"
#include "services/runtime/startup_check.h"

int main(int argc, char** argv) {
  CLI::App app{"e3 rollout server: continuous batching over a paged KV cache"};
  e3::ServerFlags flags;
  e3::AddServerFlags(app, 7410, &flags);
  e3::EngineThreadOptions options;
  int64_t kv_cache_mib = 1024;
  std::string model_path;
  app.add_option("--model", model_path,
                 "Hugging Face folder to serve from the start (a learner's LoadModel replaces it)");
  std::string http, device_name = "cpu";
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--http", http,
                 "host:port of the OpenAI-compatible HTTP door (/v1/completions, "
                 "/v1/chat/completions); without it there is none");
  app.add_option("--threads", options.threads, "Threads of the model; 0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app.add_option("--max-sequences", options.scheduler.max_sequences, "Samples running at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-batch-tokens", options.scheduler.max_batch_tokens,
                 "Tokens of one engine step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--aging-steps", options.scheduler.aging_steps,
                 "Engine steps of waiting after which evaluation counts as training")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--kv-cache-mib", kv_cache_mib, "Memory of the KV cache")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  e3::ServerProcess process("rollout-server", flags);
  e3::ReportStartupCheck("numerics", e3::CheckNumerics());
  if (options.threads <= 0)
    options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (options.scheduler.max_sequences > options.scheduler.max_batch_tokens) {
    e3::Log("error",
            "--max-sequences may not be above --max-batch-tokens: a step decodes a token "
            "of every sequence");
    return 1;
  }
  auto device = e3::ParseDevice(device_name);
  if (!device.ok()) {
    e3::Log("error", "no such device (--device)",
            {{"error", std::string(device.status().message())}});
    return 1;
  }
  at::set_num_threads(options.threads);
  e3::ModelLoader load =
      [&](const std::string& path) -> absl::StatusOr<std::unique_ptr<e3::ServedModel>> {
    try {
      return e3::TransformerModel::Load(path, *device, kv_cache_mib);
    } catch (const std::exception& e) {  // memory that there is not
      return absl::ResourceExhaustedError(absl::StrCat(
          "the model and a KV cache of ", kv_cache_mib, " MiB (--kv-cache-mib) do not fit: ",
          absl::string_view(e.what()).substr(0, absl::string_view(e.what()).find('\n'))));
    }
  };
  e3::EngineThread engine(options);
  if (!model_path.empty()) {
    auto model = load(model_path);
    if (!model.ok()) {
      e3::Log("error", "cannot load the model", {{"error", std::string(model.status().message())}});
      return 1;
    }
    (void)engine.SetModel(*std::move(model), model_path, {});  // nothing is held that it is below
  }
  if (!http.empty() && !model_path.empty() && engine.encoder() == nullptr) {
    e3::Log("error", "the HTTP door needs a tokenizer, and the model's folder has none",
            {{"file", model_path + "/tokenizer.json"}});
    return 1;
  }
  std::unique_ptr<e3::OpenAiDoor> door;
  if (!http.empty()) {
    auto opened = e3::OpenAiDoor::Open(http, &engine);
    if (!opened.ok()) {
      e3::Log("error", "cannot open the HTTP door (--http HOST:PORT)",
              {{"error", std::string(opened.status().message())}});
      return 1;
    }
    door = *std::move(opened);
    e3::Log("info", "HTTP door open", {{"address", http}});
  }
  e3::RolloutService rollouts(&engine);
  e3::WeightsService weights(&engine, load);
  return process.Run({&rollouts, &weights}, [&] {
    rollouts.Drain();
    door.reset();
  });
}
