// Data sets: files of problems, and generated ones.
#ifndef E3_TASKS_DATASET_H_
#define E3_TASKS_DATASET_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "tasks/problem.h"

namespace e3 {

// The problems of data set `name` of `spec`, in a fixed order. Errors name the file and line.
absl::StatusOr<std::vector<Problem>> LoadDataset(const v1::JobSpec& spec, const std::string& name);

// `path` with ${NAME} replaced by environment variables; E3_DATA_DIR defaults to ../shared/data.
// Relative results start at `base`. InvalidArgument for a variable that is not set.
absl::StatusOr<std::string> ResolvePath(const std::string& path, const std::string& base);

}  // namespace e3

#endif  // E3_TASKS_DATASET_H_
