#include "tasks/dataset.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

namespace e3 {
namespace {

std::string TempFile(const std::string& content) {
  char name[] = "/tmp/e3-dataset-XXXXXX";
  close(mkstemp(name));
  std::ofstream(name) << content;
  return name;
}

TEST_CASE("a file's fields become prompts and golds") {
  v1::JobSpec spec;
  v1::Dataset& d = (*spec.mutable_datasets())["gsm"];
  d.set_file(
      TempFile("{\"question\": \"1+1?\", \"answer\": \"one and one\\n#### 2\", \"level\": "
               "1}\n\n{\"question\": \"2+2?\", \"answer\": \"#### 4\", \"level\": 2}\n"));
  d.set_prompt_field("question");
  d.set_gold_pattern("#### (.*)");
  d.set_template_("Q: {prompt}");
  auto problems = LoadDataset(spec, "gsm");
  REQUIRE(problems.ok());
  REQUIRE(problems->size() == 2);
  CHECK((*problems)[0].prompt == "Q: 1+1?");
  CHECK((*problems)[0].grading.math().gold() == "2");
  // How answers are judged is the job's to say.
  CHECK((*problems)[0].grading.math().extract() == v1::EXTRACT_BOXED);
  CHECK_FALSE((*problems)[0].grading.math().has_precision());
  spec.mutable_reward()->set_extract(v1::EXTRACT_ANY);
  spec.mutable_reward()->set_precision(2);
  problems = LoadDataset(spec, "gsm");
  CHECK((*problems)[0].grading.math().extract() == v1::EXTRACT_ANY);
  CHECK((*problems)[0].grading.math().precision() == 2);
  v1::Filter* filter = d.add_filters();
  filter->set_field("level");
  filter->add_values("2");
  CHECK(LoadDataset(spec, "gsm")->size() == 1);
  d.set_gold_pattern("answer: (.*)");
  CHECK(std::string(LoadDataset(spec, "gsm").status().message()).find(":3: ") != std::string::npos);
}

TEST_CASE("a broken line is named") {
  v1::JobSpec spec;
  (*spec.mutable_datasets())["d"].set_file(
      TempFile("{\"prompt\": \"a\", \"answer\": \"1\"}\n{\"prompt\": \n"));
  CHECK(std::string(LoadDataset(spec, "d").status().message()).find(":2: not a JSON object") !=
        std::string::npos);
  (*spec.mutable_datasets())["d"].set_file("/nowhere/x.jsonl");
  CHECK(absl::IsNotFound(LoadDataset(spec, "d").status()));
}

TEST_CASE("files prepared for verl are read as they are") {
  const std::string data = std::string(E3_SOURCE_DIR) + "/tests/tasks/data/";
  v1::JobSpec spec;
  v1::Dataset& d = (*spec.mutable_datasets())["d"];
  d.set_file(data + "verl_gsm8k.parquet");
  auto problems = LoadDataset(spec, "d");
  REQUIRE(problems.ok());
  REQUIRE(problems->size() == 2);
  CHECK((*problems)[0].messages.size() == 1);
  CHECK((*problems)[1].messages[0].role == "system");
  CHECK((*problems)[1].messages[1].content == "2 + 2?");
  CHECK((*problems)[0].grading.math().gold() == "42");
  // Paths lead into objects; a filter sees them too.
  d.set_prompt_field("extra_info.question");
  v1::Filter* filter = d.add_filters();
  filter->set_field("extra_info.index");
  filter->add_values("1");
  problems = LoadDataset(spec, "d");
  REQUIRE(problems.ok());
  REQUIRE(problems->size() == 1);
  CHECK((*problems)[0].prompt == "2 + 2?");
  CHECK((*problems)[0].messages.empty());

  // Puzzles are told by their answer.
  d.Clear();
  d.set_file(data + "verl_countdown.parquet");
  problems = LoadDataset(spec, "d");
  REQUIRE(problems.ok());
  REQUIRE(problems->size() == 3);
  CHECK((*problems)[0].grading.countdown().target() == 33);
  CHECK((*problems)[0].grading.countdown().numbers_size() == 3);
  CHECK((*problems)[0].messages[0].role == "user");

  // The same shape as JSONL.
  d.set_file(TempFile(
      "{\"prompt\": [{\"role\": \"user\", \"content\": \"1+1?\"}], \"data_source\": \"x\", "
      "\"reward_model\": {\"ground_truth\": \"2\", \"style\": \"rule\"}}\n"));
  problems = LoadDataset(spec, "d");
  REQUIRE(problems.ok());
  CHECK((*problems)[0].grading.math().gold() == "2");

  auto error = [&](const std::string& file) {
    d.set_file(file);
    return std::string(LoadDataset(spec, "d").status().message());
  };
  const std::string torn = TempFile("PAR1 is not enough") + ".parquet";
  std::ofstream(torn) << "PAR1 is not enough";
  CHECK(error(torn).find("is not parquet: ") != std::string::npos);
  CHECK(error(TempFile("{\"prompt\": [{\"role\": \"user\"}], \"answer\": \"2\"}\n"))
            .find(":1: a message in field \"prompt\" has no \"role\" and \"content\"") !=
        std::string::npos);
  d.set_template_("Q: {prompt}");
  CHECK(error(data + "verl_gsm8k.parquet").find(":1: a template is for prompts that are text") !=
        std::string::npos);
}

TEST_CASE("paths know variables") {
  setenv("E3_TEST_FOLDER", "/data", 1);
  CHECK(*ResolvePath("${E3_TEST_FOLDER}/x", "/base") == "/data/x");
  CHECK(*ResolvePath("a/../b", "/base") == "/base/b");
  CHECK(absl::IsInvalidArgument(ResolvePath("${E3_NOT_SET_ANYWHERE}/x", "/base").status()));
}

TEST_CASE("a pattern takes time linear in the text, and an empty answer is refused") {
  const std::string path =
      TempFile("{\"prompt\": \"x\", \"answer\": \"" + std::string(400000, 'a') +
               "#### 7\"}\n{\"prompt\": \"y\", \"answer\": \"#### \"}\n");
  v1::JobSpec spec;
  v1::Dataset& d = (*spec.mutable_datasets())["d"];
  d.set_file(path);
  d.set_gold_pattern("(?:a|b)*#### (.*)");
  absl::Status status = LoadDataset(spec, "d").status();
  CHECK(std::string(status.message()) == path + ":2: the answer in field \"answer\" is empty");
  d.set_limit(1);
  v1::Filter* only_x = d.add_filters();
  only_x->set_field("prompt");
  only_x->add_values("x");
  auto problems = LoadDataset(spec, "d");
  REQUIRE(problems.ok());
  CHECK(problems->at(0).grading.math().gold() == "7");
  unlink(path.c_str());
}

}  // namespace
}  // namespace e3
