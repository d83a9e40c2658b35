// Continuous batching: which tokens of which sequences the next engine step computes.
//
// A step first decodes one token of each running sequence, then spends what is left of its token
// budget on prompts, in chunks: those of running sequences, oldest first, then those of sequences
// that it admits. A sequence is admitted when the cache has blocks for its tokens and a first block
// of each of its samples; blocks that the prefix cache has are taken over instead of computed. When
// the cache runs out, the sequence that was admitted last is preempted: its blocks are released,
// its tokens kept, and it is the first to be admitted again. Nothing is sampled twice.
//
// Who is admitted: preempted sequences; then training before evaluation, where waiting for
// aging_steps steps makes up for the difference; among equals the account that had the fewest
// tokens computed (Sheng et al. 2024, "Fairness in serving large language models"; who comes starts
// at the share that everyone had by then, as in weighted fair queueing, so that a stream of
// newcomers does not shut out who waits); then the order of arrival. Who was chosen and does not
// fit yet is waited for, so that large requests are not overtaken for ever.
//
// The sequences of a paused client keep their blocks as long as nobody else needs them, and get no
// step.
#ifndef E3_ROLLOUT_SERVER_SCHEDULER_H_
#define E3_ROLLOUT_SERVER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "rollout_server/block_manager.h"
#include "rollout_server/sequence.h"

namespace e3 {

struct SchedulerLimits {
  int64_t max_sequences = 512;      // running at once; at most max_batch_tokens
  int64_t max_batch_tokens = 2048;  // in one step
  int64_t aging_steps = 1000;       // of waiting, that are worth a class of priority
};

// Tokens [sequence->computed, sequence->computed + tokens) of one sequence.
struct ScheduledChunk {
  Sequence* sequence;
  int64_t tokens;
  // The chunk reaches the last token, so that the step samples the next one.
  bool samples;
};

// The content of a block that must be copied before the step writes to it.
struct BlockCopy {
  int32_t from;
  int32_t to;
};

struct SchedulerStep {
  std::vector<ScheduledChunk> chunks;
  std::vector<BlockCopy> copies;
};

struct SchedulerCounters {
  uint64_t preempted = 0;
  uint64_t prefix_hit_tokens = 0;  // taken over from the prefix cache
  uint64_t prefix_tokens = 0;      // that were looked up
};

// Not thread-safe.
class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, int32_t num_blocks);

  // Takes sample 0 of a request; its siblings are forked when its prompt is computed.
  void Add(std::unique_ptr<Sequence> sequence);
  // The next step. Empty when there is nothing that may run. The chunks' tokens are counted as
  // computed by Computed().
  SchedulerStep Schedule();
  // Marks a chunk as computed, and makes what it filled known to the prefix cache.
  void Computed(const ScheduledChunk& chunk);
  // Turns the siblings of a prompt that is computed into running sequences that share its blocks.
  std::vector<Sequence*> Fork(Sequence* sequence);
  // Frees a running sequence and its blocks.
  void Finish(Sequence* sequence);
  // Frees every sequence of a request; returns the samples that had not finished.
  std::vector<uint32_t> Cancel(uint64_t request_id);
  // Frees every sequence that was ever admitted; returns (request, sample) of each.
  std::vector<std::pair<uint64_t, uint32_t>> CancelStarted();

  // The weights changed: the prefix cache forgets. `recompute`: so do running sequences, which are
  // computed again from their tokens; else they go on with the keys and values that they have.
  void WeightsChanged(bool recompute);
  // While draining only sequences that were admitted before go on.
  void SetDraining(bool draining) { draining_ = draining; }
  // No sequence of a client that is not paused is on its way.
  bool drained() const;
  void SetPaused(uint64_t client, bool paused);

  // Nothing to do, or only for paused clients.
  bool idle() const;
  bool empty() const { return running_.empty() && preempted_.empty() && num_waiting_ == 0; }
  size_t num_running() const { return running_.size(); }
  // Preempted ones included.
  size_t num_waiting() const { return num_waiting_ + preempted_.size(); }
  size_t num_preempted() const { return preempted_.size(); }
  const SchedulerCounters& counters() const { return counters_; }
  const BlockManager& blocks() const { return blocks_; }

  // Internal says which invariant is broken: reference counts are what the block tables hold, no
  // table holds a free block, and reservations add up. For tests; linear in the blocks.
  absl::Status CheckInvariants() const;

 private:
  // Waiting sequences of one client, by priority.
  struct Client {
    std::deque<std::unique_ptr<Sequence>> waiting[2];
    int64_t live = 0;  // sequences, siblings included
    bool paused = false;
  };
  struct Account {
    double service = 0;  // tokens computed for it, from the share that it came with
    int64_t live = 0;    // sequences, siblings included
  };

  bool IsPaused(const Sequence& sequence) const;
  // Tokens that a step may compute of the sequence.
  int64_t ChunkTokens(const Sequence& sequence, int64_t budget) const;
  // A sequence's account has one more or fewer.
  void Enter(const Sequence& sequence);
  void Leave(const Sequence& sequence);
  void Forget(const Sequence& sequence);
  // Makes [0, end) of the sequence writable from `computed` on; false when the cache is full.
  bool Reserve(Sequence* sequence, int64_t end, std::vector<BlockCopy>* copies);
  // Reserve, which preempts sequences that were admitted later and are not part of this step.
  bool ReserveOrPreempt(size_t index, int64_t end, std::vector<BlockCopy>* copies);
  // Preempts the paused sequence that was admitted last; false when there is none.
  bool PreemptPaused();
  void ScheduleChunk(Sequence* sequence, int64_t tokens, SchedulerStep* step);
  void ReleaseBlocks(Sequence* sequence);
  void Preempt(size_t index);
  // The queue whose head is to be admitted next; null when nobody waits.
  std::deque<std::unique_ptr<Sequence>>* NextQueue();
  // Takes over the blocks that the prefix cache has; false, and nothing is taken, when the cache
  // has no room for the rest.
  bool TryAdmit(Sequence* sequence);

  SchedulerLimits limits_;
  BlockManager blocks_;
  // In order of admission. Siblings that are not forked yet count as running (reserved_).
  std::vector<std::unique_ptr<Sequence>> running_;
  std::deque<std::unique_ptr<Sequence>> preempted_;  // first to be admitted again at the front
  std::map<uint64_t, Client> clients_;               // that have live sequences, or are paused
  std::map<uint64_t, Account> accounts_;             // that live, or had more than their share
  int64_t live_accounts_ = 0;
  double share_ = 0;      // tokens that an account which was always there had
  uint64_t awaited_ = 0;  // arrival of the sequence that was chosen and does not fit yet
  size_t num_waiting_ = 0;
  int64_t reserved_ = 0;
  uint64_t step_ = 0, arrivals_ = 0;
  bool draining_ = false;
  SchedulerCounters counters_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SCHEDULER_H_
