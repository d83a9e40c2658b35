// Checks that a process makes of its machine as it starts.
#ifndef E3_SERVICES_RUNTIME_STARTUP_CHECK_H_
#define E3_SERVICES_RUNTIME_STARTUP_CHECK_H_

#include <string>

#include "absl/status/status.h"

namespace e3 {

// Says what the check `name` found: the metric e3_startup_check_passed{check} is 1 or 0, and a
// failure is logged as an error. The process goes on: an operator decides.
void ReportStartupCheck(const std::string& name, const absl::Status& result);

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_STARTUP_CHECK_H_
