#include "services/runtime/store.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "e3/v1/jobs.pb.h"

namespace e3 {
namespace {

std::string TempFolder() {
  char name[] = "/tmp/e3-store-XXXXXX";
  return mkdtemp(name);
}

v1::GetJobRequest Value(const std::string& text) {
  v1::GetJobRequest value;
  value.set_id(text);
  return value;
}

TEST_CASE("records are kept, listed in order and removed") {
  const std::string folder = TempFolder();
  {
    auto store = Store::Open(folder);
    REQUIRE(store.ok());
    CHECK((*store)->Put("a/2", Value("two")).ok());
    CHECK((*store)->Put("a/1", Value("one")).ok());
    CHECK((*store)->Put("b/1", Value("other")).ok());
    CHECK((*store)->Put("a/1", Value("uno")).ok());
    CHECK(absl::IsFailedPrecondition(Store::Open(folder).status()));
  }
  auto store = Store::Open(folder);
  REQUIRE(store.ok());
  v1::GetJobRequest value;
  CHECK((*store)->Get("a/1", &value).ok());
  CHECK(value.id() == "uno");
  CHECK(*(*store)->Keys("a/") == std::vector<std::string>{"a/1", "a/2"});
  CHECK((*store)->Delete("a/1").ok());
  CHECK(absl::IsNotFound((*store)->Get("a/1", &value)));
}

TEST_CASE("what was acknowledged survives kill -9") {
  const std::string folder = TempFolder();
  int acknowledged[2];
  REQUIRE(pipe(acknowledged) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    auto store = Store::Open(folder);
    for (uint32_t i = 0; store.ok(); ++i) {
      if (!(*store)->Put("k" + std::to_string(i), Value(std::to_string(i))).ok()) break;
      (void)!write(acknowledged[1], &i, sizeof i);
    }
    _exit(1);
  }
  uint32_t last = 0;
  while (last < 200 && read(acknowledged[0], &last, sizeof last) == sizeof last) {
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  auto store = Store::Open(folder);
  REQUIRE(store.ok());
  for (uint32_t i = 0; i <= last; ++i) {
    v1::GetJobRequest value;
    REQUIRE((*store)->Get("k" + std::to_string(i), &value).ok());
    CHECK(value.id() == std::to_string(i));
  }
}

}  // namespace
}  // namespace e3
