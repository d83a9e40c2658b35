// A job as people follow it.
#ifndef E3_SERVICES_CLI_WATCH_H_
#define E3_SERVICES_CLI_WATCH_H_

#include <string>

#include "absl/status/statusor.h"
#include "e3/v1/jobs.grpc.pb.h"

namespace e3 {

// Follows a job until it ends: a line a step, and what it does now on a line that rewrites itself
// when standard output is a terminal. Goes on when the job service is away for a while. Returns the
// ended job.
absl::StatusOr<v1::Job> WatchJob(v1::Jobs::Stub* jobs, const std::string& id);

// A few lines about an ended job: outcome, J before and after each stage, where the model is.
std::string DescribeOutcome(const v1::Job& job);

const char* StateName(v1::JobState state);

}  // namespace e3

#endif  // E3_SERVICES_CLI_WATCH_H_
