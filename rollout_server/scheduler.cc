#include "rollout_server/scheduler.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "model/attention_kernel.h"

namespace e3 {
namespace {

int64_t BlocksFor(int64_t tokens) { return (tokens + kKvBlockRows - 1) / kKvBlockRows; }

int64_t Samples(const Sequence& sequence) {
  return 1 + static_cast<int64_t>(sequence.siblings.size());
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, int32_t num_blocks)
    : limits_(limits), blocks_(num_blocks) {}

// --- clients ---

bool Scheduler::IsPaused(const Sequence& sequence) const {
  return clients_.at(sequence.request->client).paused;
}

void Scheduler::SetPaused(uint64_t client, bool paused) {
  auto it = clients_.find(client);
  if (it == clients_.end()) {
    if (paused) clients_[client].paused = true;
    return;
  }
  it->second.paused = paused;
  if (!paused && it->second.live == 0) clients_.erase(it);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  Enter(*sequence);
  Client& client = clients_[sequence->request->client];
  client.live += Samples(*sequence);
  sequence->arrival_step = step_;
  sequence->arrival = ++arrivals_;
  sequence->arrived = Clock::now();
  client.waiting[static_cast<size_t>(sequence->request->priority)].push_back(std::move(sequence));
  ++num_waiting_;
}

void Scheduler::Enter(const Sequence& sequence) {
  // Who was away has no claim on the time when it was, and need not be remembered once others had
  // as much.
  std::erase_if(accounts_, [&](const auto& entry) {
    return entry.second.live == 0 && entry.second.service <= share_;
  });
  Account& account = accounts_[sequence.request->account];
  if (account.live == 0) {
    account.service = std::max(account.service, share_);
    ++live_accounts_;
  }
  account.live += Samples(sequence);
}

void Scheduler::Leave(const Sequence& sequence) {
  Account& account = accounts_.at(sequence.request->account);
  account.live -= Samples(sequence);
  if (account.live == 0) --live_accounts_;
}

// The sequence is going to be destroyed.
void Scheduler::Forget(const Sequence& sequence) {
  Leave(sequence);
  auto it = clients_.find(sequence.request->client);
  it->second.live -= Samples(sequence);
  if (it->second.live == 0 && !it->second.paused) clients_.erase(it);
}

std::deque<std::unique_ptr<Sequence>>* Scheduler::NextQueue() {
  for (const auto& sequence : preempted_) {
    if (!IsPaused(*sequence)) return &preempted_;
  }
  if (draining_) return nullptr;
  std::deque<std::unique_ptr<Sequence>>* best = nullptr;
  std::tuple<int64_t, bool, double, uint64_t> best_rank;
  for (auto& [id, client] : clients_) {
    if (client.paused) continue;
    for (int64_t priority = 0; priority < 2; ++priority) {
      auto& queue = client.waiting[priority];
      if (queue.empty()) continue;
      const Sequence& head = *queue.front();
      const int64_t age = static_cast<int64_t>(step_ - head.arrival_step) / limits_.aging_steps;
      std::tuple rank(std::max<int64_t>(0, priority - age), head.arrival != awaited_,
                      accounts_.at(head.request->account).service, head.arrival);
      if (best == nullptr || rank < best_rank) {
        best = &queue;
        best_rank = rank;
      }
    }
  }
  return best;
}

bool Scheduler::idle() const {
  auto waits = [&](const std::unique_ptr<Sequence>& s) { return !IsPaused(*s); };
  if (std::any_of(running_.begin(), running_.end(), waits) ||
      std::any_of(preempted_.begin(), preempted_.end(), waits)) {
    return false;
  }
  if (draining_) return true;
  return std::all_of(clients_.begin(), clients_.end(), [](const auto& entry) {
    return entry.second.paused ||
           (entry.second.waiting[0].empty() && entry.second.waiting[1].empty());
  });
}

bool Scheduler::drained() const {
  auto going = [&](const std::unique_ptr<Sequence>& s) { return !IsPaused(*s); };
  return std::none_of(running_.begin(), running_.end(), going) &&
         std::none_of(preempted_.begin(), preempted_.end(), going);
}

// --- steps ---

SchedulerStep Scheduler::Schedule() {
  ++step_;
  SchedulerStep step;
  int64_t budget = limits_.max_batch_tokens;

  // Decoding, and after it the prompts that are on their way.
  for (bool decode : {true, false}) {
    for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
      Sequence* sequence = running_[i].get();
      const int64_t left = sequence->length() - sequence->computed;
      if (IsPaused(*sequence) || sequence->scheduled_step == step_ || (left == 1) != decode)
        continue;
      const int64_t tokens = ChunkTokens(*sequence, budget);
      if (!ReserveOrPreempt(i, sequence->computed + tokens, &step.copies)) {
        if (!step.chunks.empty()) continue;  // others go on and will free blocks
        Preempt(i);
        break;
      }
      // Preempting paused ones moved it.
      i = static_cast<size_t>(std::find_if(running_.begin(), running_.end(),
                                           [&](const auto& s) { return s.get() == sequence; }) -
                              running_.begin());
      ScheduleChunk(sequence, tokens, &step);
      budget -= tokens;
    }
  }

  while (budget > 0) {
    auto* queue = NextQueue();
    if (queue == nullptr) break;
    auto head = queue->begin();
    while (IsPaused(**head)) ++head;  // among the preempted
    bool admitted = TryAdmit(head->get());
    while (!admitted && PreemptPaused()) {
      // The preempted queue may have grown in front of the head.
      queue = NextQueue();
      head = queue->begin();
      while (IsPaused(**head)) ++head;
      admitted = TryAdmit(head->get());
    }
    if (!admitted) {
      if (queue != &preempted_) awaited_ = (*head)->arrival;
      break;
    }
    if (queue != &preempted_) --num_waiting_;
    running_.push_back(std::move(*head));
    queue->erase(head);
    Sequence* sequence = running_.back().get();
    if (sequence->admitted == Clock::time_point()) sequence->admitted = Clock::now();
    reserved_ += static_cast<int64_t>(sequence->siblings.size());
    const int64_t tokens = ChunkTokens(*sequence, budget);
    Reserve(sequence, sequence->computed + tokens, &step.copies);
    ScheduleChunk(sequence, tokens, &step);
    budget -= tokens;
  }
  return step;
}

int64_t Scheduler::ChunkTokens(const Sequence& sequence, int64_t budget) const {
  // A scored prompt has a row of logits for every token.
  constexpr int64_t kScoredRows = 128;
  if (sequence.scores_prompt()) budget = std::min(budget, kScoredRows);
  return std::min(sequence.length() - sequence.computed, budget);
}

void Scheduler::ScheduleChunk(Sequence* sequence, int64_t tokens, SchedulerStep* step) {
  sequence->scheduled_step = step_;
  step->chunks.push_back({sequence, tokens, sequence->computed + tokens == sequence->length()});
}

void Scheduler::Computed(const ScheduledChunk& chunk) {
  Sequence* s = chunk.sequence;
  s->computed += chunk.tokens;
  const double tokens = static_cast<double>(chunk.tokens);
  accounts_.at(s->request->account).service += tokens;
  share_ += tokens / static_cast<double>(live_accounts_);
  while (s->publishable && (s->published + 1) * kKvBlockRows <= s->computed) {
    s->prefix = blocks_.Publish(s->block_table[static_cast<size_t>(s->published)], s->prefix,
                                s->tokens.data() + s->published * kKvBlockRows);
    ++s->published;
  }
}

std::vector<Sequence*> Scheduler::Fork(Sequence* sequence) {
  std::vector<Sequence*> forked;
  std::vector<uint32_t> siblings = std::move(sequence->siblings);
  sequence->siblings.clear();
  for (uint32_t sample : siblings) {
    auto sibling = std::make_unique<Sequence>(*sequence);
    sibling->prompt_tokens.clear();
    sibling->draw += sample - sequence->sample;
    sibling->sample = sample;
    for (int32_t block : sibling->block_table) blocks_.AddReference(block);
    forked.push_back(sibling.get());
    running_.push_back(std::move(sibling));
  }
  reserved_ -= static_cast<int64_t>(siblings.size());
  return forked;
}

// --- blocks ---

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

bool Scheduler::ReserveOrPreempt(size_t index, int64_t end, std::vector<BlockCopy>* copies) {
  Sequence* sequence = running_[index].get();
  while (!Reserve(sequence, end, copies)) {
    if (PreemptPaused()) continue;
    const Sequence& last = *running_.back();
    if (&last == sequence || last.scheduled_step == step_) return false;
    Preempt(running_.size() - 1);
  }
  return true;
}

bool Scheduler::PreemptPaused() {
  for (size_t i = running_.size(); i-- > 0;) {
    if (!IsPaused(*running_[i]) || running_[i]->scheduled_step == step_) continue;
    Preempt(i);
    return true;
  }
  return false;
}

bool Scheduler::TryAdmit(Sequence* s) {
  const int64_t samples = Samples(*s);
  if (static_cast<int64_t>(running_.size()) + reserved_ + samples > limits_.max_sequences)
    return false;
  // What the prefix cache has of its tokens; the last one is computed in any case, since its
  // logits are wanted.
  std::vector<BlockManager::CachedBlock> hits;
  int64_t kept_hits = 0;
  const int64_t full = (s->length() - 1) / kKvBlockRows;
  if (!s->request->prompt_logprobs) {
    while (static_cast<int64_t>(hits.size()) < full) {
      auto hit =
          blocks_.FindPrefix(hits.empty() ? 0 : hits.back().prefix,
                             s->tokens.data() + static_cast<int64_t>(hits.size()) * kKvBlockRows);
      if (!hit) break;
      kept_hits += blocks_.references(hit->block) == 0;
      hits.push_back(*hit);
    }
  }
  // The rest of its tokens, and a block of its own for the first tokens of every sample.
  const int64_t needed = BlocksFor(s->length()) - static_cast<int64_t>(hits.size()) + samples;
  if (needed > blocks_.num_free() - kept_hits) return false;
  for (const auto& hit : hits) {
    blocks_.AddReference(hit.block);
    s->block_table.push_back(hit.block);
    s->prefix = hit.prefix;
  }
  s->published = static_cast<int64_t>(hits.size());
  s->computed = s->published * kKvBlockRows;
  s->publishable = true;
  counters_.prefix_hit_tokens += static_cast<uint64_t>(s->computed);
  counters_.prefix_tokens += static_cast<uint64_t>(s->length());
  return true;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  // From the end, so that of kept blocks the ends of prefixes are given away first.
  for (size_t i = sequence->block_table.size(); i-- > 0;) blocks_.Release(sequence->block_table[i]);
  sequence->block_table.clear();
  sequence->computed = sequence->published = 0;
  sequence->prefix = 0;
  sequence->prompt_tokens.clear();
}

void Scheduler::Preempt(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  ReleaseBlocks(sequence.get());
  reserved_ -= static_cast<int64_t>(sequence->siblings.size());
  preempted_.push_front(std::move(sequence));
  ++counters_.preempted;
}

void Scheduler::WeightsChanged(bool recompute) {
  blocks_.ForgetContents();
  if (recompute) {
    while (!running_.empty()) Preempt(running_.size() - 1);
    return;
  }
  for (const auto& sequence : running_) sequence->publishable = false;
}

// --- ends ---

void Scheduler::Finish(Sequence* sequence) {
  auto it = std::find_if(running_.begin(), running_.end(),
                         [&](const auto& s) { return s.get() == sequence; });
  ReleaseBlocks(sequence);
  reserved_ -= static_cast<int64_t>(sequence->siblings.size());
  Forget(*sequence);
  running_.erase(it);
}

std::vector<uint32_t> Scheduler::Cancel(uint64_t request_id) {
  std::vector<uint32_t> samples;
  auto take = [&](const Sequence& sequence) {
    samples.push_back(sequence.sample);
    samples.insert(samples.end(), sequence.siblings.begin(), sequence.siblings.end());
  };
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->request->id != request_id) continue;
    take(*running_[i]);
    Finish(running_[i].get());
  }
  auto remove = [&](std::deque<std::unique_ptr<Sequence>>& queue) {
    size_t removed = 0;
    for (auto it = queue.begin(); it != queue.end();) {
      if ((*it)->request->id != request_id) {
        ++it;
        continue;
      }
      take(**it);
      // The client's entry, which may hold this queue, must outlive the loop.
      clients_.at((*it)->request->client).live -= Samples(**it);
      Leave(**it);
      it = queue.erase(it);
      ++removed;
    }
    return removed;
  };
  remove(preempted_);
  for (auto it = clients_.begin(); it != clients_.end();) {
    for (auto& queue : it->second.waiting) num_waiting_ -= remove(queue);
    it = it->second.live == 0 && !it->second.paused ? clients_.erase(it) : std::next(it);
  }
  return samples;
}

std::vector<std::pair<uint64_t, uint32_t>> Scheduler::CancelStarted() {
  std::vector<std::pair<uint64_t, uint32_t>> cancelled;
  while (!running_.empty()) Preempt(running_.size() - 1);
  for (const auto& sequence : preempted_) {
    cancelled.emplace_back(sequence->request->id, sequence->sample);
    for (uint32_t sibling : sequence->siblings)
      cancelled.emplace_back(sequence->request->id, sibling);
    Forget(*sequence);
  }
  preempted_.clear();
  return cancelled;
}

absl::Status Scheduler::CheckInvariants() const {
  std::vector<int32_t> held(static_cast<size_t>(blocks_.num_blocks()), 0);
  int64_t reserved = 0;
  for (const auto& sequence : running_) {
    reserved += static_cast<int64_t>(sequence->siblings.size());
    if (static_cast<int64_t>(sequence->block_table.size()) < BlocksFor(sequence->computed))
      return absl::InternalError("a block table is shorter than what is computed");
    for (int32_t block : sequence->block_table) ++held[static_cast<size_t>(block)];
  }
  for (const auto& sequence : preempted_) {
    if (!sequence->block_table.empty() || sequence->computed != 0)
      return absl::InternalError("a preempted sequence holds blocks");
  }
  if (reserved != reserved_) return absl::InternalError("reservations do not add up");
  int32_t unused = 0;
  for (int32_t b = 0; b < blocks_.num_blocks(); ++b) {
    if (blocks_.references(b) != held[static_cast<size_t>(b)]) {
      return absl::InternalError(absl::StrCat("block ", b, " has ", blocks_.references(b),
                                              " references, tables hold ",
                                              held[static_cast<size_t>(b)]));
    }
    unused += held[static_cast<size_t>(b)] == 0;
  }
  if (unused != blocks_.num_free()) return absl::InternalError("a block is lost");
  if (static_cast<int64_t>(running_.size()) + reserved_ > limits_.max_sequences)
    return absl::InternalError("more sequences run than may");
  return absl::OkStatus();
}

}  // namespace e3
