#include "learner/checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr const char* kChecked[] = {"model.safetensors", "trainer.safetensors"};
constexpr const char* kOwn = "checksum";  // of trainer.json, without itself

std::string ChecksumOf(const std::string& bytes) {
  return absl::StrFormat("%016x", XXH3_64bits(bytes.data(), bytes.size()));
}

// Of a file, a piece at a time: checkpoints are as large as memory.
absl::StatusOr<std::string> Checksum(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::vector<char> piece(1 << 20);
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())) || file.gcount() > 0)
    XXH3_64bits_update(state.get(), piece.data(), static_cast<size_t>(file.gcount()));
  if (file.bad()) return absl::UnavailableError(absl::StrCat("cannot read ", path));
  return absl::StrFormat("%016x", XXH3_64bits_digest(state.get()));
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& folder, const std::string& job_id, uint64_t step,
                            const std::string& source_model, const ParameterLayout& layout,
                            const TrainerState& trainer) {
  return WriteFolderDurably(folder, [&](const std::string& part) -> absl::Status {
    E3_RETURN_IF_ERROR(
        SaveModel(part, source_model, layout, trainer.parameters.get(), Dtype::kFloat32));
    std::vector<TensorToWrite> tensors;
    for (auto [name, values] : {std::pair("first_moment", trainer.first_moment.get()),
                                std::pair("second_moment", trainer.second_moment.get()),
                                std::pair("reference", trainer.reference.get())}) {
      tensors.push_back({name, {layout.size()}, Dtype::kFloat32, values});
    }
    E3_RETURN_IF_ERROR(WriteSafetensors(part + "/trainer.safetensors", tensors, {}));
    Json state = {{"job", job_id}, {"step", step}, {"updates", trainer.updates}};
    for (const char* file : kChecked) {
      E3_ASSIGN_OR_RETURN(state["checksums"][file], Checksum(absl::StrCat(part, "/", file)));
    }
    state[kOwn] = ChecksumOf(state.dump());
    return WriteFileDurably(part + "/trainer.json", state.dump(2) + "\n");
  });
}

absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& folder, const std::string& job_id,
                                          const ModelConfig& config,
                                          const ParameterLayout& layout) {
  auto bad = [&](absl::string_view why) {
    return absl::DataLossError(absl::StrCat("checkpoint ", folder, " ", why));
  };
  absl::StatusOr<std::string> text = ReadFile(folder + "/trainer.json");
  if (!text.ok()) return bad("has no trainer.json");
  Json state = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (state.is_object()) {
    const Json own = state.value(kOwn, Json());
    state.erase(kOwn);
    if (own != ChecksumOf(state.dump())) return bad("has a broken trainer.json");
  }
  auto is = [&](const char* key, auto test) { return state.contains(key) && test(state[key]); };
  auto number = [](const Json& v) { return v.is_number_unsigned(); };
  auto text_value = [](const Json& v) { return v.is_string(); };
  if (!state.is_object() || !is("step", number) || !is("updates", number) ||
      !is("job", text_value) || !is("checksums", [&](const Json& v) {
        return v.is_object() && std::all_of(v.begin(), v.end(), text_value);
      })) {
    return bad("has a broken trainer.json");
  }
  if (state.value("job", "") != job_id) {
    return absl::FailedPreconditionError(absl::StrCat("checkpoint ", folder, " is of job ",
                                                      state.value("job", "?"), ", not ", job_id));
  }
  for (const char* file : kChecked) {
    absl::StatusOr<std::string> checksum = Checksum(absl::StrCat(folder, "/", file));
    if (!checksum.ok() || *checksum != state["checksums"].value(file, ""))
      return bad(absl::StrCat("has a torn or corrupt ", file));
  }
  const size_t size = static_cast<size_t>(layout.size());
  auto floats = [&] { return std::make_shared<std::vector<float>>(size); };
  auto parameters = floats();
  if (absl::Status loaded = LoadParameters(folder, config, layout, parameters->data());
      !loaded.ok())
    return bad(absl::StrCat("is of another model: ", loaded.message()));
  E3_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> reader,
                      SafetensorsReader::OpenFile(folder + "/trainer.safetensors"));
  Checkpoint checkpoint{state["step"].get<uint64_t>(), {}};
  TrainerState& restored = checkpoint.state;
  restored.updates = state.value("updates", int64_t{0});
  restored.parameters = {parameters, parameters->data()};
  for (auto [name, to] : {std::pair("first_moment", &restored.first_moment),
                          std::pair("second_moment", &restored.second_moment),
                          std::pair("reference", &restored.reference)}) {
    E3_ASSIGN_OR_RETURN(TensorView view, reader->Get(name));
    if (static_cast<size_t>(view.num_elements()) != size) return bad("is of another model");
    auto values = floats();
    E3_RETURN_IF_ERROR(CopyAsFloat(view, values->data()));
    *to = {values, values->data()};
  }
  return checkpoint;
}

std::vector<std::string> ListCheckpoints(const std::string& parent) {
  std::vector<std::string> folders;
  std::error_code error;
  uint64_t step;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    std::string name = entry.path().filename().string();
    if (entry.is_directory() && absl::StartsWith(name, "step-") &&
        absl::SimpleAtoi(name.substr(5), &step))
      folders.push_back(entry.path().string());
  }
  std::sort(folders.begin(), folders.end(), [](const std::string& a, const std::string& b) {
    return CheckpointStep(a) > CheckpointStep(b);
  });
  return folders;
}

uint64_t CheckpointStep(const std::string& folder) {
  uint64_t step = 0;
  (void)absl::SimpleAtoi(folder.substr(folder.rfind('-') + 1), &step);
  return step;
}

std::string CheckpointFolder(const std::string& parent, uint64_t step) {
  return absl::StrFormat("%s/step-%06d", parent, step);
}

std::string PruneCheckpoints(const std::string& parent, uint64_t written, int64_t keep,
                             uint64_t best) {
  std::string oldest;
  std::error_code error;
  for (const std::string& folder : ListCheckpoints(parent)) {
    const uint64_t step = CheckpointStep(folder);
    if (step > written) continue;
    if (keep > 0) {
      --keep;
      oldest = folder;
    } else if (step != best) {
      fs::remove_all(folder, error);
    }
  }
  return oldest;
}

}  // namespace e3
