// Files: reading whole ones, and writing so that a crash leaves the old content or the new, never a
// mixture.
#ifndef E3_SERVICES_RUNTIME_FILES_H_
#define E3_SERVICES_RUNTIME_FILES_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace e3 {

// A status for an errno value: what asking again can mend is Unavailable; a full disk
// ResourceExhausted.
absl::Status FromErrno(int error, const std::string& message);

// The content of `path`. NotFound, or Unavailable with the system's reason.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Replaces `path` by `content`: written beside it, fsynced, renamed, and the folder fsynced.
absl::Status WriteFileDurably(const std::string& path, absl::string_view content);

// Makes `folder` with `fill(part)`, where `part` is an empty folder beside it; then fsyncs every
// file in it and renames it to `folder`, replacing what was there. On error nothing of `folder` has
// changed.
absl::Status WriteFolderDurably(const std::string& folder,
                                const std::function<absl::Status(const std::string& part)>& fill);

// Makes `link` a symbolic link to `target`, replacing one that is there.
absl::Status LinkDurably(const std::string& link, const std::string& target);

// mkdir -p.
absl::Status MakeFolders(const std::string& path);

// Takes the lock that a file stands for, which is made where there is none: a descriptor, which
// holds it until it is closed or the process ends. AlreadyExists when another has it.
absl::StatusOr<int> LockFile(const std::string& path);

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_FILES_H_
