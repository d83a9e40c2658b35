#include "rollout_server/http/logprob_list.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

bool IsText(const std::string& bytes) {
  try {
    Json(bytes).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

// A token that is no text by itself, as a part of a character is not, is spelled by its bytes: two
// of them must not look the same.
std::string Name(const std::string& bytes) {
  if (IsText(bytes)) return bytes;
  std::string name = "bytes:";
  for (char c : bytes) absl::StrAppendFormat(&name, "\\x%02x", static_cast<unsigned char>(c));
  return name;
}

int64_t Characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace

void LogprobList::Add(const OutputToken& t, bool known) {
  Json logprob = known ? Json(t.raw_logprob) : Json();
  if (chat_) {
    Json entry = Entry(t.token, logprob);
    entry["top_logprobs"] = Json::array();
    for (const TopToken& top : t.top)
      entry["top_logprobs"].push_back(Entry(top.token, top.logprob));
    content_.push_back(std::move(entry));
    return;
  }
  const std::string name = Name(Bytes(t.token));
  tokens_.push_back(name);
  logprobs_.push_back(std::move(logprob));
  Json tops = Json::object();
  for (const TopToken& top : t.top) tops.emplace(Name(Bytes(top.token)), top.logprob);
  // The drawn token is always among them.
  if (!t.top.empty()) tops[name] = t.raw_logprob;
  top_.push_back(t.top.empty() ? Json() : tops);
  offsets_.push_back(offset_);
  offset_ += Characters(visible_.Push(t.token).value_or(""));
}

Json LogprobList::Take() {
  if (chat_) return {{"content", std::exchange(content_, Json::array())}};
  return {{"tokens", std::exchange(tokens_, Json::array())},
          {"token_logprobs", std::exchange(logprobs_, Json::array())},
          {"top_logprobs", std::exchange(top_, Json::array())},
          {"text_offset", std::exchange(offsets_, Json::array())}};
}

Json LogprobList::Entry(uint32_t token, const Json& logprob) const {
  const std::string text = Bytes(token);
  Json bytes = Json::array();
  for (char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", Name(text)}, {"logprob", logprob}, {"bytes", bytes}};
}

}  // namespace e3
