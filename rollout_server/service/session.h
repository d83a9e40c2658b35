// What is on its way from the engine to one client, and survives the client's streams: outputs are
// gathered into chunks, numbered, and kept until the client has them. Knows nothing of gRPC.
#ifndef E3_ROLLOUT_SERVER_SERVICE_SESSION_H_
#define E3_ROLLOUT_SERVER_SERVICE_SESSION_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "e3/v1/rollouts.pb.h"
#include "rollout_server/service/client_window.h"
#include "rollout_server/service/engine_thread.h"

namespace e3 {

struct SessionOptions {
  // Tokens that may be on their way before the session's rollouts pause.
  int64_t window_tokens = 65536;
  // Replies are kept until acknowledged; else until they are written.
  bool acknowledged = false;
};

// Thread-safe: the engine thread appends, one stream at a time takes.
class RolloutSession final : public RolloutSink {
 public:
  // A chunk leaves when its sample ends, or has this many tokens, or after the delay at the latest,
  // so that what was generated is soon with the client.
  static constexpr int kChunkTokens = 256;
  static constexpr std::chrono::milliseconds kChunkDelay{50};

  // `engine` outlives the session.
  RolloutSession(const SessionOptions& options, EngineThread* engine)
      : RolloutSink(NewAccount()),
        engine_(engine),
        window_(options.window_tokens),
        acknowledged_(options.acknowledged) {}

  // Notes that the ticket's stream asks for something, before it is submitted. False, and nothing
  // is to be submitted, when the stream has lost the session: the client does not count on it.
  bool Ask(uint64_t ticket, const v1::GenerateRequest::Start& start);

  void OnOutput(uint64_t request_id, SampleOutput output,
                const v1::WeightVersion& version) override;
  void OnFailure(uint64_t request_id, const absl::Status& status) override;
  bool full() override;
  // The client asks, and does not read what comes of it: more is on its way than pausing explains.
  bool flooded() const;

  // Whether everything after reply `received` is still here.
  bool CanResume(uint64_t received) const;
  // A stream attaches: what was sent before and is not acknowledged by `received` is sent again.
  // Returns the stream's ticket; the one before has lost the session. `known`, if not null, takes
  // the requests that are live or have replies that are sent again.
  uint64_t Attach(uint64_t received, std::set<uint64_t>* known = nullptr);
  // Waits for something to write, at most for kChunkDelay. Empty and `over` when the ticket's
  // stream has lost the session, or it was closed and everything was taken.
  std::vector<v1::GenerateReply> Take(uint64_t ticket, bool* over);
  // The replies that the ticket's stream took are with gRPC, or the client says so.
  void Written(uint64_t number);
  void Acknowledge(uint64_t received);
  // From now on writing counts as acknowledging: the client has half-closed.
  void StopAcknowledging();
  // Nothing more comes; the writer ends when everything is taken.
  void Close();
  bool Owns(uint64_t ticket) const;
  // The ticket's stream is gone. False when it had lost the session before.
  bool Leave(uint64_t ticket);

 private:
  // A request that was asked for and has not ended.
  struct Asked {
    int64_t budget, soft_overlong, prefix;
    int64_t unfinished;                   // samples
    bool raw;                             // log-probabilities of the raw distribution, too
    std::map<uint32_t, int64_t> lengths;  // tokens a sample has
  };
  using ChunkKey = std::pair<uint64_t, uint32_t>;

  // What counts against the window, beside what it counts for.
  struct Growing {
    v1::GenerateReply::Chunk chunk;
    int64_t cost = 0;
  };
  struct Numbered {
    v1::GenerateReply reply;
    int64_t cost;
  };

  // All with the lock.
  void Number(v1::GenerateReply reply, int64_t cost);
  void NumberChunk(const ChunkKey& key, Growing growing);
  void Forget(uint64_t number);  // may resume the engine

  EngineThread* const engine_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::map<ChunkKey, Growing> chunks_;
  std::deque<Numbered> replies_;  // not yet forgotten
  size_t sent_ = 0;               // of replies_
  uint64_t numbered_ = 0, forgotten_ = 0;
  uint64_t ticket_ = 0;
  ClientWindow window_;  // cost of chunks_ and replies_
  bool urgent_ = false, closed_ = false, acknowledged_;
  std::map<uint64_t, Asked> asked_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_SESSION_H_
