// Continuous batching: which tokens of which sequences the next engine step computes.
//
// A step decodes one token of every running sequence and spends what is left of its token budget on
// prefilling waiting ones, in order of arrival, in chunks. A sequence is admitted when the cache
// has blocks for its prompt and a first block of each of its samples. When the cache runs out, the
// sequence that was admitted last is preempted: its blocks are freed and it waits at the front, to
// be computed again from the tokens that it has. Nothing is sampled twice.
#ifndef E3_ROLLOUT_SERVER_SCHEDULER_H_
#define E3_ROLLOUT_SERVER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "rollout_server/block_manager.h"
#include "rollout_server/sequence.h"

namespace e3 {

struct SchedulerLimits {
  int64_t max_sequences = 512;      // running at once
  int64_t max_batch_tokens = 2048;  // in one step
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

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, int32_t num_blocks);

  // Takes sample 0 of a request; its siblings are forked when its prompt is computed.
  void Add(std::unique_ptr<Sequence> sequence);
  // The next step. Empty when there is nothing to do. The chunks' tokens are counted as computed by
  // Computed().
  SchedulerStep Schedule();
  // Marks a chunk as computed.
  void Computed(const ScheduledChunk& chunk);
  // Turns the siblings of a prompt that is computed into running sequences that share its blocks.
  std::vector<Sequence*> Fork(Sequence* sequence);
  // Frees a sequence and its blocks.
  void Finish(Sequence* sequence);
  // Frees every sequence of a request; returns the samples that had not finished.
  std::vector<uint32_t> Cancel(uint64_t request_id);
  // Forgets all computed keys and values (after a change of weights that asks for it): running
  // sequences wait and are computed again.
  void PreemptAll();

  bool idle() const { return running_.empty() && waiting_.empty(); }
  size_t num_running() const { return running_.size(); }
  size_t num_waiting() const { return waiting_.size(); }
  uint64_t num_preempted() const { return preempted_; }
  const BlockManager& blocks() const { return blocks_; }

 private:
  // Makes [0, end) of the sequence writable from `computed` on; false when the cache is full.
  bool Reserve(Sequence* sequence, int64_t end, std::vector<BlockCopy>* copies);
  void FreeBlocks(Sequence* sequence);
  void Preempt(size_t index);
  bool CanAdmit(const Sequence& sequence) const;

  SchedulerLimits limits_;
  BlockManager blocks_;
  // Running sequences in order of admission. Siblings that are not forked yet count as running
  // (reserved_).
  std::vector<std::unique_ptr<Sequence>> running_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  int64_t reserved_ = 0;
  uint64_t preempted_ = 0;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SCHEDULER_H_
