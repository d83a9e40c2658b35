#include "model/safetensors.h"

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "services/runtime/files.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

std::string TempFolder() {
  char name[] = "/tmp/e3-tensors-XXXXXX";
  return mkdtemp(name);
}

TEST_CASE("tensors come back as they were written") {
  const std::string path = TempFolder() + "/m.safetensors";
  std::vector<float> a = {1.5f, -2.25f, 3.0e-8f, INFINITY, 1.00390625f, NAN};
  std::vector<int64_t> b = {1, -1};
  REQUIRE(WriteSafetensors(path,
                           {{"a", {2, 3}, Dtype::kFloat32, a.data()},
                            {"h", {6}, Dtype::kBFloat16, a.data()},
                            {"b", {2}, Dtype::kInt64, b.data()}},
                           {{"k", "v"}})
              .ok());
  auto reader = SafetensorsReader::OpenFile(path);
  REQUIRE(reader.ok());
  CHECK((*reader)->metadata().at("k") == "v");
  std::vector<float> out(6);
  CHECK((*reader)->Get("a")->shape == std::vector<int64_t>{2, 3});
  CHECK(CopyAsFloat(*(*reader)->Get("a"), out.data()).ok());
  CHECK(memcmp(out.data(), a.data(), 24) == 0);
  CHECK(CopyAsFloat(*(*reader)->Get("h"), out.data()).ok());
  CHECK(out[0] == 1.5f);
  CHECK(out[4] == 1.0f);  // 1 + 2^-8 is halfway; to even
  CHECK(std::isnan(out[5]));
  CHECK_FALSE(CopyAsFloat(*(*reader)->Get("b"), out.data()).ok());
  CHECK(absl::IsNotFound((*reader)->Get("c").status()));
}

TEST_CASE("torn and corrupt files are refused, never read") {
  const std::string folder = TempFolder(), path = folder + "/m.safetensors";
  std::vector<float> a(64, 1.0f);
  REQUIRE(WriteSafetensors(path, {{"a", {64}, Dtype::kFloat32, a.data()}}, {}).ok());
  const std::string whole = *ReadFile(path);
  const std::string cut = folder + "/cut";
  for (size_t n = 0; n < whole.size(); n += 7) {
    REQUIRE(WriteFileDurably(cut, whole.substr(0, n)).ok());
    CHECK_FALSE(SafetensorsReader::OpenFile(cut).ok());
  }
  PhiloxStream random(3);
  for (int i = 0; i < 300; ++i) {
    std::string bad = whole;
    bad[static_cast<size_t>(random.Below(100))] = static_cast<char>(random.Below(256));
    REQUIRE(WriteFileDurably(cut, bad).ok());
    auto reader = SafetensorsReader::OpenFile(cut);
    if (!reader.ok()) continue;
    for (const auto& [name, view] : (*reader)->tensors()) {
      std::vector<float> out(static_cast<size_t>(view.num_elements()));
      (void)CopyAsFloat(view, out.data());
    }
  }
}

}  // namespace
}  // namespace e3
