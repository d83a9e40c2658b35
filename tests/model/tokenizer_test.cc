#include "model/tokenizer.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "model/chat_template.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"

namespace e3 {
namespace {

TEST_CASE("the starter model's words are whole tokens") {
  auto tokenizer = Tokenizer::Load(std::string(E3_SOURCE_DIR) + "/deploy/models/countdown-starter");
  REQUIRE(tokenizer.ok());
  const std::string text =
      "Numbers 3 7 12 Target 33 <think> Try : 3 - 7 = -4 , no . Wait </think> <answer> ( 3 * 7 ) + "
      "12 </answer>";
  std::vector<uint32_t> ids = *(*tokenizer)->Encode(text, true);
  CHECK(ids.size() == 28);
  CHECK(*(*tokenizer)->Decode(ids, true) == text);
  CHECK((*tokenizer)->TokenId("<eos>") == 1);
  CHECK_FALSE((*tokenizer)->TokenId("unknown").has_value());
  CHECK_FALSE((*tokenizer)->Encode("\xff", true).ok());
}

TEST_CASE("incremental text is whole characters and adds up") {
  for (const char* name : {"qwen3", "llama3.1"}) {
    const std::string folder = std::string(E3_SOURCE_DIR) + "/.deps/tokenizers/" + name;
    if (!std::filesystem::exists(folder)) {
      WARN(name << " is not here (deploy/setup/test_tools.sh fetches it)");
      continue;
    }
    auto tokenizer = Tokenizer::Load(folder);
    REQUIRE(tokenizer.ok());
    const std::string text =
        "Zürich 東京 Москва 🙂👩‍👩‍👧 naïve ﷽ x² 𝔘𝔫𝔦 — done";
    std::vector<uint32_t> ids = *(*tokenizer)->Encode(text, false);
    IncrementalDetokenizer detokenizer(tokenizer->get(), true);
    std::string joined;
    for (uint32_t id : ids) {
      std::string piece = *detokenizer.Push(id);
      CHECK(piece.find("\xEF\xBF\xBD") == std::string::npos);
      joined += piece;
    }
    joined += *detokenizer.Finish();
    CHECK(joined == text);
  }
}

TEST_CASE("chat templates get what transformers gives them, and refuse by name") {
  char name[] = "/tmp/e3-template-XXXXXX";
  const std::string folder = mkdtemp(name);
  CHECK(absl::IsNotFound(ChatTemplate::Load(folder).status()));
  REQUIRE(WriteFileDurably(folder + "/tokenizer_config.json",
                           "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\"}")
              .ok());
  REQUIRE(WriteFileDurably(
              folder + "/chat_template.jinja",
              "{{ bos_token }}{% for m in messages %}\n{% if m.role == 'tool' %}{{ "
              "raise_exception('no tools') }}{% endif %}\n"
              "[{{ m.role.upper() }}]{{ m.content.strip() }}{{ eos_token }}\n{% endfor %}{% if "
              "add_generation_prompt %}[BOT]{% endif %}{{ {'a': [1, 'é']} | tojson }}{{ extra }}")
              .ok());
  auto chat = ChatTemplate::Load(folder);
  REQUIRE(chat.ok());
  nlohmann::ordered_json messages = {{{"role", "user"}, {"content", " hi "}}};
  CHECK(*(*chat)->Render(messages, {{"extra", "!"}}) ==
        "<s>[USER]hi</s>\n[BOT]{\"a\": [1, \"é\"]}!");
  CHECK(*(*chat)->Render(messages, {{"add_generation_prompt", false}}) ==
        "<s>[USER]hi</s>\n{\"a\": [1, \"é\"]}");
  messages[0]["role"] = "tool";
  CHECK(std::string((*chat)->Render(messages, {}).status().message()).find("no tools") !=
        std::string::npos);
  CHECK_FALSE((*chat)->Render(messages, 3).ok());
}

}  // namespace
}  // namespace e3
