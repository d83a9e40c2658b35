// Job files: YAML to a checked JobSpec.
#ifndef E3_SERVICES_JOBS_JOB_FILE_H_
#define E3_SERVICES_JOBS_JOB_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"

namespace e3 {

// What a job's training is where its file says nothing: every field set.
v1::Training DefaultTraining();

// Parses `yaml`, fills in every default, makes paths absolute (relative ones start at the folder of
// `path`), and checks everything that can be known before the job runs: keys, types, ranges, names,
// files, data. InvalidArgument "FILE:LINE:COLUMN: KEY: what was expected".
absl::StatusOr<v1::JobSpec> ParseJob(const std::string& yaml, const std::string& path);

}  // namespace e3

#endif  // E3_SERVICES_JOBS_JOB_FILE_H_
