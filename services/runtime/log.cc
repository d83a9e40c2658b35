#include "services/runtime/log.h"

#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace e3 {
namespace {
std::string& ProcessName() {
  static auto* name = new std::string("e3");
  return *name;
}
}  // namespace

void SetLogProcess(std::string name) { ProcessName() = std::move(name); }

void Log(absl::string_view level, absl::string_view message, const nlohmann::ordered_json& fields) {
  nlohmann::ordered_json line = {
      {"ts", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone())},
      {"level", std::string(level)},
      {"process", ProcessName()},
      {"msg", std::string(message)}};
  if (fields.is_object()) line.update(fields);
  // One write() of a whole line, so that lines of several threads and processes stay whole.
  std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  (void)!write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace e3
