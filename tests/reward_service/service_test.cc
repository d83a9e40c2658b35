#include <grpcpp/grpcpp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "reward_service/service/reward_service.h"

namespace e3 {
namespace {

// A task that counts how often it is judged.
std::atomic<int> judged{0};
class CountingTask final : public TaskVerifier {
 public:
  std::optional<Answer> FindAnswer(absl::string_view text) const override {
    return Answer{{std::string(text)}, text.size()};
  }
  absl::StatusOr<Verdict> Judge(const Answer& answer) const override {
    ++judged;
    return Verdict{1, answer.readings[0].substr(0, 8), "counted", "counted"};
  }
  std::string Key() const override { return "counting"; }
};

class Server {
 public:
  explicit Server(const RewardServiceOptions& options) : service_(options) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = v1::Rewards::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  }
  ~Server() {
    service_.Drain();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  }
  v1::Rewards::Stub& stub() { return *stub_; }
  RewardService& service() { return service_; }

 private:
  RewardService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Rewards::Stub> stub_;
};

v1::ScoreRequest Math(uint64_t id, const std::string& answer) {
  v1::ScoreRequest request;
  request.set_id(id);
  request.set_response("\\boxed{" + answer + "}");
  request.mutable_math()->set_gold("\\frac{1}{2}");
  return request;
}

TEST_CASE("no reply waits for something that does not come") {
  // A reply that was held back together with the stream's beginning came with the next ping, up to
  // 20 seconds later, in one short stream of five.
  Server server({2, 16, 0, {}});
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(20);
  for (int round = 0; round < 300; ++round) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    auto stream = server.stub().Score(&context);
    for (uint64_t i = 0; i < 32; ++i) REQUIRE(stream->Write(Math(i, absl::StrCat(i))));
    stream->WritesDone();
    v1::ScoreReply reply;
    int replies = 0;
    while (stream->Read(&reply)) ++replies;
    REQUIRE(stream->Finish().ok());
    REQUIRE(replies == 32);
  }
}

TEST_CASE("every request of a stream is answered once, and an error ends nothing") {
  Server server({4, 16, 1000, {}});
  grpc::ClientContext context;
  auto stream = server.stub().Score(&context);
  std::thread writer([&] {
    for (uint64_t i = 0; i < 3000; ++i) {
      v1::ScoreRequest request = Math(i, i % 2 == 0 ? "0.5" : absl::StrCat(i));
      if (i % 100 == 7) request.mutable_math()->clear_gold();
      if (i % 100 == 8) request.set_response("\xff\xfe");
      if (!stream->Write(request)) return;
    }
    stream->WritesDone();
  });
  std::set<uint64_t> ids;
  v1::ScoreReply reply;
  int wrong = 0;
  while (stream->Read(&reply)) {
    ids.insert(reply.id());
    const bool error = reply.id() % 100 == 7;
    const double score = reply.id() % 2 == 0 && reply.id() % 100 != 8 ? 1 : 0;
    wrong += (reply.error_code() != 0) != error || (!error && reply.score() != score);
  }
  writer.join();
  CHECK(stream->Finish().ok());
  CHECK(ids.size() == 3000);
  CHECK(wrong == 0);
}

TEST_CASE("a client that reads nothing is not read further, and holds up nobody") {
  RegisterTask("counting", [](absl::string_view) -> absl::StatusOr<std::unique_ptr<TaskVerifier>> {
    return std::make_unique<CountingTask>();
  });
  Server server({2, 8, 0, {}});
  judged = 0;
  grpc::ClientContext slow_context;
  auto slow = server.stub().Score(&slow_context);
  std::atomic<bool> done{false};
  // Replies go out until the network's buffers are full, so the requests are many and their replies
  // large.
  constexpr int kRequests = 200000;
  std::thread writer([&] {
    v1::ScoreRequest request;
    request.mutable_plugin()->set_name("counting");
    request.set_response(std::string(100, 'x'));
    for (int i = 0; i < kRequests && slow->Write(request); ++i) {
    }
    done = true;
  });
  int before = -1;
  for (int i = 0; i < 100; ++i) {  // until it stands still
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (judged == before && before > 0) break;
    before = judged;
  }
  CHECK_FALSE(done);
  CHECK(judged < kRequests);
  grpc::ClientContext context;
  auto stream = server.stub().Score(&context);
  for (uint64_t i = 0; i < 100; ++i) {
    v1::ScoreReply reply;
    REQUIRE(stream->Write(Math(i, "0.5")));
    REQUIRE(stream->Read(&reply));
    CHECK(reply.score() == 1);
  }
  stream->WritesDone();
  CHECK(stream->Finish().ok());
  slow_context.TryCancel();
  writer.join();
  slow->Finish();
}

TEST_CASE("a stream ends at its deadline, and when the service drains") {
  Server server({2, 8, 0, {}});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  auto stream = server.stub().Score(&context);
  v1::ScoreReply reply;
  REQUIRE(stream->Write(Math(1, "0.5")));
  REQUIRE(stream->Read(&reply));
  CHECK_FALSE(stream->Read(&reply));
  CHECK(stream->Finish().error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);

  grpc::ClientContext draining;
  auto second = server.stub().Score(&draining);
  REQUIRE(second->Write(Math(1, "0.5")));
  REQUIRE(second->Read(&reply));
  server.service().Drain();
  CHECK_FALSE(second->Read(&reply));
  CHECK_FALSE(second->Finish().ok());
}

}  // namespace
}  // namespace e3
