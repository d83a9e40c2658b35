#include "services/runtime/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
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
  return FromErrno(errno, message);
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

absl::Status FromErrno(int error, const std::string& message) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ENAMETOOLONG:
    case ELOOP:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

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
  if (in.bad() || content.bad()) return SystemError("cannot read", path);
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

absl::Status WriteFolderDurably(const std::string& given,
                                const std::function<absl::Status(const std::string&)>& fill) {
  std::error_code error;
  std::string folder = given;  // beside it, not in it: without a slash at its end
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
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
  if (status.ok() && error)
    status = FromErrno(error.value(), absl::StrCat("cannot list ", part, ": ", error.message()));
  if (status.ok()) status = Sync(part, O_RDONLY | O_DIRECTORY);
  if (!status.ok()) {
    fs::remove_all(part, error);
    return status;
  }
  // rename() replaces only an empty folder, so an old one changes places with the new one: there is
  // a whole folder at every moment.
  const unsigned flags = fs::exists(folder, error) ? RENAME_EXCHANGE : 0;
  if (renameat2(AT_FDCWD, part.c_str(), AT_FDCWD, folder.c_str(), flags) != 0)
    return SystemError("cannot rename to", folder);
  if (absl::Status synced = SyncParent(folder); !synced.ok()) return synced;
  fs::remove_all(part, error);
  return absl::OkStatus();
}

absl::Status LinkDurably(const std::string& link, const std::string& target) {
  const std::string part = link + ".part";
  unlink(part.c_str());
  if (symlink(target.c_str(), part.c_str()) != 0) return SystemError("cannot make link", part);
  if (rename(part.c_str(), link.c_str()) != 0) return SystemError("cannot rename to", link);
  return SyncParent(link);
}

absl::Status MakeFolders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    return FromErrno(error.value(),
                     absl::StrCat("cannot make folder ", path, ": ", error.message()));
  return absl::OkStatus();
}

absl::StatusOr<int> LockFile(const std::string& path) {
  const int lock = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) return SystemError("cannot write", path);
  if (flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  close(lock);
  return absl::AlreadyExistsError(absl::StrCat(path, " is locked by another process"));
}

}  // namespace e3
