// Several ranks in one process: a thread each, over Gloo on the loopback device.
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <future>
#include <stdexcept>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "learner/ranks/call_for_a_while.h"
#include "learner/ranks/deal.h"
#include "learner/ranks/process_group.h"
#include "learner/ranks/rank_leader.h"
#include "learner/ranks/rank_state.h"
#include "learner/ranks/rank_worker.h"
#include "learner/trainer.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

const std::string kStarter = std::string(E3_SOURCE_DIR) + "/deploy/models/countdown-starter";

v1::Training Settings() {
  v1::Training t;
  t.set_micro_batch_tokens(100000);
  t.set_learning_rate(1e-3);
  t.set_beta1(0.9);
  t.set_beta2(0.999);
  t.set_epsilon(1e-8);
  t.set_weight_decay(0.1);
  t.set_max_grad_norm(0.5);
  t.set_clip_low(0.2);
  t.set_clip_high(0.3);
  t.set_dual_clip(3);
  return t;
}

// Fourteen rollouts of very unequal length, with some forced tokens.
std::vector<TrainingRollout> Rollouts() {
  std::vector<TrainingRollout> rollouts;
  PhiloxStream random(11, 0);
  auto token = [&] { return static_cast<uint32_t>(random.Uniform() * 200); };
  for (int i = 0; i < 14; ++i) {
    TrainingRollout r;
    for (int k = 0; k < 3 + i % 4; ++k) r.sequence.prompt.push_back(token());
    const int length = 1 + static_cast<int>(random.Uniform() * random.Uniform() * 60);
    for (int k = 0; k < length; ++k) {
      r.sequence.response.push_back(token());
      r.old_logprobs.push_back(static_cast<float>(-4 * random.Uniform()));
    }
    if (length > 4) r.sequence.forced = {1, 3};
    r.advantage = 4 * random.Uniform() - 2;
    rollouts.push_back(std::move(r));
  }
  return rollouts;
}

// The rollouts as a mini-batch, and what each rank has of it.
struct Dealt {
  Dealt(const v1::Training& training, int ranks) {
    std::vector<int64_t> lengths;
    std::vector<const TrainingRollout*> all;
    for (const TrainingRollout& r : rollouts) {
      lengths.push_back(r.sequence.length());
      all.push_back(&r);
    }
    whole = MakeMiniBatch(all, training);
    for (const std::vector<size_t>& indices : DealSequences(lengths, ranks, 1000)) {
      MiniBatch& part = parts.emplace_back(MiniBatch{{}, whole.counts});
      for (size_t i : indices) part.rollouts.push_back(all[i]);
    }
  }
  const std::vector<TrainingRollout> rollouts = Rollouts();
  MiniBatch whole;
  std::vector<MiniBatch> parts;
};

// Runs `f(rank, collectives)` on every rank of a new group, each in a thread.
void OnRanks(int size, const std::function<void(int, Collectives*)>& f) {
  if (size == 1) return f(0, nullptr);
  absl::StatusOr<std::unique_ptr<Rendezvous>> rendezvous = Rendezvous::Create("127.0.0.1");
  REQUIRE(rendezvous.ok());
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto group =
          JoinGroup({"127.0.0.1", (*rendezvous)->port(), "127.0.0.1", rank, size, c10::kCPU, 30});
      if (!group.ok()) {
        errors[static_cast<size_t>(rank)] = group.status().ToString();
        return;
      }
      f(rank, group->get());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) REQUIRE(error == "");
}

struct Division {
  int ranks;
  int64_t micro_batch_tokens;
};

// The gradient of the whole mini-batch as every rank has it.
std::vector<at::Tensor> Gradients(const Division& division, const v1::Training& given,
                                  c10::ScalarType dtype, bool own_counts = false) {
  v1::Training training = given;
  training.set_micro_batch_tokens(division.micro_batch_tokens);
  const Dealt dealt(training, division.ranks);
  std::vector<at::Tensor> gradients(static_cast<size_t>(division.ranks));
  OnRanks(division.ranks, [&](int rank, Collectives* collectives) {
    Trainer trainer(*Transformer::Load(kStarter, c10::kCPU, dtype));
    if (collectives != nullptr) trainer.JoinRanks(collectives, false);
    MiniBatch part = dealt.parts[static_cast<size_t>(rank)];
    if (own_counts) part.counts = MakeMiniBatch(part.rollouts, training).counts;
    if (!trainer.ComputeGradients(part, training, 0.9).ok()) return;
    gradients[static_cast<size_t>(rank)] = trainer.policy().flat_gradients();
  });
  for (const at::Tensor& g : gradients) REQUIRE(g.defined());
  return gradients;
}

// The largest difference of a parameter's gradient, relative to its norm.
double Difference(const at::Tensor& a, const at::Tensor& b) {
  const ParameterLayout layout(*ModelConfig::Load(kStarter));
  double worst = 0;
  for (const ParameterSlot& slot : layout.slots()) {
    at::Tensor x = a.narrow(0, slot.offset, slot.size).to(at::kDouble),
               y = b.narrow(0, slot.offset, slot.size).to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / x.norm().item<double>());
  }
  return worst;
}

TEST_CASE("gradients do not depend on micro-batches and ranks") {
  for (int variant = 0; variant < 3; ++variant) {
    v1::Training training = Settings();
    if (variant == 1) training.set_loss_aggregation(v1::LOSS_AGGREGATION_SEQUENCE_MEAN);
    if (variant == 1) training.set_entropy_coef(0.02);
    if (variant == 2) training.set_advantage_mask(v1::ADVANTAGE_MASK_NEGATIVE);
    if (variant == 2) training.set_recompute_activations(true);
    for (auto [dtype, tolerance] : {std::pair(at::kDouble, 1e-10), std::pair(at::kFloat, 1e-5)}) {
      const at::Tensor alone = Gradients({1, 100000}, training, dtype)[0];
      // 7 micro-batches on one rank; 3 on each of two; 4 ranks; 16, two of which have nothing.
      for (const Division& division :
           {Division{1, 50}, Division{2, 60}, Division{4, 100000}, Division{16, 100000}}) {
        if (division.ranks == 16 && dtype == at::kDouble) continue;
        std::vector<at::Tensor> each = Gradients(division, training, dtype);
        INFO(division.ranks << " ranks, " << division.micro_batch_tokens << " tokens, variant "
                            << variant);
        CHECK(Difference(alone, each[0]) < tolerance);
        // Every rank has the same bits.
        for (const at::Tensor& g : each) CHECK(at::equal(g, each[0]));
      }
    }
  }
}

TEST_CASE("a wrong normaliser does not pass for a right one") {
  // Every rank averages over its own tokens, as naive data parallelism does.
  const at::Tensor alone = Gradients({1, 100000}, Settings(), at::kDouble)[0];
  const at::Tensor naive = Gradients({2, 100000}, Settings(), at::kDouble, /*own_counts=*/true)[0];
  CHECK(Difference(alone, naive / 2) > 1e-3);
  CHECK(Difference(alone, naive) > 1e-3);
}

// The parameters after three updates, as each rank has them, and the optimizer's gathered state.
struct Trained {
  std::vector<std::vector<float>> parameters;
  std::vector<float> first_moment;
};

Trained Train(int ranks, bool shard) {
  const Dealt dealt(Settings(), ranks);
  Trained trained{std::vector<std::vector<float>>(static_cast<size_t>(ranks)), {}};
  OnRanks(ranks, [&](int rank, Collectives* collectives) {
    Trainer trainer(*Transformer::Load(kStarter));
    if (collectives != nullptr) trainer.JoinRanks(collectives, shard);
    const MiniBatch& part = dealt.parts[static_cast<size_t>(rank)];
    for (int update = 0; update < 3; ++update) {
      if (!trainer.Update(part, Settings(), 1).ok()) return;
    }
    absl::StatusOr<TrainerState> state = trainer.State(/*copy=*/false);
    if (!state.ok()) return;
    const int64_t n = trainer.policy().layout().size();
    trained.parameters[static_cast<size_t>(rank)] = {trainer.policy().parameters(),
                                                     trainer.policy().parameters() + n};
    if (rank == 0)
      trained.first_moment = {state->first_moment.get(), state->first_moment.get() + n};
  });
  return trained;
}

TEST_CASE("ranks stay the same to the bit, and a sharded optimizer changes nothing") {
  const Trained alone = Train(1, false), plain = Train(3, false), sharded = Train(3, true);
  for (const Trained* t : {&plain, &sharded}) {
    for (const std::vector<float>& p : t->parameters) CHECK(p == plain.parameters[0]);
    CHECK(t->first_moment == plain.first_moment);
  }
  double difference = 0, norm = 0;
  for (size_t i = 0; i < alone.parameters[0].size(); ++i) {
    difference += std::pow(alone.parameters[0][i] - plain.parameters[0][i], 2);
    norm += std::pow(alone.parameters[0][i], 2);
  }
  CHECK(std::sqrt(difference / norm) < 1e-4);
}

TEST_CASE("the others hear of a rank that leaves, and can give one up that does not answer") {
  OnRanks(3, [&](int rank, Collectives* collectives) {
    at::Tensor values = at::ones({1000});
    if (rank == 2) return;  // leaves before the exchange
    collectives->StartAllReduce(values);
    absl::Status status = collectives->Wait();
    if (!absl::IsUnavailable(status)) std::abort();
  });
  OnRanks(2, [&](int rank, Collectives* collectives) {
    at::Tensor values = at::ones({1000});
    if (rank == 1) {
      std::this_thread::sleep_for(std::chrono::seconds(2));  // stalls
      return;
    }
    std::thread watcher([&] { collectives->Abandon(); });
    collectives->StartAllReduce(values);
    const auto begin = std::chrono::steady_clock::now();
    if (!absl::IsUnavailable(collectives->Wait())) std::abort();
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(1)) std::abort();
    watcher.join();
  });
}

// A worker as its process has it, on a port of its own.
struct Worker {
  explicit Worker(int port = 0) : service("127.0.0.1", c10::kCPU) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                             &this->port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
  }
  ~Worker() {
    service.Drain();
    server->Shutdown(std::chrono::system_clock::now());
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port); }
  int port = 0;
  RankWorker service;
  std::unique_ptr<grpc::Server> server;
};

TEST_CASE("a leader forms a group, loses a rank, hears which, and forms another") {
  const auto never = [] { return false; };
  const Dealt dealt(Settings(), 1);
  const MiniBatch& whole = dealt.whole;
  v1::Training stage = Settings();
  stage.set_fresh_optimizer(true);
  stage.set_reset_reference(true);
  auto parameters = [](Trainer& trainer) {
    return std::vector<float>(trainer.policy().parameters(),
                              trainer.policy().parameters() + trainer.policy().layout().size());
  };
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 2; ++i) workers.push_back(std::make_unique<Worker>());
  const RankOptions options{{workers[0]->address(), workers[1]->address()}, "127.0.0.1", true, 60};

  std::vector<std::vector<float>> after;
  for (int group = 0; group < 2; ++group) {
    Trainer trainer(*Transformer::Load(kStarter));
    const int64_t n = trainer.policy().layout().size();
    auto leader = RankLeader::Form(options, c10::kCPU, absl::StrCat("group-", group), never);
    REQUIRE(leader.ok());
    REQUIRE((*leader)->SendState(InitialState(trainer.policy()), n, kStarter).ok());
    trainer.JoinRanks((*leader)->collectives(), true);
    REQUIRE((*leader)->BeginStage(stage, /*first=*/true, 64).ok());
    for (int update = 0; update < 2; ++update)
      REQUIRE((*leader)->Update(trainer, whole, Settings(), 1).ok());
    absl::StatusOr<TrainerState> state = (*leader)->State(trainer, /*copy=*/true);
    REQUIRE(state.ok());
    CHECK(state->updates == 2);
    after.push_back(parameters(trainer));

    const int port = workers[1]->port;
    workers[1].reset();
    absl::StatusOr<UpdateStatistics> lost = (*leader)->Update(trainer, whole, Settings(), 1);
    CHECK(absl::IsUnavailable(lost.status()));
    CHECK(absl::StrContains(lost.status().message(), absl::StrCat("rank 2 at 127.0.0.1:", port)));
    workers[1] = std::make_unique<Worker>(port);
  }
  // The second group, with a rank that is new, does what the first did.
  CHECK(after[0] == after[1]);

  {  // What does not fit into a rank's memory is refused with the numbers.
    Trainer trainer(*Transformer::Load(kStarter));
    auto leader = RankLeader::Form(options, c10::kCPU, "group-too-large", never);
    REQUIRE(leader.ok());
    CHECK((*leader)->Neighbours() == 3);
    REQUIRE(
        (*leader)
            ->SendState(InitialState(trainer.policy()), trainer.policy().layout().size(), kStarter)
            .ok());
    const absl::Status refused =
        (*leader)->BeginStage(Settings(), /*first=*/true, int64_t{1} << 30);
    CHECK(absl::IsOutOfRange(refused));
    CHECK(absl::StrContains(refused.message(), "GiB are available"));
    CHECK(absl::StrContains(refused.message(), "rank "));
  }

  // What no new group would mend is not asked for again and again.
  Trainer trainer(*Transformer::Load(kStarter));
  auto leader = RankLeader::Form(options, c10::kCPU, "group-2", never);
  REQUIRE(leader.ok());
  absl::Status missing = (*leader)->SendState(InitialState(trainer.policy()),
                                              trainer.policy().layout().size(), "/no/such/model");
  CHECK(absl::IsInternal(missing));
  CHECK(absl::StrContains(missing.message(), "/no/such/model"));
}

TEST_CASE("a call that never returns is left behind") {
  const auto never = [] { return false; };
  CHECK(*CallForAWhile<int>([] { return 3; }, 60, never) == 3);
  const auto thrown =
      CallForAWhile<int>([]() -> int { throw std::runtime_error("no such peer"); }, 60, never);
  CHECK(absl::IsInternal(thrown.status()));
  CHECK(thrown.status().message() == "no such peer");
  // The thread owns what it uses until it ends, whenever that is.
  auto gate = std::make_shared<std::promise<void>>();
  auto wait = [gate] {
    gate->get_future().wait();
    return 1;
  };
  CHECK(absl::IsDeadlineExceeded(CallForAWhile<int>(wait, 0.05, never).status()));
  gate->set_value();
  auto closed = std::make_shared<std::promise<void>>();
  auto wait_again = [closed] {
    closed->get_future().wait();
    return 1;
  };
  CHECK(absl::IsDeadlineExceeded(CallForAWhile<int>(wait_again, 60, [] { return true; }).status()));
  closed->set_value();
}

TEST_CASE("the leader's state reaches every rank") {
  OnRanks(3, [&](int rank, Collectives* collectives) {
    std::vector<float> values(5000, static_cast<float>(rank + 1));
    const std::shared_ptr<const float> part = CopyFloats(values.data(), 5000);
    const TrainerState mine{7, part, part, part, part};
    absl::StatusOr<TrainerState> state =
        BroadcastState(*collectives, 5000, rank == 0 ? &mine : nullptr);
    if (!state.ok() || state->second_moment.get()[4999] != 1.0f) std::abort();
  });
}

}  // namespace
}  // namespace e3
