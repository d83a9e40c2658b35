// A language model without weights, for tests of everything around the model.
#ifndef E3_TESTS_ROLLOUT_SERVER_HASHING_RUNNER_H_
#define E3_TESTS_ROLLOUT_SERVER_HASHING_RUNNER_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <vector>

#include "model/attention_kernel.h"
#include "rollout_server/engine.h"
#include "services/runtime/philox.h"

namespace e3 {

inline constexpr int64_t kVocab = 29;
inline constexpr uint32_t kEos = 7;

// Catch2's assertions are not for several threads.
inline void Must(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "not so: " << what << std::endl;
  abort();
}

// What follows depends on every token before and on the weights that its place in the cache was
// computed with, which it finds through the block tables as a real one does. So a wrong block, a
// missing copy, a lost token or keys of old weights show as other text.
class HashingRunner final : public ModelRunner {
 public:
  explicit HashingRunner(int32_t num_blocks)
      : cache_(static_cast<size_t>(num_blocks * kKvBlockRows), ~0ull) {}
  int64_t vocab_size() const override { return kVocab; }
  const float* Run(const Batch& batch) override {
    for (const BlockCopy& copy : batch.copies) {
      std::copy_n(cache_.begin() + copy.from * kKvBlockRows, kKvBlockRows,
                  cache_.begin() + copy.to * kKvBlockRows);
    }
    for (size_t i = 0; i < batch.token_ids.size(); ++i) {
      cache_[static_cast<size_t>(batch.slots[i])] =
          Entry(static_cast<uint64_t>(batch.token_ids[i]), batch.positions[i], weights_);
    }
    logits_.clear();
    for (int64_t row : batch.logit_rows) {
      const int32_t* table = batch.block_tables[static_cast<size_t>(row)];
      std::vector<uint64_t> entries;
      for (int64_t p = 0; p <= batch.positions[static_cast<size_t>(row)]; ++p) {
        uint64_t entry =
            cache_[static_cast<size_t>(table[p / kKvBlockRows] * kKvBlockRows + p % kKvBlockRows)];
        Must(entry % 1000 == static_cast<uint64_t>(p) % 1000,
             "the token at a place is of that place");
        entries.push_back(entry);
      }
      for (float logit : Logits(entries, weights_)) logits_.push_back(logit);
    }
    tokens_ += static_cast<int64_t>(batch.token_ids.size());
    largest_ = std::max(largest_, static_cast<int64_t>(batch.token_ids.size()));
    return logits_.data();
  }
  int64_t largest() const { return largest_; }
  // Of the steps from now on.
  void SetWeights(uint64_t weights) { weights_ = weights; }

  // What the cache holds of a token, and what follows given all that it holds.
  static uint64_t Entry(uint64_t token, int64_t position, uint64_t weights) {
    return weights * 1000000 + token * 1000 + static_cast<uint64_t>(position);
  }
  static std::vector<float> Logits(const std::vector<uint64_t>& entries, uint64_t weights) {
    uint64_t hash = weights;
    for (uint64_t entry : entries) hash = DeriveSeed(hash, entry);
    std::vector<float> logits;
    for (uint64_t v = 0; v < kVocab; ++v)
      logits.push_back(static_cast<float>(4 * UniformDouble(hash, v, 0)));
    return logits;
  }

 private:
  uint64_t weights_ = 1;
  std::vector<uint64_t> cache_;
  std::vector<float> logits_;
  int64_t tokens_ = 0, largest_ = 0;
};

inline RolloutRequest RandomRequest(uint64_t id, PhiloxStream& random) {
  RolloutRequest r;
  r.id = id;
  for (int64_t i = random.Between(1, 70); i > 0; --i)
    r.prompt.push_back(static_cast<uint32_t>(random.Below(kVocab)));
  r.n = random.Between(1, 5);
  r.budget = random.Between(1, 60);
  r.seed = id * 31;
  return r;
}

// What each sample of a request gives when nothing else runs and memory is plenty.
inline std::map<uint32_t, std::vector<uint32_t>> Alone(RolloutRequest request,
                                                       uint64_t weights = 1) {
  HashingRunner runner(400);
  runner.SetWeights(weights);
  EngineLimits limits;
  limits.num_blocks = 400;
  limits.context_length = 900;
  limits.eos_token_ids = {kEos};
  Engine engine(limits, &runner);
  Must(engine.Add(std::move(request)).ok(), "the request is accepted");
  std::map<uint32_t, std::vector<uint32_t>> texts;
  while (!engine.idle()) {
    for (const SampleOutput& o : engine.Step()) {
      for (const OutputToken& token : o.tokens) texts[o.sample].push_back(token.token);
    }
  }
  return texts;
}

}  // namespace e3

#endif  // E3_TESTS_ROLLOUT_SERVER_HASHING_RUNNER_H_
