#include "services/jobs/job_file.h"

#include <catch2/catch.hpp>

#include "services/runtime/files.h"

namespace e3 {
namespace {

const std::string kJobs = std::string(E3_SOURCE_DIR) + "/deploy/jobs/";

std::string ErrorOf(const std::string& yaml) {
  absl::StatusOr<v1::JobSpec> spec = ParseJob(yaml, kJobs + "x.yaml");
  if (spec.ok()) return "accepted";
  std::string message(spec.status().message());
  return message.substr(message.rfind("x.yaml:"));
}

// A valid job, with `from` replaced by `to`.
std::string With(const std::string& from, const std::string& to) {
  std::string yaml =
      "name: a\nmodel: ../models/countdown-starter\ndatasets:\n  d: {countdown: {numbers: 3, "
      "count: 8}}\ntraining:\n  group_size: 4\n"
      "sampling:\n  temperature: 1\ncurriculum:\n  grid: [32, 64]\n  stages:\n    - dataset: d\n   "
      "   steps: 2\n";
  if (!from.empty()) {
    size_t at = yaml.find(from);
    REQUIRE(at != std::string::npos);
    yaml.replace(at, from.size(), to);
  }
  return yaml;
}

TEST_CASE("the default job is valid and fully resolved") {
  absl::StatusOr<v1::JobSpec> spec =
      ParseJob(*ReadFile(kJobs + "countdown.yaml"), kJobs + "countdown.yaml");
  INFO(spec.status().message());
  REQUIRE(spec.ok());
  CHECK(spec->training().clip_high() == 0.5);
  CHECK(spec->training().dual_clip() == 3);
  CHECK(spec->curriculum().stages(1).training().clip_high() == 0.35);
  CHECK(spec->model().front() == '/');
}

TEST_CASE("defaults are filled in") {
  absl::StatusOr<v1::JobSpec> spec = ParseJob(With("", ""), kJobs + "x.yaml");
  INFO(spec.status().message());
  REQUIRE(spec.ok());
  CHECK(spec->training().prompts_per_step() == 32);
  CHECK(spec->training().learning_rate() == 1e-6);
  CHECK(spec->curriculum().kappa() == 1.2);
  CHECK(spec->curriculum().stages(0).budget() == "auto");
  CHECK(spec->curriculum().stages(0).evaluation() == "d");
}

TEST_CASE("what cannot run is refused where it stands") {
  CHECK(ErrorOf(With("name: a", "seed: 1")) ==
        "x.yaml:1:1: name: required: letters, digits, '-', '_' and '.'");
  CHECK(ErrorOf(With("model: ..", "model: /no")).find("x.yaml:2:1: model: ") == 0);
  CHECK(ErrorOf(With("temperature: 1", "top_p: 0.9")) ==
        "x.yaml:8:3: sampling.top_p: is refused for training: the log-probabilities of truncated "
        "sampling are not the policy's");
  CHECK(
      ErrorOf(With("temperature: 1", "temperature: 0")).find("x.yaml:8:3: sampling.temperature") ==
      0);
  CHECK(ErrorOf(With("group_size: 4", "group_size: 1"))
            .find("x.yaml:6:3: training.group_size: must be at least 2") == 0);
  CHECK(ErrorOf(With("group_size: 4", "mini_batches: 5")) ==
        "x.yaml:6:3: training.mini_batches: must divide prompts_per_step (32)");
  CHECK(ErrorOf(With("dataset: d", "dataset: e")) ==
        "x.yaml:12:7: curriculum.stages[0].dataset: no data set 'e'; there are: d");
  CHECK(ErrorOf(With("[32, 64]", "[64, 32]")) ==
        "x.yaml:10:14: curriculum.grid[1]: the grid must be ascending and above 0");
  CHECK(ErrorOf(With("[32, 64]", "[32, 4096]")).find("is beyond the model's context of 2048") !=
        std::string::npos);
  CHECK(ErrorOf(With("[32, 64]", "[32, 1500]"))
            .find("twice the largest budget (3000 tokens) does not fit") != std::string::npos);
  CHECK(ErrorOf(With("[32, 64]", "[32, 9223372036854775807]")).find("is beyond the model's") !=
        std::string::npos);
  CHECK(ErrorOf(With("temperature: 1", "temperature: nan")) ==
        "x.yaml:8:3: sampling.temperature: expected a number, got 'nan'");
  CHECK(ErrorOf(With("name: a", "name: ..")).find("x.yaml:1:1: name: expected") == 0);
  CHECK(ErrorOf(With("group_size: 4", "group_size: 100000")).find("above 1,000,000") !=
        std::string::npos);
  CHECK(ErrorOf(With("steps: 2", "steps: 2\n---\nname: b")).find(": a second document") !=
        std::string::npos);
  // Ranges that no puzzle meets end with an error.
  CHECK(ErrorOf(With("count: 8", "count: 8, max_value: 0, positive_only: true"))
            .find("only 0 distinct Countdown puzzles") != std::string::npos);
  CHECK(ErrorOf(With("count: 8", "count: 8, min_value: 100, max_value: 10"))
            .find("must not be above max_value") != std::string::npos);
  CHECK(ErrorOf(With("steps: 2", "budget: lots")).find("curriculum.stages[0].steps: required") !=
        std::string::npos);
  CHECK(ErrorOf(With("steps: 2", "steps: 2\n      budget: lots")) ==
        "x.yaml:14:7: curriculum.stages[0].budget: expected \"auto\" or a number of tokens within "
        "the model's context of 2048, got 'lots'");
  CHECK(ErrorOf(With("countdown: {numbers: 3, count: 8}", "file: nowhere.jsonl"))
            .find("datasets.d.file: no such file: ") != std::string::npos);
  CHECK(ErrorOf(With("countdown: {numbers: 3, count: 8}", "template: x"))
            .find("needs exactly one of: file, countdown, multiplication") != std::string::npos);
  CHECK(ErrorOf(With("count: 8", "count: 8, exclude: [z]"))
            .find("datasets.d.countdown.exclude: 'z' is not a countdown data set") !=
        std::string::npos);
  CHECK(ErrorOf(With("steps: 2", "steps: 2\n      training: {clip_low: 2}")) ==
        "x.yaml:14:18: curriculum.stages[0].training.clip_low: must be in [0, 1]");
}

}  // namespace
}  // namespace e3
