#include "rollout_server/service/engine_thread.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "nlohmann/json.hpp"
#include "rollout_server/sampler.h"
#include "rollout_server/service/session.h"
#include "services/runtime/philox.h"
#include "tests/rollout_server/hashing_runner.h"

namespace e3 {
namespace {

using namespace std::chrono_literals;

// Serves a HashingRunner. The first parameter is its weights.
class HashingModel final : public ServedModel {
 public:
  explicit HashingModel(int32_t num_blocks) : runner_(num_blocks), num_blocks_(num_blocks) {}
  ModelRunner& runner() override { return runner_; }
  int32_t num_blocks() const override { return num_blocks_; }
  int64_t context_length() const override { return 900; }
  const std::vector<uint32_t>& eos_token_ids() const override { return eos_; }
  const std::vector<ParameterSlot>& slots() const override { return slots_; }
  void SetParameters(const std::vector<float>& parameters) override {
    runner_.SetWeights(static_cast<uint64_t>(parameters[0]));
  }
  std::shared_ptr<const PromptEncoder> encoder() const override { return nullptr; }

 private:
  HashingRunner runner_;
  int32_t num_blocks_;
  std::vector<uint32_t> eos_ = {kEos};
  std::vector<ParameterSlot> slots_ = {{"w", {4}, 0, 4, true}};
};

std::unique_ptr<EngineThread> Serve(int32_t blocks) {
  EngineThreadOptions options;
  options.scheduler.max_sequences = 24;
  options.scheduler.max_batch_tokens = 64;
  options.threads = 1;
  auto engine = std::make_unique<EngineThread>(options);
  v1::WeightVersion version;
  version.set_job("j");
  Must(engine->SetModel(std::make_unique<HashingModel>(blocks), "hashing", version).ok(),
       "a model");
  return engine;
}

v1::WeightVersion Version(uint64_t step) {
  v1::WeightVersion version;
  version.set_job("j");
  version.set_step(step);
  return version;
}

RolloutRequest Endless(uint64_t id, int64_t budget = 800) {
  RolloutRequest r;
  r.id = id;
  r.prompt = {1, 2, static_cast<uint32_t>(id % 29)};
  r.budget = budget;
  r.sampling.logit_bias = {{kEos, -100.f}};
  return r;
}

using Tokens = std::vector<uint32_t>;

// A client of a session, as a stream would be: takes, loses streams, acknowledges.
class SessionClient {
 public:
  SessionClient(SessionOptions options, EngineThread* engine)
      : session(std::make_shared<RolloutSession>(options, engine)) {
    ticket_ = session->Attach(0);
  }
  // Takes what there is.
  void Read() {
    bool over;
    for (const v1::GenerateReply& reply : session->Take(ticket_, &over)) {
      Must(reply.number() == received + 1, "replies come without gaps or repetitions");
      received = reply.number();
      session->Written(received);
      if (reply.has_failure()) {
        failures[reply.failure().request_id()] = reply.failure().code();
        continue;
      }
      const auto& chunk = reply.chunk();
      Must(finished.count({chunk.request_id(), chunk.sample()}) == 0, "nothing after the end");
      Tokens& text = texts[chunk.request_id()][chunk.sample()];
      text.insert(text.end(), chunk.token_ids().begin(), chunk.token_ids().end());
      std::vector<uint64_t>& steps = versions[{chunk.request_id(), chunk.sample()}];
      for (const auto& span : chunk.versions())
        steps.insert(steps.end(), span.tokens(), span.version().step());
      Must(steps.size() == text.size(), "every token has a version");
      if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED)
        finished[{chunk.request_id(), chunk.sample()}] = chunk.finish_reason();
    }
  }
  void LoseStream() { ticket_ = session->Attach(received); }
  // Replies that a stream wrote and the client never saw.
  void LoseReplies() {
    bool over;
    session->Take(ticket_, &over);
    LoseStream();
  }

  std::shared_ptr<RolloutSession> session;
  uint64_t received = 0;
  std::map<uint64_t, std::map<uint32_t, Tokens>> texts;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<uint64_t>> versions;  // step of each token
  std::map<std::pair<uint64_t, uint32_t>, v1::FinishReason> finished;
  std::map<uint64_t, int> failures;

 private:
  uint64_t ticket_;
};

TEST_CASE("many clients, cancels, lost streams, slow readers and changes of weights") {
  auto engine = Serve(70);
  std::atomic<bool> stop{false};
  std::thread learner([&] {
    PhiloxStream random(99);
    for (uint64_t step = 1; !stop; ++step) {
      auto policy = static_cast<v1::RunningPolicy>(1 + random.Below(3));  // all but CUT
      std::atomic<int> patience{50};
      absl::Status status = engine->SetParameters({1, 2, 3, 4}, Version(step), policy,
                                                  [&] { return stop || --patience < 0; });
      Must(status.ok() || absl::IsCancelled(status), "a switch is made or given up");
      std::this_thread::sleep_for(5ms);
    }
  });
  std::vector<std::thread> clients;
  std::atomic<int64_t> done{0};
  for (uint64_t c = 0; c < 6; ++c) {
    clients.emplace_back([&, c] {
      PhiloxStream random(c);
      SessionOptions options;
      options.acknowledged = true;
      options.window_tokens = c % 2 == 0 ? 100 : 65536;
      SessionClient client(options, engine.get());
      std::map<uint64_t, RolloutRequest> requests;
      std::set<uint64_t> cancelled;
      for (uint64_t id = 1; id <= 40; ++id) {
        requests[id] = RandomRequest(id, random);
        engine->Submit(client.session, {requests[id]});
        if (random.Uniform() < 0.1) {
          engine->Cancel(client.session.get(), id);
          cancelled.insert(id);
        }
        if (random.Uniform() < 0.2) client.LoseReplies();
        if (random.Uniform() < 0.7) client.Read();
        if (random.Uniform() < 0.5) client.session->Acknowledge(client.received);
        if (random.Uniform() < 0.1) std::this_thread::sleep_for(10ms);
      }
      auto complete = [&] {
        for (const auto& [id, request] : requests) {
          if (client.failures.count(id) > 0) continue;
          for (uint32_t s = 0; s < request.n; ++s) {
            if (client.finished.count({id, s}) == 0) return false;
          }
        }
        return true;
      };
      const Clock::time_point begin = Clock::now();
      while (!complete()) {
        client.Read();
        client.session->Acknowledge(client.received);
        if (random.Uniform() < 0.05) client.LoseStream();
        Must(Clock::now() - begin < 200s, "all rollouts end");
      }
      for (auto& [id, request] : requests) {
        std::map<uint32_t, Tokens> expected = Alone(request);
        for (const auto& [sample, text] : client.texts[id]) {
          if (client.finished.count({id, sample}) > 0) {
            Must(text == expected[sample], "a rollout is what it is alone");
          } else {
            const Tokens& whole = expected[sample];
            Must(cancelled.count(id) == 1 && text.size() <= whole.size() &&
                     std::equal(text.begin(), text.end(), whole.begin()),
                 "what was cancelled is a beginning");
          }
        }
        Must(client.failures.count(id) == 0 || client.failures[id] == 1, "only cancels fail");
        ++done;
      }
      engine->Detach(client.session.get());
    });
  }
  for (std::thread& client : clients) client.join();
  stop = true;
  learner.join();
  CHECK(done == 240);
  const v1::RolloutStatus status = engine->Status();
  CHECK(status.running() == 0);
  CHECK(status.waiting() == 0);
  CHECK(status.kv_blocks_used() == 0);
  CHECK(status.weights().step() > 0);
}

TEST_CASE("a client that does not acknowledge pauses alone, and its backlog is bounded") {
  auto engine = Serve(400);
  SessionOptions options;
  options.acknowledged = true;
  options.window_tokens = 64;
  SessionClient slow(options, engine.get()), quick(SessionOptions(), engine.get());
  for (uint64_t id = 1; id <= 8; ++id) engine->Submit(slow.session, {Endless(id)});
  engine->Submit(quick.session, {Endless(1, 600)});
  while (quick.finished.empty()) quick.Read();
  CHECK(quick.texts[1][0].size() == 600);
  // All of the slow one's window, and a step's worth of tokens more.
  std::this_thread::sleep_for(100ms);
  slow.Read();
  size_t tokens = 0;
  for (const auto& [id, samples] : slow.texts) tokens += samples.at(0).size();
  CHECK(tokens >= 64);
  CHECK(tokens <= 64 + 8);
  const uint64_t before = engine->Status().tokens_generated();
  std::this_thread::sleep_for(50ms);
  CHECK(engine->Status().tokens_generated() == before);
  while (slow.finished.size() < 8) {
    slow.session->Acknowledge(slow.received);
    slow.Read();
  }
  for (uint64_t id = 1; id <= 8; ++id) CHECK(slow.texts[id] == Alone(Endless(id)));
}

TEST_CASE("what becomes of running rollouts when the weights change") {
  auto engine = Serve(400);
  const auto never = [] { return false; };
  SECTION("continue: tokens carry their version, none is lost") {
    SessionClient client(SessionOptions(), engine.get());
    engine->Submit(client.session, {Endless(1)});
    for (uint64_t step = 1; step <= 5; ++step) {
      client.Read();
      REQUIRE(engine->SetParameters({1, 2, 3, 4}, Version(step), v1::RUNNING_POLICY_CONTINUE, never)
                  .ok());
    }
    while (client.finished.empty()) client.Read();
    CHECK(client.texts[1] == Alone(Endless(1)));
    CHECK(engine->Status().weights().step() == 5);
  }
  SECTION("cut: they end with what they have, and waiting ones begin with the new weights") {
    SessionClient client(SessionOptions(), engine.get());
    for (uint64_t id = 1; id <= 30; ++id) engine->Submit(client.session, {Endless(id)});
    while (client.texts.size() < 24) client.Read();
    REQUIRE(engine->SetParameters({1, 2, 3, 4}, Version(1), v1::RUNNING_POLICY_CUT, never).ok());
    while (client.finished.size() < 30) client.Read();
    int cut = 0;
    for (const auto& [key, reason] : client.finished) cut += reason == v1::FINISH_REASON_CUT;
    CHECK(cut == 24);
  }
  SECTION("drain: the switch waits for them, for as long as the uploader does") {
    SessionClient client(SessionOptions(), engine.get());
    engine->Submit(client.session, {Endless(1)});
    client.Read();
    REQUIRE(engine->SetParameters({1, 2, 3, 4}, Version(1), v1::RUNNING_POLICY_DRAIN, never).ok());
    while (client.finished.empty()) client.Read();
    CHECK(client.texts[1] == Alone(Endless(1)));
    // A paused one is not waited for.
    SessionOptions options;
    options.acknowledged = true;
    options.window_tokens = 16;
    SessionClient slow(options, engine.get());
    engine->Submit(slow.session, {Endless(1)});
    while (slow.texts.empty()) slow.Read();
    REQUIRE(engine->SetParameters({1, 2, 3, 4}, Version(2), v1::RUNNING_POLICY_DRAIN, never).ok());
    while (slow.finished.empty()) {
      slow.Read();
      slow.session->Acknowledge(slow.received);
    }
    CHECK(slow.texts[1] == Alone(Endless(1)));
  }
  SECTION("versions only rise, and the wrong size never serves") {
    REQUIRE(
        engine->SetParameters({1, 2, 3, 4}, Version(3), v1::RUNNING_POLICY_CONTINUE, never).ok());
    CHECK(absl::IsAlreadyExists(
        engine->SetParameters({1, 2, 3, 4}, Version(3), v1::RUNNING_POLICY_CONTINUE, never)));
    CHECK(absl::IsFailedPrecondition(
        engine->SetParameters({1, 2, 3, 4}, Version(2), v1::RUNNING_POLICY_CONTINUE, never)));
    CHECK(absl::IsAborted(
        engine->SetParameters({1, 2, 3}, Version(4), v1::RUNNING_POLICY_CONTINUE, never)));
    CHECK(engine->Status().weights().step() == 3);
  }
  SECTION("the learner of a job that lost the server cannot write over the next one's weights") {
    v1::WeightVersion next = Version(1), left_behind = Version(9);
    next.set_job("next");
    next.set_term(2);
    left_behind.set_term(1);
    auto upload = [&](const v1::WeightVersion& v) {
      return engine->SetParameters({1, 2, 3, 4}, v, v1::RUNNING_POLICY_CONTINUE, never);
    };
    REQUIRE(upload(next).ok());
    CHECK(absl::IsFailedPrecondition(upload(left_behind)));
    CHECK(absl::IsFailedPrecondition(
        engine->SetModel(std::make_unique<HashingModel>(8), "hashing", left_behind)));
    CHECK(engine->Status().weights().job() == "next");
  }
}

// Whether a text is what the weights give that its tokens say they were drawn with. `recomputed`: a
// change of weights computes what came before again; else each token's keys are of the weights of
// the step that drew the next one.
bool IsOfItsWeights(const RolloutRequest& request, const Tokens& text,
                    const std::vector<uint64_t>& steps, bool recomputed) {
  auto weights = [](uint64_t step) { return step + 1; };
  for (size_t i = 0; i < text.size(); ++i) {
    std::vector<uint64_t> entries;
    for (size_t p = 0; p < request.prompt.size() + i; ++p) {
      const bool prompt = p < request.prompt.size();
      const size_t drawn_next = prompt ? 0 : p - request.prompt.size() + 1;
      entries.push_back(HashingRunner::Entry(
          prompt ? request.prompt[p] : text[p - request.prompt.size()], static_cast<int64_t>(p),
          weights(steps[recomputed ? i : drawn_next])));
    }
    const std::vector<float> logits = HashingRunner::Logits(entries, weights(steps[i]));
    const OutputToken drawn =
        SampleTokens({{logits.data(), &request.sampling, request.seed, 0, i}}, kVocab)[0];
    if (drawn.token != text[i]) return false;
  }
  return true;
}

TEST_CASE("every token is of the weights that it says, whatever becomes of running rollouts") {
  const auto never = [] { return false; };
  for (auto policy : {v1::RUNNING_POLICY_CONTINUE, v1::RUNNING_POLICY_RECOMPUTE,
                      v1::RUNNING_POLICY_DRAIN, v1::RUNNING_POLICY_CUT}) {
    INFO(v1::RunningPolicy_Name(policy));
    auto engine = Serve(4000);  // nothing is preempted
    SessionClient client(SessionOptions(), engine.get());
    std::map<uint64_t, RolloutRequest> requests;
    uint64_t next = 1;
    for (uint64_t step = 1; step <= 12; ++step) {
      for (int i = 0; i < 4; ++i, ++next) {
        // The same prompts again and again: what the prefix cache has of old weights would show.
        requests[next] = Endless(next, 800);
        requests[next].prompt.assign(40, static_cast<uint32_t>(next % 3));
        engine->Submit(client.session, {requests[next]});
      }
      // All have begun, and are far from their ends.
      while (client.texts.size() < requests.size()) client.Read();
      REQUIRE(
          engine
              ->SetParameters({static_cast<float>(step + 1), 0, 0, 0}, Version(step), policy, never)
              .ok());
    }
    while (client.finished.size() < requests.size()) client.Read();
    int mixed = 0, cut = 0;
    for (const auto& [id, request] : requests) {
      const Tokens& text = client.texts[id][0];
      const std::vector<uint64_t>& steps = client.versions[{id, 0}];
      REQUIRE(IsOfItsWeights(request, text, steps, policy == v1::RUNNING_POLICY_RECOMPUTE));
      mixed += !steps.empty() && steps.front() != steps.back();
      cut += client.finished[{id, 0}] == v1::FINISH_REASON_CUT;
    }
    const bool mixes =
        policy == v1::RUNNING_POLICY_CONTINUE || policy == v1::RUNNING_POLICY_RECOMPUTE;
    CHECK((mixed > 0) == mixes);
    CHECK((cut > 0) == (policy == v1::RUNNING_POLICY_CUT));
  }
}

TEST_CASE("the smallest window lets a rollout go on, and a client that lost replies is told") {
  auto engine = Serve(400);
  SessionOptions options;
  options.acknowledged = true;
  options.window_tokens = 1;
  SessionClient client(options, engine.get());
  engine->Submit(client.session, {Endless(1, 50)});
  while (client.finished.empty()) {
    client.Read();
    client.session->Acknowledge(client.received);
  }
  CHECK(client.texts[1] == Alone(Endless(1, 50)));
  CHECK(client.session->CanResume(client.received));
  CHECK(!client.session->CanResume(client.received - 1));  // acknowledged, so it is gone
  CHECK(!client.session->CanResume(client.received + 1));  // never was
}

TEST_CASE("responses that end in the last tokens of their budget are marked") {
  auto engine = Serve(400);
  SessionClient client(SessionOptions(), engine.get());
  v1::GenerateRequest::Start start;
  start.set_budget(100);
  start.set_soft_overlong_tokens(40);
  RolloutRequest request = Endless(1, 100);
  start.set_request_id(1);
  const uint64_t before = client.session->Attach(0), ticket = client.session->Attach(0);
  CHECK(!client.session->Ask(before, start));  // of a stream that has lost the session
  CHECK(client.session->Ask(ticket, start));
  engine->Submit(client.session, {request});
  float overlong = -1;
  for (bool over = false, end = false; !end && !over;) {
    for (const v1::GenerateReply& reply : client.session->Take(ticket, &over)) {
      end = reply.chunk().finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
      overlong = reply.chunk().overlong();
    }
  }
  CHECK(overlong == 1.0f);
  // It ended, but the client has not said that it has all of it.
  std::set<uint64_t> known;
  SessionOptions options;
  options.acknowledged = true;
  SessionClient other(options, engine.get());
  engine->Submit(other.session, {Endless(7, 10)});
  while (other.finished.empty()) other.Read();
  other.session->Attach(0, &known);
  CHECK(known == std::set<uint64_t>{7});
  known.clear();
  other.session->Attach(other.received, &known);
  CHECK(known.empty());
}

TEST_CASE("the trace of steps is one that a viewer opens") {
  auto engine = Serve(400);
  SessionClient client(SessionOptions(), engine.get());
  engine->Submit(client.session, {Endless(1, 50)});
  while (client.finished.empty()) client.Read();
  auto trace = nlohmann::json::parse(engine->TraceJson());
  int64_t steps = 0, decoded = 0;
  for (const auto& event : trace["traceEvents"]) {
    if (event["name"] != "step") continue;
    ++steps;
    decoded += event["args"]["decode_tokens"].get<int64_t>();
    CHECK(event["ph"] == "X");
  }
  CHECK(steps == 50);
  CHECK(decoded == 49);
}

}  // namespace
}  // namespace e3
