// Text to token ids and back, with a model's own tokenizer.json.
#ifndef E3_MODEL_TOKENIZER_H_
#define E3_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct E3Tokenizer;

namespace e3 {

// A Hugging Face tokenizer. Immutable and thread-safe.
class Tokenizer {
 public:
  // Reads `folder`/tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& folder);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // `add_special_tokens`: what the tokenizer puts around a text (e.g. a beginning-of-sequence
  // token). True for plain prompts, false for rendered chat messages, whose template has written
  // them already. InvalidArgument when not UTF-8.
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text,
                                               bool add_special_tokens) const;

  // Always valid UTF-8; bytes that are not become U+FFFD.
  absl::StatusOr<std::string> Decode(const uint32_t* ids, size_t n, bool skip_special_tokens) const;
  absl::StatusOr<std::string> Decode(const std::vector<uint32_t>& ids,
                                     bool skip_special_tokens) const {
    return Decode(ids.data(), ids.size(), skip_special_tokens);
  }

  // The bytes of one token, which need not be whole characters.
  absl::StatusOr<std::string> TokenBytes(uint32_t id) const;

  std::optional<uint32_t> TokenId(absl::string_view token) const;
  size_t vocab_size() const;

 private:
  explicit Tokenizer(E3Tokenizer* handle) : handle_(handle) {}
  E3Tokenizer* handle_;
};

// Turns a growing list of tokens into a growing text. What Push returns, joined, is a prefix of
// Decode of all tokens, and never ends inside a UTF-8 character: an unfinished one is held back
// until its other tokens arrive.
class IncrementalDetokenizer {
 public:
  // `tokenizer` outlives this object.
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // The text that `id` completes; often one word, sometimes nothing.
  absl::StatusOr<std::string> Push(uint32_t id);
  // What is still held back; an unfinished character comes out as U+FFFD.
  absl::StatusOr<std::string> Finish();

 private:
  absl::StatusOr<std::string> Advance(bool finish);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::vector<uint32_t> ids_;
  // Tokens [context_, emitted_) are decoded again as context of what follows, since a token's text
  // can depend on the one before it; tokens before `emitted_` have been returned.
  size_t context_ = 0;
  size_t emitted_ = 0;
};

}  // namespace e3

#endif  // E3_MODEL_TOKENIZER_H_
