#include "model/tokenizer.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

const uint8_t* Data(absl::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

std::string Take(E3Bytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.len);
  e3_bytes_free(bytes);
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& folder) {
  std::string path = absl::StrCat(folder, "/tokenizer.json");
  E3_ASSIGN_OR_RETURN(std::string json, ReadFile(path));
  E3Tokenizer* handle = nullptr;
  E3Bytes error;
  if (e3_tokenizer_new(Data(json), json.size(), &handle, &error) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", Take(error)));
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(handle));
}

Tokenizer::~Tokenizer() { e3_tokenizer_free(handle_); }

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(absl::string_view text,
                                                        bool add_special_tokens) const {
  E3Ids ids;
  E3Bytes error;
  if (e3_tokenizer_encode(handle_, Data(text), text.size(), add_special_tokens, &ids, &error) !=
      0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot tokenize: ", Take(error)));
  }
  std::vector<uint32_t> result(ids.data, ids.data + ids.len);
  e3_ids_free(ids);
  return result;
}

absl::StatusOr<std::string> Tokenizer::Decode(const uint32_t* ids, size_t n,
                                              bool skip_special_tokens) const {
  E3Bytes text;
  E3Bytes error;
  if (e3_tokenizer_decode(handle_, ids, n, skip_special_tokens, &text, &error) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot decode tokens: ", Take(error)));
  }
  return Take(text);
}

absl::StatusOr<std::string> Tokenizer::TokenBytes(uint32_t id) const {
  E3Bytes bytes;
  E3Bytes error;
  if (e3_tokenizer_token_bytes(handle_, id, &bytes, &error) != 0)
    return absl::InvalidArgumentError(absl::StrCat("cannot decode a token: ", Take(error)));
  return Take(bytes);
}

std::optional<uint32_t> Tokenizer::TokenId(absl::string_view token) const {
  int64_t id = e3_tokenizer_token_to_id(handle_, Data(token), token.size());
  if (id < 0) return std::nullopt;
  return static_cast<uint32_t>(id);
}

size_t Tokenizer::vocab_size() const { return e3_tokenizer_vocab_size(handle_); }

absl::StatusOr<std::string> IncrementalDetokenizer::Push(uint32_t id) {
  ids_.push_back(id);
  return Advance(/*finish=*/false);
}

absl::StatusOr<std::string> IncrementalDetokenizer::Finish() { return Advance(/*finish=*/true); }

absl::StatusOr<std::string> IncrementalDetokenizer::Advance(bool finish) {
  E3_ASSIGN_OR_RETURN(
      std::string before,
      tokenizer_->Decode(ids_.data() + context_, emitted_ - context_, skip_special_tokens_));
  E3_ASSIGN_OR_RETURN(
      std::string now,
      tokenizer_->Decode(ids_.data() + context_, ids_.size() - context_, skip_special_tokens_));
  // U+FFFD at the end: the last character's remaining bytes are in tokens to come.
  bool unfinished = absl::EndsWith(now, "\xEF\xBF\xBD");
  if (now.size() <= before.size() || !absl::StartsWith(now, before) || (unfinished && !finish)) {
    return std::string();
  }
  context_ = emitted_;
  emitted_ = ids_.size();
  return now.substr(before.size());
}

}  // namespace e3
