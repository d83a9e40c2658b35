// The pool against servers whose failures can be chosen: real gRPC, and no engine behind it.
#include "learner/service/rollout_pool.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"

namespace e3 {
namespace {

constexpr uint32_t kPoison = 13;  // a prompt that every server fails at
constexpr uint32_t kDeadly = 14;  // one that every server dies of
const auto kNever = [] { return false; };

// Token i of a sample of a prompt: nothing but these decides.
uint32_t Token(uint32_t prompt, uint32_t sample, uint32_t i) {
  return prompt * 1000 + sample * 100 + i;
}

// Answers each request with its tokens, one a chunk, each of the version that is held then.
class FakeServer final : public v1::Rollouts::Service, public v1::Weights::Service {
 public:
  FakeServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::Rollouts::Service*>(this));
    builder.RegisterService(static_cast<v1::Weights::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  std::atomic<int> refused{0}, uploads{0};
  std::atomic<int> break_after{-1};  // chunks until the stream breaks
  std::atomic<int> cut_every{0};     // chunks from one cut sample to the next; 0: none
  std::atomic<int> milliseconds_a_token{0};
  std::atomic<int> milliseconds_an_upload{0};
  std::atomic<int> deaths{0};

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetRolloutStatusRequest*,
                         v1::RolloutStatus* status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    status->set_model("a model");
    *status->mutable_weights() = version_;
    return grpc::Status::OK;
  }
  grpc::Status LoadModel(grpc::ServerContext*, const v1::LoadModelRequest* request,
                         v1::LoadModelReply*) override {
    std::lock_guard<std::mutex> lock(mutex_);
    version_ = request->version();
    return grpc::Status::OK;
  }
  grpc::Status Upload(grpc::ServerContext* context, grpc::ServerReader<v1::UploadRequest>* reader,
                      v1::UploadReply*) override {
    v1::UploadRequest part;
    v1::WeightVersion version;
    while (reader->Read(&part)) {
      if (part.has_manifest()) version = part.manifest().version();
    }
    for (int i = 0; i < milliseconds_an_upload && !context->IsCancelled(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (context->IsCancelled()) return grpc::Status::CANCELLED;
    std::lock_guard<std::mutex> lock(mutex_);
    if (version.step() <= version_.step() && version_.epoch() == version.epoch())
      return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "held");
    version_ = version;
    ++uploads;
    return grpc::Status::OK;
  }
  grpc::Status Generate(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::GenerateReply, v1::GenerateRequest>* stream) override {
    v1::GenerateRequest request;
    while (stream->Read(&request)) {
      const auto& start = request.start();
      v1::GenerateReply reply;
      if (start.prompt_token_ids(0) == kDeadly) {
        ++deaths;
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed");
      }
      if (start.prompt_token_ids(0) == kPoison) {
        ++refused;
        reply.mutable_failure()->set_request_id(start.request_id());
        reply.mutable_failure()->set_code(static_cast<int>(absl::StatusCode::kDataLoss));
        reply.mutable_failure()->set_message("logits are not finite");
        stream->Write(reply);
        continue;
      }
      std::vector<bool> cut(start.n(), false);
      for (uint32_t i = static_cast<uint32_t>(start.response_prefix_size()); i < start.budget();
           ++i) {
        for (uint32_t s = 0; s < start.n(); ++s) {
          if (context->IsCancelled()) return grpc::Status::CANCELLED;
          if (cut[s]) continue;
          if (cut_every > 0 && ++chunks_ % cut_every == 0) {
            cut[s] = true;
            reply.mutable_chunk()->Clear();
            reply.mutable_chunk()->set_request_id(start.request_id());
            reply.mutable_chunk()->set_sample(s);
            reply.mutable_chunk()->set_finish_reason(v1::FINISH_REASON_CUT);
            stream->Write(reply);
            continue;
          }
          if (break_after >= 0 && break_after-- == 0)
            return grpc::Status(grpc::StatusCode::INTERNAL, "broke");
          v1::GenerateReply::Chunk* chunk = reply.mutable_chunk();
          chunk->Clear();
          chunk->set_request_id(start.request_id());
          chunk->set_sample(s);
          chunk->add_token_ids(Token(start.prompt_token_ids(0), start.first_sample() + s, i));
          chunk->add_logprobs(-1);
          chunk->add_entropies(1);
          {
            std::lock_guard<std::mutex> lock(mutex_);
            *chunk->add_versions()->mutable_version() = version_;
          }
          chunk->mutable_versions(0)->set_tokens(1);
          if (i + 1 == start.budget()) chunk->set_finish_reason(v1::FINISH_REASON_LENGTH);
          stream->Write(reply);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_a_token));
      }
    }
    return grpc::Status::OK;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<int> chunks_{0};
  std::mutex mutex_;
  v1::WeightVersion version_;
};

struct Fixture {
  FakeServer servers[2];
  RolloutPool pool{{servers[0].address(), servers[1].address()}};
  ModelConfig config = [] {
    ModelConfig c;
    c.num_layers = 1;
    c.hidden_size = c.intermediate_size = c.vocab_size = 8;
    c.num_heads = c.num_kv_heads = 1;
    c.head_dim = 8;
    return c;
  }();
  ParameterLayout layout{config};
  std::vector<float> parameters = std::vector<float>(static_cast<size_t>(layout.size()));

  void Publish(uint64_t step) {
    v1::WeightVersion version;
    version.set_job("job");
    version.set_epoch(1);
    version.set_step(step);
    REQUIRE(pool.weights()
                .Publish({version, "a model", &layout,
                          std::shared_ptr<const float>(std::shared_ptr<void>(), parameters.data()),
                          v1::RUNNING_POLICY_CONTINUE},
                         kNever)
                .ok());
  }
};

// Whether a task's rollouts have exactly the tokens that they should.
bool Whole(const TaskRollouts& task, uint32_t prompt, uint32_t n, uint32_t budget) {
  if (!task.status.ok() || task.rollouts.size() != n) return false;
  for (uint32_t s = 0; s < n; ++s) {
    const v1::Rollout& r = task.rollouts[s];
    if (static_cast<uint32_t>(r.token_ids_size()) != budget ||
        r.finish_reason() != v1::FINISH_REASON_LENGTH)
      return false;
    uint32_t of_versions = 0;
    for (const auto& span : r.versions()) of_versions += span.tokens();
    if (of_versions != budget) return false;
    for (uint32_t i = 0; i < budget; ++i) {
      if (r.token_ids(static_cast<int>(i)) != Token(prompt, s, i)) return false;
    }
  }
  return true;
}

TEST_CASE("a prompt that servers fail at is set aside after three attempts, the others finish") {
  Fixture f;
  f.Publish(1);
  std::vector<RolloutTask> tasks;
  for (uint32_t prompt : {1u, kPoison, 2u, 3u}) tasks.push_back({{prompt}, 5, prompt});
  auto results = f.pool.Generate(tasks, {8, {}}, kNever);
  REQUIRE(results.ok());
  CHECK(Whole((*results)[0], 1, 5, 8));
  CHECK(absl::IsDataLoss((*results)[1].status));
  CHECK(Whole((*results)[2], 2, 5, 8));
  CHECK(Whole((*results)[3], 3, 5, 8));
  // Once as a whole, then sample by sample until one has failed three times.
  const int refused = f.servers[0].refused + f.servers[1].refused;
  CHECK(refused >= 3);
  CHECK(refused <= 11);

  // When nothing else is asked for, the failure is the answer.
  CHECK(absl::IsDataLoss(f.pool.Generate({{{kPoison}, 2, 1}}, {8, {}}, kNever).status()));
}

TEST_CASE("a prompt that servers die of is found among its neighbours, and set aside") {
  Fixture f;
  f.Publish(1);
  std::vector<RolloutTask> tasks;
  for (uint32_t prompt : {1u, kDeadly, 2u, 3u, 4u, 5u})
    tasks.push_back({{prompt}, prompt == kDeadly ? 16u : 3u, prompt});
  auto results = f.pool.Generate(tasks, {8, {}}, kNever);
  REQUIRE(results.ok());
  CHECK(absl::IsInternal((*results)[1].status));
  for (size_t i : {0u, 2u, 3u, 4u, 5u}) CHECK(Whole((*results)[i], tasks[i].prompt[0], 3, 8));
  // Three times with one of its samples; of the others some took a server with them meanwhile.
  const int deaths = f.servers[0].deaths + f.servers[1].deaths;
  CHECK(deaths >= 3);
  CHECK(deaths <= 7);

  CHECK(absl::IsInternal(f.pool.Generate({{{kDeadly}, 1, 1}}, {8, {}}, kNever).status()));
}

TEST_CASE("a server that is slow to get its weights holds up neither publishing nor generating") {
  Fixture f;
  f.servers[1].milliseconds_an_upload = 60'000;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t step = 1; step <= 3; ++step) {
    f.Publish(step);
    auto results = f.pool.Generate({{{1}, 4, 1}, {{2}, 4, 2}}, {8, {}}, kNever);
    REQUIRE(results.ok());
    CHECK(Whole((*results)[0], 1, 4, 8));
    CHECK(Whole((*results)[1], 2, 4, 8));
    // Nobody reads them from here on, so that they can be written.
    f.pool.weights().Recall();
    for (float& p : f.parameters) p += 1;
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  CHECK(f.servers[0].uploads == 3);
  CHECK(f.servers[1].uploads == 0);
  // It takes part as soon as it has them.
  f.servers[1].milliseconds_an_upload = 0;
  f.Publish(4);
  CHECK(f.pool.weights().Bring(1, kNever).ok());
  CHECK(f.servers[1].uploads == 1);
}

TEST_CASE("streams that break lose and repeat no token") {
  Fixture f;
  f.Publish(1);
  for (int round = 0; round < 20; ++round) {
    // Some are cut before, too: those go on once, not also with what their request left behind.
    for (FakeServer& server : f.servers) server.cut_every = round % 3 == 0 ? 0 : 4 + round;
    f.servers[round % 2].break_after = 7 * round;
    std::vector<RolloutTask> tasks;
    for (uint32_t prompt : {1u, 2u, 3u}) tasks.push_back({{prompt}, 4, prompt});
    auto results = f.pool.Generate(tasks, {12, {}}, kNever);
    REQUIRE(results.ok());
    for (uint32_t i = 0; i < 3; ++i) REQUIRE(Whole((*results)[i], i + 1, 4, 12));
  }
}

TEST_CASE(
    "two generations at once, while versions change: each token is of a version it may be of") {
  Fixture f;
  f.Publish(1);
  for (FakeServer& server : f.servers) server.milliseconds_a_token = 3;
  std::atomic<bool> done{false};
  std::thread publisher([&] {
    for (uint64_t step = 2; !done; ++step) {
      f.Publish(step);
      std::this_thread::sleep_for(std::chrono::milliseconds(7));
    }
  });
  std::vector<std::thread> generators;
  std::atomic<int> good{0}, several{0};
  for (uint32_t g = 0; g < 2; ++g) {
    generators.emplace_back([&, g] {
      for (int round = 0; round < 5; ++round) {
        const uint64_t oldest = f.pool.weights().version().step();
        std::vector<RolloutTask> tasks;
        for (uint32_t prompt : {1u, 2u}) tasks.push_back({{prompt + 2 * g}, 3, prompt});
        auto results = f.pool.Generate(tasks, {10, {}}, kNever);
        const uint64_t newest = f.pool.weights().version().step();
        if (!results.ok()) continue;
        bool all = Whole((*results)[0], 1 + 2 * g, 3, 10) && Whole((*results)[1], 2 + 2 * g, 3, 10);
        for (const TaskRollouts& task : *results) {
          for (const v1::Rollout& r : task.rollouts) {
            several += r.versions_size() > 1;
            for (const auto& span : r.versions())
              all = all && span.version().step() >= oldest && span.version().step() <= newest;
          }
        }
        good += all;
      }
    });
  }
  for (std::thread& thread : generators) thread.join();
  done = true;
  publisher.join();
  CHECK(good == 10);
  CHECK(several > 0);
  CHECK(
      absl::IsCancelled(f.pool.Generate({{{1}, 1, 1}}, {1000, {}}, [] { return true; }).status()));
}

}  // namespace
}  // namespace e3
