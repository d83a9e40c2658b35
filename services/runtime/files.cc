#include "services/runtime/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace e3 {
namespace fs = std::filesystem;
namespace {

absl::Status SystemError(absl::string_view what, const std::string& path) {
  std::string message = absl::StrCat(what, " ", path, ": ", strerror(errno));
  return errno == ENOSPC ? absl::ResourceExhaustedError(message) : absl::UnavailableError(message);
}

absl::Status Sync(const std::string& path, int flags) {
  int fd = open(path.c_str(), flags);
  if (fd < 0) return SystemError("cannot open", path);
  bool ok = fsync(fd) == 0;
  absl::Status status = ok ? absl::OkStatus() : SystemError("cannot fsync", path);
  close(fd);
  return status;
}

absl::Status SyncParent(const std::string& path) {
  fs::path parent = fs::path(path).parent_path();
  return Sync(parent.empty() ? "." : parent.string(), O_RDONLY | O_DIRECTORY);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error))
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder, not a file"));
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    if (!fs::exists(path, error)) return absl::NotFoundError(absl::StrCat("no such file: ", path));
    return SystemError("cannot read", path);
  }
  std::ostringstream content;
  content << in.rdbuf();
  if (in.bad()) return SystemError("cannot read", path);
  return std::move(content).str();
}

absl::Status WriteFileDurably(const std::string& path, absl::string_view content) {
  std::string part = absl::StrCat(path, ".part", getpid());
  int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError("cannot write", part);
  absl::Status status;
  while (!content.empty() && status.ok()) {
    ssize_t n = write(fd, content.data(), content.size());
    if (n < 0) {
      if (errno != EINTR) status = SystemError("cannot write", part);
    } else {
      content.remove_prefix(static_cast<size_t>(n));
    }
  }
  if (status.ok() && fsync(fd) != 0) status = SystemError("cannot fsync", part);
  close(fd);
  if (status.ok() && rename(part.c_str(), path.c_str()) != 0)
    status = SystemError("cannot rename to", path);
  if (!status.ok()) {
    unlink(part.c_str());
    return status;
  }
  return SyncParent(path);
}

absl::Status WriteFolderDurably(const std::string& folder,
                                const std::function<absl::Status(const std::string&)>& fill) {
  std::error_code error;
  std::string part = folder + ".part";
  fs::remove_all(part, error);
  if (absl::Status status = MakeFolders(part); !status.ok()) return status;
  absl::Status status = fill(part);
  if (status.ok()) {
    for (const auto& entry : fs::recursive_directory_iterator(part, error)) {
      if (status.ok()) {
        status =
            Sync(entry.path().string(), entry.is_directory() ? O_RDONLY | O_DIRECTORY : O_RDONLY);
      }
    }
  }
  if (status.ok()) status = Sync(part, O_RDONLY | O_DIRECTORY);
  if (!status.ok()) {
    fs::remove_all(part, error);
    return status;
  }
  // rename() replaces only an empty folder, so an old one steps aside first; a crash in between
  // leaves it as ".old".
  std::string old = folder + ".old";
  fs::remove_all(old, error);
  if (fs::exists(folder, error)) fs::rename(folder, old, error);
  fs::rename(part, folder, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot rename ", part, ": ", error.message()));
  fs::remove_all(old, error);
  return SyncParent(folder);
}

absl::Status MakeFolders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot make folder ", path, ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace e3
