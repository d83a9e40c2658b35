#include "learner/service/reward_client.h"

#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <chrono>

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

}  // namespace
}  // namespace e3
