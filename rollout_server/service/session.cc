#include "rollout_server/service/session.h"

#include <algorithm>

#include "services/runtime/overlong.h"
#include "services/runtime/weight_version.h"

namespace e3 {
namespace {

v1::FinishReason ToProto(Finish finish) {
  switch (finish) {
    case Finish::kStop:
      return v1::FINISH_REASON_STOP;
    case Finish::kLength:
      return v1::FINISH_REASON_LENGTH;
    case Finish::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case Finish::kCut:
      return v1::FINISH_REASON_CUT;
    case Finish::kNone:
    case Finish::kBroken:  // a failure of the request
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void AppendTop(const std::vector<TopToken>& top, v1::GenerateReply::TopLogprobs* out) {
  for (const TopToken& t : top) {
    out->add_token_ids(t.token);
    out->add_logprobs(t.logprob);
  }
}

void Append(const SampleOutput& output, bool raw, const v1::WeightVersion& version,
            v1::GenerateReply::Chunk* chunk) {
  for (const OutputToken& t : output.tokens) {
    const int at = chunk->token_ids_size();
    // Spelled out from the first token on that differs.
    if (chunk->sampled_logprobs_size() == 0 && t.sampled_logprob != t.logprob)
      *chunk->mutable_sampled_logprobs() = chunk->logprobs();
    if (chunk->sampled_logprobs_size() > 0 || t.sampled_logprob != t.logprob)
      chunk->add_sampled_logprobs(t.sampled_logprob);
    chunk->add_token_ids(t.token);
    chunk->add_logprobs(t.logprob);
    chunk->add_entropies(t.entropy);
    if (raw) {
      chunk->add_raw_logprobs(t.raw_logprob);
      chunk->add_raw_entropies(t.raw_entropy);
    }
    if (t.forced) chunk->add_forced(static_cast<uint32_t>(at));
    // One a token from the first one that has them; forced tokens have none.
    if (!t.top.empty() || chunk->top_logprobs_size() > 0) {
      while (chunk->top_logprobs_size() < at) chunk->add_top_logprobs();
      AppendTop(t.top, chunk->add_top_logprobs());
    }
  }
  for (const OutputToken& t : output.prompt_tokens) {
    chunk->add_prompt_logprobs(t.logprob);
    if (!t.top.empty()) AppendTop(t.top, chunk->add_prompt_top_logprobs());
  }
  if (output.tokens.empty()) return;
  if (chunk->versions_size() == 0 || !SameVersion(chunk->versions().rbegin()->version(), version))
    *chunk->add_versions()->mutable_version() = version;
  auto* span = chunk->mutable_versions(chunk->versions_size() - 1);
  span->set_tokens(span->tokens() + static_cast<uint32_t>(output.tokens.size()));
}

// In tokens: alternatives that are reported with a token count, eight for one.
int64_t Cost(const SampleOutput& output) {
  int64_t cost = 0;
  auto add = [&](const OutputToken& t) {
    cost += 1 + (static_cast<int64_t>(t.top.size()) + 7) / 8;
  };
  for (const OutputToken& t : output.tokens) add(t);
  for (const OutputToken& t : output.prompt_tokens) add(t);
  return cost;
}
constexpr int64_t kFailureCost = 64;

}  // namespace

bool RolloutSession::Ask(uint64_t ticket, const v1::GenerateRequest::Start& start) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ticket != ticket_) return false;
  // An id that is live already is refused when it is submitted; what it means stays.
  asked_.try_emplace(start.request_id(), Asked{start.budget(),
                                               start.soft_overlong_tokens(),
                                               start.response_prefix_size(),
                                               std::max<int64_t>(1, start.n()),
                                               start.sampling().raw_logprobs(),
                                               {}});
  return true;
}

void RolloutSession::OnOutput(uint64_t request_id, SampleOutput output,
                              const v1::WeightVersion& version) {
  std::lock_guard<std::mutex> lock(mutex_);
  Growing& growing = chunks_[{request_id, output.sample}];
  v1::GenerateReply::Chunk& chunk = growing.chunk;
  auto it = asked_.find(request_id);
  Append(output, it != asked_.end() && it->second.raw, version, &chunk);
  const int64_t cost = Cost(output);
  growing.cost += cost;
  window_.Add(cost);
  if (it != asked_.end()) {
    Asked& asked = it->second;
    int64_t& length = asked.lengths.try_emplace(output.sample, asked.prefix).first->second;
    length += static_cast<int64_t>(output.tokens.size());
    if (output.finish != Finish::kNone) {
      chunk.set_overlong(static_cast<float>(Overlong(length, asked.budget, asked.soft_overlong)));
      if (--asked.unfinished == 0) asked_.erase(it);
    }
  }
  if (output.finish != Finish::kNone || chunk.token_ids_size() >= kChunkTokens) {
    chunk.set_finish_reason(ToProto(output.finish));
    NumberChunk({request_id, output.sample}, std::move(growing));
    chunks_.erase({request_id, output.sample});
    urgent_ = true;
  }
  // With a full window nothing more comes until the client has this.
  urgent_ = urgent_ || window_.full();
  if (urgent_) ready_.notify_all();
}

void RolloutSession::OnFailure(uint64_t request_id, const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  // The tokens that were made come first.
  for (auto it = chunks_.lower_bound({request_id, 0});
       it != chunks_.end() && it->first.first == request_id;) {
    NumberChunk(it->first, std::move(it->second));
    it = chunks_.erase(it);
  }
  asked_.erase(request_id);
  v1::GenerateReply reply;
  reply.mutable_failure()->set_request_id(request_id);
  reply.mutable_failure()->set_code(static_cast<int>(status.code()));
  reply.mutable_failure()->set_message(std::string(status.message()));
  window_.Add(kFailureCost);
  Number(std::move(reply), kFailureCost);
  urgent_ = true;
  ready_.notify_all();
}

void RolloutSession::Number(v1::GenerateReply reply, int64_t cost) {
  reply.set_number(++numbered_);
  replies_.push_back({std::move(reply), cost});
}

void RolloutSession::NumberChunk(const ChunkKey& key, Growing growing) {
  v1::GenerateReply reply;
  *reply.mutable_chunk() = std::move(growing.chunk);
  reply.mutable_chunk()->set_request_id(key.first);
  reply.mutable_chunk()->set_sample(key.second);
  Number(std::move(reply), growing.cost);
}

bool RolloutSession::full() {
  std::lock_guard<std::mutex> lock(mutex_);
  return window_.PauseIfFull();
}

bool RolloutSession::flooded() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return window_.flooded();
}

bool RolloutSession::CanResume(uint64_t received) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return received >= forgotten_ && received <= numbered_;
}

uint64_t RolloutSession::Attach(uint64_t received, std::set<uint64_t>* known) {
  std::lock_guard<std::mutex> lock(mutex_);
  Forget(received);
  sent_ = 0;
  if (known != nullptr) {
    for (const auto& [id, asked] : asked_) known->insert(id);
    for (const auto& [reply, cost] : replies_) {
      known->insert(reply.has_failure() ? reply.failure().request_id()
                                        : reply.chunk().request_id());
    }
  }
  ready_.notify_all();
  return ++ticket_;
}

bool RolloutSession::Owns(uint64_t ticket) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return ticket == ticket_;
}

bool RolloutSession::Leave(uint64_t ticket) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ticket != ticket_) return false;
  ++ticket_;
  ready_.notify_all();
  return true;
}

std::vector<v1::GenerateReply> RolloutSession::Take(uint64_t ticket, bool* over) {
  std::unique_lock<std::mutex> lock(mutex_);
  ready_.wait_for(lock, kChunkDelay, [&] {
    return urgent_ || closed_ || ticket != ticket_ || sent_ < replies_.size();
  });
  std::vector<v1::GenerateReply> taken;
  *over = ticket != ticket_;
  if (*over) return taken;
  for (auto& [key, growing] : chunks_) NumberChunk(key, std::move(growing));
  chunks_.clear();
  for (; sent_ < replies_.size(); ++sent_) taken.push_back(replies_[sent_].reply);
  urgent_ = false;
  *over = closed_ && taken.empty();
  return taken;
}

void RolloutSession::Forget(uint64_t number) {
  int64_t cost = 0;
  while (!replies_.empty() && replies_.front().reply.number() <= number) {
    cost += replies_.front().cost;
    forgotten_ = replies_.front().reply.number();
    replies_.pop_front();
    if (sent_ > 0) --sent_;
  }
  if (window_.Remove(cost)) engine_->Resume(this);
}

void RolloutSession::Written(uint64_t number) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!acknowledged_) Forget(number);
}

void RolloutSession::Acknowledge(uint64_t received) {
  std::lock_guard<std::mutex> lock(mutex_);
  Forget(received);
}

void RolloutSession::StopAcknowledging() {
  std::lock_guard<std::mutex> lock(mutex_);
  acknowledged_ = false;
  if (sent_ > 0) Forget(replies_[sent_ - 1].reply.number());
}

void RolloutSession::Close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  ready_.notify_all();
}

}  // namespace e3
