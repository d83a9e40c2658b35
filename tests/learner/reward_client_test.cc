#include "learner/service/reward_client.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "reward_service/service/reward_service.h"

namespace e3 {
namespace {

TEST_CASE("what cannot be judged comes back as that, and never as a zero") {
  RewardService service({2, 16, 0, {}});
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();

  RewardClient client(absl::StrCat("127.0.0.1:", port));
  std::vector<v1::ScoreRequest> requests(9);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].set_response("so \\boxed{2}");
    if (i == 4) continue;  // names no task: nobody can judge it
    requests[i].mutable_math()->set_gold(i % 2 == 0 ? "2" : "3");
  }
  absl::StatusOr<std::vector<v1::ScoreReply>> replies =
      client.Score(requests, [] { return false; });
  REQUIRE(replies.ok());
  REQUIRE(replies->size() == 9);
  for (size_t i = 0; i < 9; ++i) {
    const v1::ScoreReply& reply = (*replies)[i];
    CHECK((reply.error_code() != 0) == (i == 4));
    if (i == 4) CHECK(reply.error().find("names no task") != std::string::npos);
    if (i != 4) CHECK(reply.score() == (i % 2 == 0 ? 1 : 0));
  }
  service.Drain();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
}

// Judges what it is asked, but for every third request of its first calls: for these it says
// nothing, and waits until it is left.
class SlowService final : public v1::Rewards::Service {
 public:
  explicit SlowService(int slow_calls) : slow_calls_(slow_calls) {}
  grpc::Status Score(grpc::ServerContext* context,
                     grpc::ServerReaderWriter<v1::ScoreReply, v1::ScoreRequest>* stream) override {
    const bool slow = calls++ < slow_calls_;
    v1::ScoreRequest request;
    while (stream->Read(&request)) {
      if (slow && request.id() % 3 == 0) continue;
      v1::ScoreReply reply;
      reply.set_id(request.id());
      reply.set_score(1);
      stream->Write(reply);
    }
    while (slow && !context->IsCancelled())
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  }
  std::atomic<int> calls{0};

 private:
  const int slow_calls_;
};

TEST_CASE("what the reward service does not answer in time is asked again, and never a zero") {
  SlowService service(2);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  RewardClient client(absl::StrCat("127.0.0.1:", port), std::chrono::milliseconds(500));
  auto replies = client.Score(std::vector<v1::ScoreRequest>(10), [] { return false; });
  REQUIRE(replies.ok());
  for (const v1::ScoreReply& reply : *replies) {
    CHECK(reply.error_code() == 0);
    CHECK(reply.score() == 1);
  }
  CHECK(service.calls >= 3);
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace e3
