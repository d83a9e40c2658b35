#include "learner/service/event_file.h"

#include <nmmintrin.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

// CRC-32C as TFRecord masks it.
uint32_t MaskedCrc(const char* data, size_t n) {
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < n; ++i) crc = _mm_crc32_u8(crc, static_cast<unsigned char>(data[i]));
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
void AppendRaw(T value, std::string* out) {
  char bytes[sizeof value];
  memcpy(bytes, &value, sizeof value);  // little endian, as the format is
  out->append(bytes, sizeof bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(const std::string& folder,
                                                             uint64_t first_step) {
  E3_RETURN_IF_ERROR(MakeFolders(folder));
  // Read in the order of their names.
  const std::string path = absl::StrFormat("%s/events.out.tfevents.%016d.%d", folder,
                                           absl::ToUnixMicros(absl::Now()), getpid());
  FILE* opened = fopen(path.c_str(), "wb");
  if (opened == nullptr)
    return absl::UnavailableError(absl::StrCat("cannot create ", path, ": ", strerror(errno)));
  std::unique_ptr<EventFile> file(new EventFile(path, opened));
  tensorboard::Event version, start;
  version.set_file_version("brain.Event:2");
  E3_RETURN_IF_ERROR(file->Write(std::move(version)));
  start.set_step(static_cast<int64_t>(first_step));
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  E3_RETURN_IF_ERROR(file->Write(std::move(start)));
  return file;
}

absl::Status EventFile::Add(uint64_t step, const std::map<std::string, double>& scalars) {
  tensorboard::Event event;
  event.set_step(static_cast<int64_t>(step));
  for (const auto& [name, value] : scalars) {
    auto* scalar = event.mutable_summary()->add_value();
    scalar->set_tag(name);
    scalar->set_simple_value(static_cast<float>(value));
  }
  return Write(std::move(event));
}

absl::Status EventFile::Write(tensorboard::Event event) {
  event.set_wall_time(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  const std::string data = event.SerializeAsString();
  std::string record;
  AppendRaw(static_cast<uint64_t>(data.size()), &record);
  AppendRaw(MaskedCrc(record.data(), record.size()), &record);
  record += data;
  AppendRaw(MaskedCrc(data.data(), data.size()), &record);
  if (fwrite(record.data(), 1, record.size(), file_.get()) != record.size() ||
      fflush(file_.get()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot write ", path_, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace e3
