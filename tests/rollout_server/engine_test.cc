#include "rollout_server/engine.h"

#include <catch2/catch.hpp>
#include <map>

#include "model/attention_kernel.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

constexpr int64_t kVocab = 29;
constexpr uint32_t kEos = 7;

// A language model without weights: what follows depends on every token before, which it finds
// through the block tables as a real one does. So a wrong block, a missing copy or a lost token
// shows as other text.
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
          static_cast<uint64_t>(batch.token_ids[i] * 1000 + batch.positions[i]);
    }
    logits_.clear();
    for (int64_t row : batch.logit_rows) {
      const int32_t* table = batch.block_tables[static_cast<size_t>(row)];
      uint64_t hash = 1;
      for (int64_t p = 0; p <= batch.positions[static_cast<size_t>(row)]; ++p) {
        uint64_t entry =
            cache_[static_cast<size_t>(table[p / kKvBlockRows] * kKvBlockRows + p % kKvBlockRows)];
        REQUIRE(entry % 1000 ==
                static_cast<uint64_t>(p) % 1000);  // the token at this place is of this place
        hash = DeriveSeed(hash, entry);
      }
      for (int64_t v = 0; v < kVocab; ++v)
        logits_.push_back(static_cast<float>(4 * UniformDouble(hash, static_cast<uint64_t>(v), 0)));
    }
    tokens_ += static_cast<int64_t>(batch.token_ids.size());
    largest_ = std::max(largest_, static_cast<int64_t>(batch.token_ids.size()));
    return logits_.data();
  }
  int64_t largest() const { return largest_; }

 private:
  std::vector<uint64_t> cache_;
  std::vector<float> logits_;
  int64_t tokens_ = 0, largest_ = 0;
};

EngineLimits Limits(int32_t blocks, int64_t max_sequences = 64, int64_t max_tokens = 128) {
  EngineLimits limits;
  limits.scheduler = {max_sequences, max_tokens};
  limits.num_blocks = blocks;
  limits.context_length = 900;
  limits.eos_token_ids = {kEos};
  return limits;
}

RolloutRequest Request(uint64_t id, PhiloxStream& random) {
  RolloutRequest r;
  r.id = id;
  for (int64_t i = random.Between(1, 70); i > 0; --i)
    r.prompt.push_back(static_cast<uint32_t>(random.Below(kVocab)));
  r.n = random.Between(1, 5);
  r.budget = random.Between(1, 60);
  r.seed = id * 31;
  return r;
}

using Texts = std::map<std::pair<uint64_t, uint32_t>, std::vector<uint32_t>>;

void Collect(const std::vector<TokenOutput>& outputs, Texts* texts,
             std::map<std::pair<uint64_t, uint32_t>, Finish>* finished) {
  for (const TokenOutput& o : outputs) {
    (*texts)[{o.request_id, o.sample}].push_back(o.token);
    REQUIRE(finished->count({o.request_id, o.sample}) == 0);
    if (o.finish != Finish::kNone) (*finished)[{o.request_id, o.sample}] = o.finish;
  }
}

// What a request gives when nothing else runs and memory is plenty.
Texts Alone(const RolloutRequest& request) {
  HashingRunner runner(400);
  Engine engine(Limits(400), &runner);
  REQUIRE(engine.Add(request).ok());
  Texts texts;
  std::map<std::pair<uint64_t, uint32_t>, Finish> finished;
  while (!engine.idle()) Collect(engine.Step(), &texts, &finished);
  return texts;
}

TEST_CASE("rollouts do not depend on what else runs, on preemption, or on the size of steps") {
  PhiloxStream random(11);
  std::vector<RolloutRequest> requests;
  Texts expected;
  for (uint64_t id = 1; id <= 60; ++id) {
    requests.push_back(Request(id, random));
    expected.merge(Alone(requests.back()));
  }
  for (auto [blocks, max_sequences, max_tokens] :
       {std::tuple<int32_t, int64_t, int64_t>{400, 64, 128},
        {40, 64, 128},
        {22, 8, 16},
        {400, 5, 7}}) {
    HashingRunner runner(blocks);
    Engine engine(Limits(blocks, max_sequences, max_tokens), &runner);
    Texts texts;
    std::map<std::pair<uint64_t, uint32_t>, Finish> finished;
    size_t next = 0;
    while (next < requests.size() || !engine.idle()) {
      if (next < requests.size()) REQUIRE(engine.Add(requests[next++]).ok());
      Collect(engine.Step(), &texts, &finished);
    }
    CHECK(texts == expected);
    CHECK(finished.size() == expected.size());
    CHECK(engine.scheduler().blocks().num_free() == blocks);
    CHECK(runner.largest() <= max_tokens);
    if (blocks <= 40) CHECK(engine.scheduler().num_preempted() > 0);
    for (const auto& [key, finish] : finished) {
      CHECK((finish == Finish::kStop) == (texts[key].back() == kEos));
      if (finish == Finish::kLength)
        CHECK(static_cast<int64_t>(texts[key].size()) == requests[key.first - 1].budget);
    }
  }
}

TEST_CASE("a rollout goes on from its first tokens as if it had not stopped") {
  PhiloxStream random(12);
  for (uint64_t id = 1; id <= 20; ++id) {
    RolloutRequest request = Request(id, random);
    for (const auto& [key, tokens] : Alone(request)) {
      if (tokens.size() < 2) continue;
      RolloutRequest resumed = request;
      resumed.n = 1;
      resumed.first_sample = key.second;
      size_t k = 1 + static_cast<size_t>(random.Below(static_cast<int64_t>(tokens.size()) - 1));
      resumed.response_prefix.assign(tokens.begin(),
                                     tokens.begin() + static_cast<std::ptrdiff_t>(k));
      std::vector<uint32_t> rest = Alone(resumed)[{id, 0}];
      CHECK(rest ==
            std::vector<uint32_t>(tokens.begin() + static_cast<std::ptrdiff_t>(k), tokens.end()));
    }
  }
}

TEST_CASE("random requests and cancellations leak nothing and starve nobody") {
  PhiloxStream random(13);
  HashingRunner runner(60);
  Engine engine(Limits(60, 24, 48), &runner);
  std::map<uint64_t, int64_t> open;  // samples that have not ended
  uint64_t next = 1;
  for (int step = 0; step < 20000; ++step) {
    if (random.Uniform() < 0.15 && open.size() < 40) {
      RolloutRequest request = Request(next, random);
      REQUIRE(engine.Add(request).ok());
      open[next++] = request.n;
    }
    if (random.Uniform() < 0.03 && !open.empty()) {
      auto it = std::next(open.begin(), random.Below(static_cast<int64_t>(open.size())));
      CHECK(static_cast<int64_t>(engine.Cancel(it->first).size()) == it->second);
      open.erase(it);
    }
    if (random.Uniform() < 0.01) engine.RecomputeAll();
    for (const TokenOutput& o : engine.Step()) {
      REQUIRE(open.count(o.request_id) == 1);
      if (o.finish != Finish::kNone && --open[o.request_id] == 0) open.erase(o.request_id);
    }
  }
  for (int step = 0; step < 20000 && !engine.idle(); ++step) {
    for (const TokenOutput& o : engine.Step()) {
      if (o.finish != Finish::kNone && --open[o.request_id] == 0) open.erase(o.request_id);
    }
  }
  CHECK(engine.idle());
  CHECK(open.empty());
  CHECK(engine.scheduler().blocks().num_free() == 60);
}

TEST_CASE("requests that cannot run are refused") {
  HashingRunner runner(60);
  Engine engine(Limits(60), &runner);
  auto refuse = [&](auto change) {
    RolloutRequest r;
    r.prompt = {1, 2, 3};
    r.budget = 5;
    change(r);
    return engine.Add(r);
  };
  CHECK(refuse([](RolloutRequest&) {}).ok());
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.prompt.clear(); })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.budget = 0; })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.n = 65; })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.prompt = {1, 29}; })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.sampling.top_p = 1.5; })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) { r.sampling.temperature = -1; })));
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) {
    r.response_prefix = {1, 2, 3, 4, 5};
  })));
  CHECK(absl::IsOutOfRange(refuse([](RolloutRequest& r) { r.budget = 898; })));
  CHECK(std::string(refuse([](RolloutRequest& r) { r.budget = 898; }).message())
            .find("context of 900") != std::string::npos);
}

}  // namespace
}  // namespace e3
