#include "services/runtime/files.h"

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <filesystem>

namespace e3 {
namespace {

std::string TempFolder() {
  char name[] = "/tmp/e3-files-XXXXXX";
  return mkdtemp(name);
}

TEST_CASE("a file is replaced whole") {
  const std::string path = TempFolder() + "/f";
  CHECK(absl::IsNotFound(ReadFile(path).status()));
  CHECK(WriteFileDurably(path, "one").ok());
  CHECK(WriteFileDurably(path, std::string("two\0", 4)).ok());
  CHECK(*ReadFile(path) == std::string("two\0", 4));
  CHECK_FALSE(WriteFileDurably("/nowhere/at/all", "x").ok());
  CHECK_FALSE(ReadFile("/tmp").ok());
}

TEST_CASE("a folder that cannot be filled leaves the old one") {
  const std::string folder = TempFolder() + "/d";
  auto fill = [](const std::string& text) {
    return [text](const std::string& part) { return WriteFileDurably(part + "/f", text); };
  };
  CHECK(WriteFolderDurably(folder, fill("one")).ok());
  CHECK(WriteFolderDurably(folder, fill("two")).ok());
  CHECK(*ReadFile(folder + "/f") == "two");
  CHECK(WriteFolderDurably(folder + "/", fill("two")).ok());
  CHECK_FALSE(std::filesystem::exists(folder + "/.part"));
  CHECK_FALSE(WriteFolderDurably(folder, [](const std::string&) {
                return absl::InternalError("no");
              }).ok());
  CHECK(*ReadFile(folder + "/f") == "two");
  CHECK_FALSE(std::filesystem::exists(folder + ".part"));
}

}  // namespace
}  // namespace e3
