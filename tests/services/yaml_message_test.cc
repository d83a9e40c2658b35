#include "services/runtime/yaml_message.h"

#include <catch2/catch.hpp>

#include "e3/v1/job_spec.pb.h"

namespace e3 {
namespace {

std::string ErrorOf(const std::string& yaml) {
  v1::JobSpec spec;
  absl::StatusOr<YamlPositions> positions = ParseYamlMessage(yaml, "job.yaml", &spec);
  REQUIRE_FALSE(positions.ok());
  return std::string(positions.status().message());
}

TEST_CASE("keys become fields") {
  v1::JobSpec spec;
  auto positions = ParseYamlMessage(
      "name: a\ntraining: {learning_rate: 3.0e-4, advantage_mask: negative, normalize_std: false}\n"
      "datasets:\n  x: {countdown: {numbers: 3, exclude: [y, z]}}\ncurriculum:\n  grid: [1, 2]\n  "
      "stages:\n    - {name: s, budget: 128}\n    - {budget: auto}\n",
      "job.yaml", &spec);
  REQUIRE(positions.ok());
  CHECK(spec.training().learning_rate() == 3e-4);
  CHECK(spec.training().advantage_mask() == v1::ADVANTAGE_MASK_NEGATIVE);
  CHECK(spec.training().has_normalize_std());
  CHECK(spec.datasets().at("x").countdown().exclude(1) == "z");
  CHECK(spec.curriculum().stages(0).budget() == "128");
  CHECK(std::string(positions->Error("curriculum.stages[1].budget", "no").message()) ==
        "job.yaml:9:8: curriculum.stages[1].budget: no");
  // A key that is not in the file is reported at its parent.
  CHECK(std::string(positions->Error("curriculum.stages[1].steps", "required").message()) ==
        "job.yaml:9:7: curriculum.stages[1].steps: required");
}

TEST_CASE("what is wrong is named with line and column") {
  CHECK(ErrorOf("name: a\nlerning_rate: 3\n") ==
        "job.yaml:2:1: lerning_rate: unknown key 'lerning_rate'; expected one of: name, seed, "
        "model, output, datasets, prompting, reward, sampling, training, curriculum");
  CHECK(ErrorOf("training:\n  lerning_rate: 3\n") ==
        "job.yaml:2:3: training.lerning_rate: unknown key 'lerning_rate'; did you mean "
        "'learning_rate'?");
  CHECK(ErrorOf("training:\n  group_size: many\n") ==
        "job.yaml:2:3: training.group_size: expected a whole number, got 'many'");
  CHECK(ErrorOf("training:\n  group_size: 1.5\n") ==
        "job.yaml:2:3: training.group_size: expected a whole number, got '1.5'");
  CHECK(ErrorOf("training: {normalize_std: yes}\n") ==
        "job.yaml:1:12: training.normalize_std: expected true or false, got 'yes'");
  CHECK(ErrorOf("training: {advantage_mask: both}\n") ==
        "job.yaml:1:12: training.advantage_mask: unknown value 'both'; expected one of: none, "
        "negative");
  CHECK(ErrorOf("training: 3\n") == "job.yaml:1:1: training: expected keys and values");
  CHECK(ErrorOf("name: a\nname: b\n") == "job.yaml:2:1: name: key 'name' appears twice");
  CHECK(ErrorOf("curriculum: {grid: 3}\n") ==
        "job.yaml:1:14: curriculum.grid: expected a list, each item a whole number");
  CHECK(ErrorOf("name:\n") == "job.yaml:1:1: name: has no value; expected text");
  CHECK(ErrorOf("a: [1, 2\n").find("not valid YAML") != std::string::npos);
  CHECK(ErrorOf("- a\n") == "job.yaml:1:1: expected keys and values");
}

TEST_CASE("no text crashes the parser") {
  const std::string valid =
      "name: a\ntraining: {learning_rate: 3.0e-4}\ndatasets:\n  x: {countdown: {numbers: 3}}\n";
  for (size_t i = 0; i < valid.size(); ++i) {
    for (char c : {'{', '[', ':', '\n', '&', '*', '!', '\t', '\0', '\xff'}) {
      std::string text = valid;
      text[i] = c;
      v1::JobSpec spec;
      (void)ParseYamlMessage(text, "f", &spec);
      (void)ParseYamlMessage(text.substr(0, i), "f", &spec);
    }
  }
}

}  // namespace
}  // namespace e3
