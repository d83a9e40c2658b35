#include "rollout_server/http/completion_text.h"

#include <algorithm>

namespace e3 {

std::string CompletionText::Push(uint32_t token) {
  const size_t before = held_.size();
  held_ += detokenizer_.Push(token).value_or("");
  return Release(++tokens_ < min_tokens_ ? held_.size() : before, false);
}

std::string CompletionText::Finish() {
  const size_t before = held_.size();
  held_ += detokenizer_.Finish().value_or("");
  return Release(tokens_ < min_tokens_ ? held_.size() : before, true);
}

std::string CompletionText::Release(size_t checked, bool finish) {
  if (stopped_) return "";
  size_t end = held_.size();
  for (const std::string& stop : stops_) {
    const size_t first = checked < stop.size() ? 0 : checked - stop.size() + 1;
    if (size_t at = held_.find(stop, first); at != std::string::npos) {
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
