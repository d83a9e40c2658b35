#include "rollout_server/engine.h"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "services/runtime/philox.h"
#include "tests/rollout_server/hashing_runner.h"

namespace e3 {
namespace {

EngineLimits Limits(int32_t blocks, int64_t max_sequences = 64, int64_t max_tokens = 128) {
  EngineLimits limits;
  limits.scheduler.max_sequences = max_sequences;
  limits.scheduler.max_batch_tokens = max_tokens;
  limits.num_blocks = blocks;
  limits.context_length = 900;
  limits.eos_token_ids = {kEos};
  return limits;
}

using Texts = std::map<std::pair<uint64_t, uint32_t>, std::vector<uint32_t>>;

void Collect(const std::vector<SampleOutput>& outputs, Texts* texts,
             std::map<std::pair<uint64_t, uint32_t>, Finish>* finished) {
  for (const SampleOutput& o : outputs) {
    for (const OutputToken& token : o.tokens)
      (*texts)[{o.request_id, o.sample}].push_back(token.token);
    REQUIRE(finished->count({o.request_id, o.sample}) == 0);
    if (o.finish != Finish::kNone) (*finished)[{o.request_id, o.sample}] = o.finish;
  }
}

// What a request gives when nothing else runs, under its own name.
Texts AloneByRequest(const RolloutRequest& request) {
  Texts texts;
  for (auto& [sample, tokens] : Alone(request)) texts[{request.id, sample}] = tokens;
  return texts;
}

TEST_CASE("rollouts do not depend on what else runs, on preemption, or on the size of steps") {
  PhiloxStream random(11);
  std::vector<RolloutRequest> requests;
  Texts expected;
  for (uint64_t id = 1; id <= 60; ++id) {
    requests.push_back(RandomRequest(id, random));
    expected.merge(AloneByRequest(requests.back()));
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
    if (blocks <= 40) CHECK(engine.scheduler().counters().preempted > 0);
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
    RolloutRequest request = RandomRequest(id, random);
    for (const auto& [key, tokens] : AloneByRequest(request)) {
      if (tokens.size() < 2) continue;
      RolloutRequest resumed = request;
      resumed.n = 1;
      resumed.first_sample = key.second;
      size_t k = 1 + static_cast<size_t>(random.Below(static_cast<int64_t>(tokens.size()) - 1));
      resumed.response_prefix.assign(tokens.begin(),
                                     tokens.begin() + static_cast<std::ptrdiff_t>(k));
      std::vector<uint32_t> rest = Alone(resumed)[0];
      CHECK(rest ==
            std::vector<uint32_t>(tokens.begin() + static_cast<std::ptrdiff_t>(k), tokens.end()));
    }
  }
}

TEST_CASE("100,000 random operations leak nothing, lose nothing and starve nobody") {
  PhiloxStream random(13);
  HashingRunner runner(60);
  EngineLimits limits = Limits(60, 24, 48);
  limits.scheduler.aging_steps = 50;
  Engine engine(limits, &runner);
  // The model: what is open, how many samples of it, and how many tokens each has.
  struct Open {
    RolloutRequest request;
    int64_t samples;
    int64_t waited;  // steps since the last token or the arrival in which it might have run
    std::map<uint32_t, std::vector<uint32_t>> tokens;
  };
  std::map<uint64_t, Open> open;
  std::set<uint64_t> paused;
  uint64_t next = 1;
  int64_t longest_wait = 0, compared = 0;
  bool draining = false;
  std::vector<RolloutRequest> common;
  for (int i = 0; i < 5; ++i) common.push_back(RandomRequest(1000000 + i, random));
  auto take = [&](const std::vector<SampleOutput>& outputs) {
    for (const SampleOutput& o : outputs) {
      auto it = open.find(o.request_id);
      REQUIRE(it != open.end());
      Open& entry = it->second;
      REQUIRE(paused.count(entry.request.client) == 0);
      entry.waited = 0;
      for (const OutputToken& token : o.tokens) entry.tokens[o.sample].push_back(token.token);
      if (o.finish == Finish::kNone || --entry.samples > 0) continue;
      if (o.request_id % 10 == 0) {
        REQUIRE(entry.tokens == Alone(entry.request));
        ++compared;
      }
      open.erase(it);
    }
    for (auto& [id, o] : open) {
      if (draining || paused.count(o.request.client) > 0) continue;
      longest_wait = std::max(longest_wait, ++o.waited);
    }
  };
  auto any_open = [&] {
    return std::next(open.begin(), random.Below(static_cast<int64_t>(open.size())));
  };
  for (int operation = 0; operation < 100000; ++operation) {
    const double dice = random.Uniform();
    if (dice < 0.12) {
      if (open.size() >= 40) continue;
      RolloutRequest request = RandomRequest(next, random);
      if (random.Uniform() < 0.5)  // a prompt, or the beginning of one, that others have too
        request.prompt = common[static_cast<size_t>(random.Below(5))].prompt;
      request.client = static_cast<uint64_t>(random.Below(4));
      request.account = request.client / 2;
      if (random.Uniform() < 0.3) request.priority = Priority::kEvaluation;
      request.prompt_logprobs = random.Uniform() < 0.1;
      REQUIRE(engine.Add(request).ok());
      const int64_t n = request.n;
      open[next++] = {std::move(request), n, 0, {}};
    } else if (dice < 0.14 && !open.empty()) {
      auto it = any_open();
      CHECK(static_cast<int64_t>(engine.Cancel(it->first).size()) == it->second.samples);
      open.erase(it);
    } else if (dice < 0.145) {
      engine.WeightsChanged(random.Uniform() < 0.5);
    } else if (dice < 0.155) {
      const uint64_t client = static_cast<uint64_t>(random.Below(4));
      const bool pause = paused.count(client) == 0;
      engine.SetPaused(client, pause);
      pause ? (void)paused.insert(client) : (void)paused.erase(client);
    } else if (dice < 0.157) {
      draining = !draining;
      engine.SetDraining(draining);
    } else if (dice < 0.158) {
      for (const SampleOutput& o : engine.Cut()) {
        REQUIRE(o.finish == Finish::kCut);
        if (--open.at(o.request_id).samples == 0) open.erase(o.request_id);
      }
    } else {
      take(engine.Step());
    }
    if (operation % 8 == 0) {
      absl::Status invariants = engine.scheduler().CheckInvariants();
      REQUIRE(invariants == absl::OkStatus());
    }
  }
  draining = false;
  engine.SetDraining(false);
  for (uint64_t client : paused) engine.SetPaused(client, false);
  paused.clear();
  for (int step = 0; step < 20000 && !engine.idle(); ++step) take(engine.Step());
  CHECK(engine.idle());
  CHECK(engine.scheduler().empty());
  CHECK(open.empty());
  CHECK(engine.scheduler().CheckInvariants() == absl::OkStatus());
  CHECK(engine.scheduler().blocks().num_free() == 60);
  CHECK(engine.scheduler().counters().prefix_hit_tokens > 0);
  CHECK(compared > 500);
  // 40 requests of at most 5 x 60 tokens, of which the cache holds eight or so at a time.
  CHECK(longest_wait < 40 / 8 * 60 * 2);
}

// Runs until idle; the order in which samples finish.
std::vector<uint64_t> FinishingOrder(Engine& engine) {
  std::vector<uint64_t> order;
  while (!engine.idle()) {
    for (const SampleOutput& o : engine.Step()) {
      if (o.finish != Finish::kNone) order.push_back(o.request_id);
    }
  }
  return order;
}

RolloutRequest OfLength(uint64_t id, int64_t prompt, int64_t budget) {
  RolloutRequest r;
  r.id = id;
  for (int64_t i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<uint32_t>((id + i * i) % 29));
  r.budget = budget;
  r.sampling.logit_bias = {{kEos, -100.f}};  // never stops by itself
  return r;
}

TEST_CASE("clients share the engine, whoever asks for more") {
  HashingRunner runner(400);
  Engine engine(Limits(400, 1), &runner);
  for (uint64_t id = 1; id <= 20; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.account = r.client = 1;
    REQUIRE(engine.Add(r).ok());
  }
  engine.Step();
  for (uint64_t id = 101; id <= 105; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.account = r.client = 2;
    REQUIRE(engine.Add(r).ok());
  }
  std::vector<uint64_t> order = FinishingOrder(engine);
  // The late client's five are done among the first eleven, not after the other's twenty.
  auto last = std::find(order.begin(), order.end(), 105u);
  CHECK(last - order.begin() <= 11);
}

TEST_CASE("who comes back again and again gets a share, not more") {
  HashingRunner runner(400);
  Engine engine(Limits(400, 1), &runner);
  for (uint64_t id = 1; id <= 40; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.account = 1;
    REQUIRE(engine.Add(r).ok());
  }
  // One request after the other, each of a client that was not there before.
  uint64_t next = 101;
  auto again = [&] {
    RolloutRequest r = OfLength(next, 10, 10);
    r.account = 2;
    r.client = next++;
    REQUIRE(engine.Add(r).ok());
  };
  again();
  int standing = 0;
  while (next < 120) {
    for (const SampleOutput& o : engine.Step()) {
      if (o.finish == Finish::kNone) continue;
      o.request_id > 100 ? again() : (void)++standing;
    }
  }
  CHECK(standing >= 17);
}

TEST_CASE("a stream of newcomers does not shut out who waits") {
  HashingRunner runner(400);
  Engine engine(Limits(400, 1), &runner);
  for (uint64_t id = 1; id <= 40; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.account = r.client = 1;
    REQUIRE(engine.Add(r).ok());
  }
  uint64_t next = 101;
  auto newcomer = [&] {
    RolloutRequest r = OfLength(next, 10, 10);
    r.account = r.client = next++;
    REQUIRE(engine.Add(r).ok());
  };
  newcomer();
  newcomer();  // two wait at any time
  int standing = 0;
  while (next < 161) {
    for (const SampleOutput& o : engine.Step()) {
      if (o.finish == Finish::kNone) continue;
      o.request_id > 100 ? newcomer() : (void)++standing;
    }
  }
  CHECK(standing >= 25);  // a third of all would be 30
}

TEST_CASE("a request that needs much of the cache is not overtaken for ever") {
  HashingRunner runner(40);
  Engine engine(Limits(40, 16), &runner);
  uint64_t next = 1;
  auto small = [&] {
    RolloutRequest r = OfLength(next, 30, 30);
    r.account = r.client = next++;
    REQUIRE(engine.Add(r).ok());
  };
  for (int i = 0; i < 12; ++i) small();
  engine.Step();
  RolloutRequest large = OfLength(5000, 500, 10);
  large.account = large.client = 5000;
  REQUIRE(engine.Add(large).ok());
  bool done = false;
  for (int step = 0; step < 300 && !done; ++step) {
    small();  // newcomers, who had nothing yet, all the time
    for (const SampleOutput& o : engine.Step())
      done = done || (o.request_id == 5000 && o.finish != Finish::kNone);
  }
  CHECK(done);
}

TEST_CASE("evaluation that has aged leaves training its share") {
  HashingRunner runner(400);
  EngineLimits limits = Limits(400, 1);
  limits.scheduler.aging_steps = 5;
  Engine engine(limits, &runner);
  for (uint64_t id = 1; id <= 60; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.priority = Priority::kEvaluation;
    r.account = 1;
    r.client = id;
    REQUIRE(engine.Add(r).ok());
  }
  for (int step = 0; step < 50; ++step) engine.Step();  // all have aged by now
  for (uint64_t id = 101; id <= 120; ++id) {
    RolloutRequest r = OfLength(id, 10, 10);
    r.account = 2;
    REQUIRE(engine.Add(r).ok());
  }
  int training = 0;
  std::vector<uint64_t> order = FinishingOrder(engine);
  for (size_t i = 0; i < 30; ++i) training += order[i] > 100;
  CHECK(training >= 14);
}

TEST_CASE("evaluation waits for training, but not for ever") {
  for (auto [aging, expected_first] : {std::pair<int64_t, bool>{1000000, false}, {5, true}}) {
    HashingRunner runner(400);
    EngineLimits limits = Limits(400, 1);
    limits.scheduler.aging_steps = aging;
    Engine engine(limits, &runner);
    RolloutRequest evaluation = OfLength(500, 10, 10);
    evaluation.priority = Priority::kEvaluation;
    REQUIRE(engine.Add(OfLength(1, 10, 10)).ok());
    REQUIRE(engine.Add(evaluation).ok());
    for (uint64_t id = 2; id <= 10; ++id) REQUIRE(engine.Add(OfLength(id, 10, 10)).ok());
    std::vector<uint64_t> order = FinishingOrder(engine);
    // Behind the one that ran, and the one that was chosen before it had aged.
    const bool early = order[1] == 500 || order[2] == 500;
    CHECK(early == expected_first);
    if (!expected_first) CHECK(order.back() == 500);
  }
}

TEST_CASE("decoding goes on while a long prompt is computed") {
  HashingRunner runner(400);
  Engine engine(Limits(400, 64, 16), &runner);
  REQUIRE(engine.Add(OfLength(1, 4, 100)).ok());
  engine.Step();
  REQUIRE(engine.Add(OfLength(2, 300, 5)).ok());
  for (int step = 0; step < 15; ++step) {
    std::vector<SampleOutput> outputs = engine.Step();
    REQUIRE(outputs.size() == 1);  // a token of request 1 in every step
    CHECK(outputs[0].request_id == 1);
    CHECK(engine.last_step().prefill_tokens == 15);
  }
}

TEST_CASE("prompts that were computed before are taken from the cache, until the weights change") {
  HashingRunner runner(400);
  Engine engine(Limits(400), &runner);
  auto hits = [&](uint64_t id) {
    const uint64_t before = engine.scheduler().counters().prefix_hit_tokens;
    RolloutRequest r = OfLength(1, 100, 5);  // the same tokens each time
    r.id = id;
    REQUIRE(engine.Add(r).ok());
    FinishingOrder(engine);
    return engine.scheduler().counters().prefix_hit_tokens - before;
  };
  CHECK(hits(1) == 0);
  CHECK(hits(2) == 96);  // six full blocks
  engine.WeightsChanged(false);
  CHECK(hits(3) == 0);
  CHECK(hits(4) == 96);
  // A sequence that ran over a change of weights leaves nothing behind.
  REQUIRE(engine.Add(OfLength(7, 64, 40)).ok());
  engine.Step();
  engine.WeightsChanged(false);
  FinishingOrder(engine);
  const uint64_t before = engine.scheduler().counters().prefix_hit_tokens;
  RolloutRequest again = OfLength(7, 64, 40);
  again.id = 8;
  REQUIRE(engine.Add(again).ok());
  FinishingOrder(engine);
  CHECK(engine.scheduler().counters().prefix_hit_tokens == before);
}

TEST_CASE("a paused client gets no steps, and gives way when others need its blocks") {
  HashingRunner runner(12);
  Engine engine(Limits(12), &runner);
  RolloutRequest slow = OfLength(1, 64, 100), other = OfLength(2, 100, 20);
  slow.client = 1;
  other.client = 2;
  Texts expected = AloneByRequest(slow);
  expected.merge(AloneByRequest(other));
  Texts texts;
  std::map<std::pair<uint64_t, uint32_t>, Finish> finished;
  REQUIRE(engine.Add(slow).ok());
  for (int i = 0; i < 30; ++i) Collect(engine.Step(), &texts, &finished);
  engine.SetPaused(1, true);
  const size_t tokens = texts[{1, 0}].size();
  CHECK(engine.idle());
  REQUIRE(engine.Add(other).ok());
  while (!engine.idle()) Collect(engine.Step(), &texts, &finished);
  CHECK(finished.count({2, 0}) == 1);
  CHECK(texts[{1, 0}].size() == tokens);
  CHECK(engine.scheduler().counters().preempted > 0);
  engine.SetPaused(1, false);
  while (!engine.idle()) Collect(engine.Step(), &texts, &finished);
  CHECK(texts == expected);
}

TEST_CASE("budget forcing extends a response, and a forced response resumes anywhere") {
  HashingRunner runner(400);
  RolloutRequest r = OfLength(1, 10, 120);
  r.sampling.logit_bias.clear();
  r.forcing.extensions = 3;
  r.forcing.extension_tokens = 20;
  r.forcing.end_tokens = {11, kEos};
  r.forcing.prefixes = {{1, 2}, {3}};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    r.seed = seed;
    std::vector<uint32_t> tokens;
    std::vector<bool> forced;
    auto run = [&](const RolloutRequest& request) {
      Engine engine(Limits(400), &runner);
      REQUIRE(engine.Add(request).ok());
      Finish finish = Finish::kNone;
      while (!engine.idle()) {
        for (const SampleOutput& o : engine.Step()) {
          for (const OutputToken& token : o.tokens) {
            tokens.push_back(token.token);
            forced.push_back(token.forced);
            if (token.forced) CHECK(token.logprob == 0);
          }
          finish = o.finish;
        }
      }
      return finish;
    };
    const Finish finish = run(r);
    // Three prefixes in rotation; end tokens only after the last.
    std::vector<uint32_t> prefixes;
    size_t last_forced = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!forced[i]) continue;
      prefixes.push_back(tokens[i]);
      last_forced = i;
    }
    CHECK(prefixes == std::vector<uint32_t>{1, 2, 3, 1, 2});
    for (size_t i = 0; i < last_forced; ++i) CHECK((tokens[i] != 11 && tokens[i] != kEos));
    CHECK((finish == Finish::kLength ? tokens.size() == 120 : tokens.back() == kEos));
    // From every length of what it has.
    const std::vector<uint32_t> whole = tokens;
    const std::vector<bool> whole_forced = forced;
    for (size_t k = 1; k < whole.size(); ++k) {
      RolloutRequest resumed = r;
      resumed.response_prefix.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(k));
      resumed.prefix_forced.assign(whole_forced.begin(),
                                   whole_forced.begin() + static_cast<std::ptrdiff_t>(k));
      tokens = resumed.response_prefix;
      forced = resumed.prefix_forced;
      run(resumed);
      REQUIRE(tokens == whole);
      REQUIRE(forced == whole_forced);
    }
    RolloutRequest wrong = r;
    wrong.response_prefix = {5, 1};
    wrong.prefix_forced = {false, false};
    Engine engine(Limits(400), &runner);
    CHECK(engine.Add(wrong).ok());
    wrong.prefix_forced = {true, false};
    CHECK(absl::IsInvalidArgument(engine.Add(wrong)));
    wrong.prefix_forced = {true};
    CHECK(absl::IsInvalidArgument(engine.Add(wrong)));
  }
}

TEST_CASE("stop strings end a response where their last character is, minimum tokens before") {
  HashingRunner runner(400);
  EngineLimits limits = Limits(400);
  limits.decode = [](const std::vector<uint32_t>& tokens) {
    std::string text;
    for (uint32_t token : tokens) text += static_cast<char>('a' + token % 26);
    return text;
  };
  RolloutRequest r = OfLength(1, 10, 200);
  const std::vector<uint32_t> whole = Alone(r)[0];
  const std::string text = limits.decode(whole);
  r.stop_strings = {text.substr(50, 3), "zzzzzzzz"};
  const size_t expected = text.find(r.stop_strings[0]) + 3;
  auto run = [&](const RolloutRequest& request) {
    Engine engine(limits, &runner);
    REQUIRE(engine.Add(request).ok());
    Texts texts;
    std::map<std::pair<uint64_t, uint32_t>, Finish> finished;
    while (!engine.idle()) Collect(engine.Step(), &texts, &finished);
    CHECK(finished[{1, 0}] == Finish::kStop);
    return texts[{1, 0}].size();
  };
  CHECK(run(r) == expected);

  RolloutRequest minimum = OfLength(1, 10, 200);
  minimum.sampling.logit_bias = {{kEos, 4.f}};
  minimum.sampling.min_tokens = 30;
  CHECK(run(minimum) > 30);
  Engine engine(Limits(400), &runner);
  CHECK(absl::IsInvalidArgument(engine.Add(r)));  // no tokenizer
}

TEST_CASE("a prompt's log-probabilities are those of its tokens given what comes before") {
  HashingRunner runner(400);
  RolloutRequest r = OfLength(1, 50, 3);
  r.prompt_logprobs = true;
  r.sampling.top_logprobs = 2;
  for (int64_t max_tokens : {7, 128}) {
    Engine engine(Limits(400, 64, max_tokens), &runner);
    REQUIRE(engine.Add(r).ok());
    std::vector<OutputToken> prompt;
    while (!engine.idle()) {
      for (SampleOutput& o : engine.Step()) {
        if (o.first) prompt = std::move(o.prompt_tokens);
      }
    }
    REQUIRE(prompt.size() == 49);
    for (size_t i = 0; i < prompt.size(); ++i) {
      CHECK(prompt[i].token == r.prompt[i + 1]);
      CHECK(prompt[i].logprob <= prompt[i].top[0].logprob);
    }
    // The last one, sampled instead of given, has the same probabilities.
    RolloutRequest shorter = OfLength(1, 50, 1);
    shorter.prompt.pop_back();
    shorter.sampling.logit_bias = {{r.prompt.back(), 1000.f}};
    Engine other(Limits(400), &runner);
    REQUIRE(other.Add(shorter).ok());
    std::vector<SampleOutput> outputs = other.Step();
    REQUIRE(outputs.size() == 1);
    CHECK(outputs[0].tokens[0].logprob == prompt.back().logprob);
  }
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
  CHECK(absl::IsInvalidArgument(refuse([](RolloutRequest& r) {
    r.sampling.min_tokens = 1;
    r.stop_token_ids = {4000000000u};
  })));
  CHECK(absl::IsOutOfRange(refuse([](RolloutRequest& r) { r.budget = 898; })));
  CHECK(std::string(refuse([](RolloutRequest& r) { r.budget = 898; }).message())
            .find("context of 900") != std::string::npos);
}

}  // namespace
}  // namespace e3
