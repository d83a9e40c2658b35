// The text of one choice as its tokens arrive.
#ifndef E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_
#define E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/tokenizer.h"

namespace e3 {

// Gives out text that is certain: no unfinished characters, no stop string and nothing behind it,
// and nothing that may still become one.
class CompletionText {
 public:
  // `tokenizer` outlives this object. Stop strings that end before token `min_tokens` are text.
  CompletionText(const Tokenizer* tokenizer, std::vector<std::string> stops, int64_t min_tokens)
      : detokenizer_(tokenizer, /*skip_special_tokens=*/true),
        stops_(std::move(stops)),
        min_tokens_(min_tokens) {}

  std::string Push(uint32_t token);
  // The rest, when no more tokens come.
  std::string Finish();

 private:
  // `checked`: bytes of held_ in which no stop string ends.
  std::string Release(size_t checked, bool finish);

  IncrementalDetokenizer detokenizer_;
  std::vector<std::string> stops_;
  const int64_t min_tokens_;
  int64_t tokens_ = 0;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_
