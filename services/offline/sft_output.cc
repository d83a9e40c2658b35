#include "services/offline/sft_output.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "learner/checkpoint.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

namespace fs = std::filesystem;

// Whether `path` is `folder` or lies within it.
bool Within(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path p = fs::weakly_canonical(path, error), f = fs::weakly_canonical(folder, error);
  return std::mismatch(f.begin(), f.end(), p.begin(), p.end()).first == f.end();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SftOutput>> SftOutput::Open(const v1::SftSpec& spec,
                                                           const std::string& job_file,
                                                           bool overwrite) {
  const std::string& output = spec.output();
  for (const std::string& input : {spec.model(), spec.data().file(), job_file}) {
    if (!input.empty() && Within(input, output)) {
      return absl::FailedPreconditionError(
          absl::StrCat("output ", output, " would replace ", input, ", which this training reads"));
    }
  }
  std::error_code error;
  if (!overwrite && fs::exists(output, error) &&
      !(fs::is_directory(output, error) && fs::is_empty(output, error))) {
    return absl::FailedPreconditionError(
        absl::StrCat("output ", output,
                     " exists already; remove it, name another, or replace it "
                     "with --overwrite"));
  }
  std::unique_ptr<SftOutput> place(new SftOutput);
  place->checkpoints_ = output + ".checkpoints";
  E3_RETURN_IF_ERROR(MakeFolders(place->checkpoints_));
  place->lock_path_ = place->checkpoints_ + "/lock";
  absl::StatusOr<int> lock = LockFile(place->lock_path_);
  if (absl::IsAlreadyExists(lock.status()))
    return absl::FailedPreconditionError(absl::StrCat("another e3 sft writes ", output));
  E3_RETURN_IF_ERROR(lock.status());
  place->lock_ = *lock;
  return place;
}

SftOutput::~SftOutput() {
  if (lock_ >= 0) close(lock_);
}

void SftOutput::Finish() {
  std::error_code ignored;
  for (const std::string& checkpoint : ListCheckpoints(checkpoints_))
    fs::remove_all(checkpoint, ignored);
  fs::remove(lock_path_, ignored);
  fs::remove(checkpoints_, ignored);  // unless there is something of somebody else's
}

}  // namespace e3
