// How far a client may be behind before its rollouts pause.
#ifndef E3_ROLLOUT_SERVER_SERVICE_CLIENT_WINDOW_H_
#define E3_ROLLOUT_SERVER_SERVICE_CLIENT_WINDOW_H_

#include <algorithm>
#include <cstdint>

namespace e3 {

// Counts tokens on their way to a client, and what is about as large. Not thread-safe.
class ClientWindow {
 public:
  explicit ClientWindow(int64_t limit) : limit_(limit) {}

  void Add(int64_t tokens) { tokens_ += tokens; }
  bool full() const { return tokens_ >= limit_; }
  // Far beyond what may come between being full and the pause.
  bool flooded() const { return tokens_ >= std::max<int64_t>(8 * limit_, 1 << 20); }
  // For RolloutSink::full: remembers that the rollouts pause from here on.
  bool PauseIfFull() {
    paused_ = paused_ || full();
    return full();
  }
  // True when they paused and may go on: half of the window is free again.
  bool Remove(int64_t tokens) {
    tokens_ -= tokens;
    if (!paused_ || tokens_ > limit_ / 2) return false;
    paused_ = false;
    return true;
  }

 private:
  int64_t limit_;
  int64_t tokens_ = 0;
  bool paused_ = false;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_CLIENT_WINDOW_H_
