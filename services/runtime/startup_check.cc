#include "services/runtime/startup_check.h"

#include "services/runtime/log.h"
#include "services/runtime/metrics.h"

namespace e3 {

void ReportStartupCheck(const std::string& name, const absl::Status& result) {
  GaugeMetric("e3_startup_check_passed", "Whether a check of the machine at the start passed",
              {{"check", name}})
      .Set(result.ok() ? 1 : 0);
  if (!result.ok())
    Log("error", "a check of this machine failed",
        {{"check", name}, {"error", std::string(result.message())}});
}

}  // namespace e3
