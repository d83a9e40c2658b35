#include "rollout_server/scheduler.h"

#include <algorithm>

#include "model/attention_kernel.h"

namespace e3 {
namespace {
int64_t BlocksFor(int64_t tokens) { return (tokens + kKvBlockRows - 1) / kKvBlockRows; }
}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, int32_t num_blocks)
    : limits_(limits), blocks_(num_blocks) {}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

bool Scheduler::CanAdmit(const Sequence& sequence) const {
  const int64_t samples = 1 + static_cast<int64_t>(sequence.siblings.size());
  if (static_cast<int64_t>(running_.size()) + reserved_ + samples > limits_.max_sequences)
    return false;
  // Its tokens, and a block of its own for the first tokens of every sample.
  return BlocksFor(sequence.length()) + samples <= blocks_.num_free();
}

SchedulerStep Scheduler::Schedule() {
  SchedulerStep step;
  int64_t budget = limits_.max_batch_tokens;

  // Running sequences, oldest first: one token each, or the next chunk of a prompt. Whoever finds
  // no block preempts the newest.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i].get();
    int64_t tokens = std::min(sequence->length() - sequence->computed, budget);
    if (tokens == 0) break;
    bool reserved = Reserve(sequence, sequence->computed + tokens, &step.copies);
    while (!reserved && running_.size() > i + 1) {
      Preempt(running_.size() - 1);
      reserved = Reserve(sequence, sequence->computed + tokens, &step.copies);
    }
    if (!reserved) {
      Preempt(i);
      break;
    }
    step.chunks.push_back({sequence, tokens, sequence->computed + tokens == sequence->length()});
    budget -= tokens;
  }

  while (budget > 0 && !waiting_.empty() && CanAdmit(*waiting_.front())) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    Sequence* sequence = running_.back().get();
    reserved_ += static_cast<int64_t>(sequence->siblings.size());
    int64_t tokens = std::min(sequence->length() - sequence->computed, budget);
    Reserve(sequence, sequence->computed + tokens, &step.copies);
    step.chunks.push_back({sequence, tokens, sequence->computed + tokens == sequence->length()});
    budget -= tokens;
  }
  return step;
}

bool Scheduler::Reserve(Sequence* sequence, int64_t end, std::vector<BlockCopy>* copies) {
  // Copy on write: the block of the first new token may still be a sibling's, too.
  const size_t first = static_cast<size_t>(sequence->computed / kKvBlockRows);
  if (first < sequence->block_table.size() && blocks_.IsShared(sequence->block_table[first])) {
    std::optional<int32_t> copy = blocks_.Allocate();
    if (!copy) return false;
    copies->push_back({sequence->block_table[first], *copy});
    blocks_.Release(sequence->block_table[first]);
    sequence->block_table[first] = *copy;
  }
  while (static_cast<int64_t>(sequence->block_table.size()) < BlocksFor(end)) {
    std::optional<int32_t> block = blocks_.Allocate();
    if (!block) return false;
    sequence->block_table.push_back(*block);
  }
  return true;
}

void Scheduler::Computed(const ScheduledChunk& chunk) { chunk.sequence->computed += chunk.tokens; }

std::vector<Sequence*> Scheduler::Fork(Sequence* sequence) {
  std::vector<Sequence*> forked;
  std::vector<uint32_t> siblings = std::move(sequence->siblings);
  sequence->siblings.clear();
  for (uint32_t sample : siblings) {
    auto sibling = std::make_unique<Sequence>(*sequence);
    sibling->draw += sample - sequence->sample;
    sibling->sample = sample;
    for (int32_t block : sibling->block_table) blocks_.AddReference(block);
    forked.push_back(sibling.get());
    running_.push_back(std::move(sibling));
  }
  reserved_ -= static_cast<int64_t>(siblings.size());
  return forked;
}

void Scheduler::FreeBlocks(Sequence* sequence) {
  for (int32_t block : sequence->block_table) blocks_.Release(block);
  sequence->block_table.clear();
  sequence->computed = 0;
}

void Scheduler::Preempt(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  FreeBlocks(sequence.get());
  reserved_ -= static_cast<int64_t>(sequence->siblings.size());
  waiting_.push_front(std::move(sequence));
  ++preempted_;
}

void Scheduler::PreemptAll() {
  while (!running_.empty()) Preempt(running_.size() - 1);
}

void Scheduler::Finish(Sequence* sequence) {
  auto it = std::find_if(running_.begin(), running_.end(),
                         [&](const auto& s) { return s.get() == sequence; });
  FreeBlocks(sequence);
  reserved_ -= static_cast<int64_t>(sequence->siblings.size());
  running_.erase(it);
}

std::vector<uint32_t> Scheduler::Cancel(uint64_t request_id) {
  std::vector<uint32_t> samples;
  auto take = [&](const std::unique_ptr<Sequence>& sequence) {
    samples.push_back(sequence->sample);
    samples.insert(samples.end(), sequence->siblings.begin(), sequence->siblings.end());
  };
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->request_id != request_id) continue;
    take(running_[i]);
    Finish(running_[i].get());
  }
  std::erase_if(waiting_, [&](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->request_id != request_id) return false;
    take(sequence);
    return true;
  });
  return samples;
}

}  // namespace e3
