// The text of one choice as its tokens arrive.
#ifndef E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_
#define E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_

#include <string>
#include <vector>

#include "model/tokenizer.h"

namespace e3 {

// Gives out text that is certain: no unfinished characters, no stop string and nothing behind it,
// and nothing that may still become one.
class CompletionText {
 public:
  // `tokenizer` outlives this object.
  CompletionText(const Tokenizer* tokenizer, std::vector<std::string> stops)
      : detokenizer_(tokenizer, /*skip_special_tokens=*/true), stops_(std::move(stops)) {}

  std::string Push(uint32_t token);
  // The rest, when no more tokens come.
  std::string Finish();

 private:
  std::string Release(bool finish);

  IncrementalDetokenizer detokenizer_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_COMPLETION_TEXT_H_
