#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

size_t ElementSize(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return 4;
    case Dtype::kInt64:
      return 8;
    default:
      return 2;
  }
}

const char* DtypeName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return "F32";
    case Dtype::kBFloat16:
      return "BF16";
    case Dtype::kFloat16:
      return "F16";
    case Dtype::kInt64:
      return "I64";
  }
  return "";
}

bool ParseDtype(const std::string& name, Dtype* dtype) {
  for (Dtype d : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16, Dtype::kInt64}) {
    if (name == DtypeName(d)) {
      *dtype = d;
      return true;
    }
  }
  return false;
}

float FloatFromBits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

float HalfToFloat(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  uint32_t exponent = (h >> 10) & 0x1f;
  uint32_t mantissa = h & 0x3ff;
  if (exponent == 0) {
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return FloatFromBits(sign | 0x7f800000u | (mantissa << 13));
  return FloatFromBits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t BFloat16FromFloat(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>((bits >> 16) | 0x40);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

int64_t TensorView::num_elements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFile(
    const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  reader->source_ = path;
  E3_RETURN_IF_ERROR(reader->Map(path));
  return reader;
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFolder(
    const std::string& folder) {
  std::string index_path = absl::StrCat(folder, "/model.safetensors.index.json");
  absl::StatusOr<std::string> index = ReadFile(index_path);
  if (!index.ok()) return OpenFile(absl::StrCat(folder, "/model.safetensors"));

  Json json = Json::parse(*index, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": no weight_map"));
  }
  std::set<std::string> shards;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": bad file name for ", name));
    }
    shards.insert(file.get<std::string>());
  }
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  reader->source_ = folder;
  for (const std::string& shard : shards)
    E3_RETURN_IF_ERROR(reader->Map(absl::StrCat(folder, "/", shard)));
  return reader;
}

SafetensorsReader::~SafetensorsReader() {
  for (const Mapping& m : mappings_) munmap(m.address, m.size);
}

absl::Status SafetensorsReader::Map(const std::string& path) {
  auto bad = [&](absl::string_view why) {
    return absl::DataLossError(absl::StrCat(path, " is not a whole safetensors file: ", why));
  };
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", strerror(errno)));
  struct stat info;
  if (fstat(fd, &info) != 0 || info.st_size < 8) {
    close(fd);
    return bad("too short");
  }
  size_t size = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (address == MAP_FAILED)
    return absl::UnavailableError(absl::StrCat("cannot map ", path, ": ", strerror(errno)));
  mappings_.push_back({address, size});

  const char* base = static_cast<const char*>(address);
  uint64_t header_size;
  memcpy(&header_size, base, 8);
  if (header_size > size - 8) return bad("header runs past the end");
  Json header = Json::parse(base + 8, base + 8 + header_size, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return bad("header is not JSON");
  const char* data = base + 8 + header_size;
  size_t data_size = size - 8 - header_size;
  try {
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) metadata_[key] = value.get<std::string>();
        continue;
      }
      TensorView view;
      if (!ParseDtype(entry.at("dtype").get<std::string>(), &view.dtype)) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", name, " has dtype ",
                                                       entry["dtype"].dump(),
                                                       ", which is not supported"));
      }
      view.shape = entry.at("shape").get<std::vector<int64_t>>();
      auto offsets = entry.at("data_offsets").get<std::vector<uint64_t>>();
      if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_size)
        return bad("tensor runs past the end");
      for (int64_t d : view.shape) {
        if (d < 0 || d > (int64_t{1} << 40)) return bad("bad shape");
      }
      if (static_cast<uint64_t>(view.num_elements()) * ElementSize(view.dtype) !=
          offsets[1] - offsets[0]) {
        return bad(absl::StrCat("size of tensor ", name, " does not match its shape"));
      }
      view.data = data + offsets[0];
      tensors_[name] = std::move(view);
    }
  } catch (const Json::exception& e) {
    return bad(e.what());
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> SafetensorsReader::Get(const std::string& name) const {
  auto it = tensors_.find(name);
  if (it == tensors_.end())
    return absl::NotFoundError(absl::StrCat("tensor ", name, " is not in ", source_));
  return it->second;
}

absl::Status CopyAsFloat(const TensorView& view, float* out) {
  size_t n = static_cast<size_t>(view.num_elements());
  switch (view.dtype) {
    case Dtype::kFloat32:
      memcpy(out, view.data, n * 4);
      return absl::OkStatus();
    case Dtype::kBFloat16:
    case Dtype::kFloat16:
      for (size_t i = 0; i < n; ++i) {
        uint16_t bits;
        memcpy(&bits, view.data + 2 * i, 2);
        out[i] = view.dtype == Dtype::kBFloat16 ? FloatFromBits(static_cast<uint32_t>(bits) << 16)
                                                : HalfToFloat(bits);
      }
      return absl::OkStatus();
    case Dtype::kInt64:
      break;
  }
  return absl::InvalidArgumentError("an integer tensor cannot be read as floats");
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  auto count = [](const TensorToWrite& t) {
    size_t n = 1;
    for (int64_t d : t.shape) n *= static_cast<size_t>(d);
    return n;
  };
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite& t : tensors) {
    uint64_t end = offset + count(t) * ElementSize(t.dtype);
    header[t.name] = {
        {"dtype", DtypeName(t.dtype)}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  uint64_t header_size = text.size();

  FILE* file = fopen(path.c_str(), "wb");
  if (file == nullptr)
    return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", strerror(errno)));
  bool ok = fwrite(&header_size, 8, 1, file) == 1 &&
            fwrite(text.data(), 1, text.size(), file) == text.size();
  std::vector<uint16_t> half;
  for (const TensorToWrite& t : tensors) {
    size_t n = count(t);
    if (t.dtype == Dtype::kBFloat16) {
      half.resize(n);
      const float* source = static_cast<const float*>(t.data);
      for (size_t i = 0; i < n; ++i) half[i] = BFloat16FromFloat(source[i]);
      ok = ok && fwrite(half.data(), 2, n, file) == n;
    } else {
      ok = ok && fwrite(t.data, ElementSize(t.dtype), n, file) == n;
    }
  }
  int write_errno = errno;
  ok = (fclose(file) == 0) && ok;
  if (!ok) {
    std::string message = absl::StrCat("cannot write ", path, ": ", strerror(write_errno));
    return write_errno == ENOSPC ? absl::ResourceExhaustedError(message)
                                 : absl::UnavailableError(message);
  }
  return absl::OkStatus();
}

}  // namespace e3
