#include "rollout_server/http/completion_text.h"

#include <algorithm>

namespace e3 {

std::string CompletionText::Push(uint32_t token) {
  held_ += detokenizer_.Push(token).value_or("");
  return Release(false);
}

std::string CompletionText::Finish() {
  held_ += detokenizer_.Finish().value_or("");
  return Release(true);
}

std::string CompletionText::Release(bool finish) {
  if (stopped_) return "";
  size_t end = held_.size();
  for (const std::string& stop : stops_) {
    if (size_t at = held_.find(stop); at != std::string::npos) {
      end = std::min(end, at);
      stopped_ = true;
    }
  }
  if (!stopped_ && !finish) {
    // The longest end of the text that a stop string begins with.
    for (const std::string& stop : stops_) {
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > 0; --n) {
        if (held_.compare(held_.size() - n, n, stop, 0, n) != 0) continue;
        end = std::min(end, held_.size() - n);
        break;
      }
    }
  }
  std::string text = held_.substr(0, end);
  held_.erase(0, end);
  return text;
}

}  // namespace e3
