// Structured logs: one JSON object a line on standard error.
//
//   Log("info", "stage started", {{"job", job_id}, {"budget", 128}});
//   {"ts":"2026-01-31T12:00:00.123Z","level":"info","process":"learner","msg":"stage
//   started","job":"…","budget":128}
#ifndef E3_SERVICES_RUNTIME_LOG_H_
#define E3_SERVICES_RUNTIME_LOG_H_

#include <string>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace e3 {

// Names the process in every line that follows. Call once at start.
void SetLogProcess(std::string name);

// Levels: "debug", "info", "warning", "error". `fields` is a JSON object. Thread-safe; lines are
// never interleaved.
void Log(absl::string_view level, absl::string_view message,
         const nlohmann::ordered_json& fields = {});

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_LOG_H_
