#include "learner/service/reward_client.h"

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

constexpr int kAttempts = 3;  // at one response

}  // namespace

RewardClient::RewardClient(const std::string& address, std::chrono::milliseconds answer)
    : address_(address), answer_(answer), stub_(v1::Rewards::NewStub(Connect(address))) {}

absl::StatusOr<std::vector<v1::ScoreReply>> RewardClient::Score(
    std::vector<v1::ScoreRequest> requests, const std::function<bool()>& stop) {
  std::vector<v1::ScoreReply> replies(requests.size());
  std::vector<bool> done(requests.size(), false);
  std::vector<int> failures(requests.size(), 0);
  size_t left = requests.size();
  auto last_progress = std::chrono::steady_clock::now();
  bool told = false;
  while (left > 0) {
    if (stop()) return absl::CancelledError("stopped while scoring");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + answer_);
    auto stream = stub_->Score(&context);
    std::thread writer([&] {
      for (size_t i = 0; i < requests.size(); ++i) {
        if (done[i]) continue;
        requests[i].set_id(i);
        if (!stream->Write(requests[i])) return;
      }
      stream->WritesDone();
    });
    v1::ScoreReply reply;
    std::vector<size_t> arrived;  // `done` belongs to the writer until it has ended
    while (stream->Read(&reply)) {
      if (stop()) {
        context.TryCancel();
        break;
      }
      if (reply.id() >= replies.size()) continue;
      // Asked again, since the machine may have been busy; then the reply says why there is no
      // verdict.
      if (reply.error_code() != 0 && ++failures[reply.id()] < kAttempts) continue;
      arrived.push_back(reply.id());
      replies[reply.id()] = std::move(reply);
    }
    writer.join();
    absl::Status status = FromGrpc(stream->Finish());
    for (size_t i : arrived) {
      if (!done[i]) --left;
      done[i] = true;
    }
    if (!arrived.empty()) last_progress = std::chrono::steady_clock::now();
    if (left == 0) break;
    if (absl::IsUnimplemented(status) || absl::IsInvalidArgument(status)) return status;
    if (!told && !status.ok()) {
      Log("warning", "reward service away; asking again",
          {{"server", address_}, {"error", std::string(status.message())}});
      told = true;
    }
    if (std::chrono::steady_clock::now() - last_progress > std::chrono::minutes(5)) {
      return absl::UnavailableError(
          absl::StrCat("the reward service at ", address_,
                       " gave no verdict for five minutes: ", status.message()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  return replies;
}

}  // namespace e3
