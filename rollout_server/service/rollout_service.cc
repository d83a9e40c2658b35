#include "rollout_server/service/rollout_service.h"

#include <malloc.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "rollout_server/service/requests.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

constexpr uint32_t kDefaultGraceSeconds = 30, kMaxGraceSeconds = 600;
constexpr size_t kMaxSessionName = 128;
constexpr int64_t kMaxWindowTokens = 1 << 20;

}  // namespace

RolloutService::RolloutService(EngineThread* engine) : engine_(engine) {
  reaper_ = std::thread([this] {
    constexpr int kTrimSeconds = 20;
    std::unique_lock<std::mutex> lock(mutex_);
    for (int seconds = 1; !stop_; ++seconds) {
      stopping_.wait_for(lock, std::chrono::seconds(1), [&] { return stop_; });
      lock.unlock();
      Expire();
      // Streams come and go on many threads, whose heaps keep what they no longer use.
      if (seconds % kTrimSeconds == 0) malloc_trim(0);
      lock.lock();
    }
  });
}

RolloutService::~RolloutService() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  reaper_.join();
}

std::shared_ptr<RolloutSession> RolloutService::OpenSession(const v1::GenerateRequest::Open& open,
                                                            v1::GenerateReply::Opened* opened,
                                                            uint64_t* ticket) {
  std::shared_ptr<RolloutSession> lost;
  absl::Cleanup detach = [&] {
    if (lost != nullptr) engine_->Detach(lost.get());
  };
  std::lock_guard<std::mutex> lock(mutex_);
  NamedSession& named = sessions_[open.session()];
  if (named.session != nullptr && !named.session->CanResume(open.received())) {
    // The client has less than it once said; what is between is gone.
    lost = std::move(named.session);
    lost->Attach(0);  // a stream that it may still have ends
  }
  opened->set_resumed(named.session != nullptr);
  if (!opened->resumed()) {
    SessionOptions options;
    options.acknowledged = true;
    if (open.window_tokens() > 0)
      options.window_tokens = std::min<int64_t>(open.window_tokens(), kMaxWindowTokens);
    named.session = std::make_shared<RolloutSession>(options, engine_);
  } else {
    CounterMetric("e3_rollout_sessions_resumed_total", "Sessions that a client came back to")
        .Increment();
  }
  named.grace = std::chrono::seconds(open.grace_seconds() == 0
                                         ? kDefaultGraceSeconds
                                         : std::min(open.grace_seconds(), kMaxGraceSeconds));
  named.attached = true;
  std::set<uint64_t> known;
  *ticket = named.session->Attach(open.received(), &known);
  for (uint64_t id : known) opened->add_request_ids(id);
  ReportSessions();
  return named.session;
}

void RolloutService::ReportSessions() {
  GaugeMetric("e3_rollout_sessions", "Sessions, those without a stream included")
      .Set(static_cast<double>(sessions_.size()));
}

void RolloutService::LeaveSession(const std::string& name, const RolloutSession* session,
                                  uint64_t ticket) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = sessions_.find(name);
  if (it == sessions_.end() || it->second.session.get() != session ||
      !it->second.session->Leave(ticket)) {
    return;  // taken over
  }
  it->second.attached = false;
  it->second.left = Clock::now();
}

void RolloutService::CloseSession(const std::string& name, const RolloutSession* session) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = sessions_.find(name);
  if (it != sessions_.end() && it->second.session.get() == session) sessions_.erase(it);
  ReportSessions();
}

void RolloutService::Expire() {
  std::vector<std::shared_ptr<RolloutSession>> expired;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = sessions_.begin(); it != sessions_.end();) {
      const NamedSession& named = it->second;
      if (!named.attached && Clock::now() - named.left > named.grace) {
        expired.push_back(named.session);
        it = sessions_.erase(it);
      } else {
        ++it;
      }
    }
    if (expired.empty()) return;
    ReportSessions();
  }
  for (const auto& session : expired) engine_->Detach(session.get());
}

grpc::Status RolloutService::Generate(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::GenerateReply, v1::GenerateRequest>* stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) return Draining();
    streams_.insert(context);
  }
  v1::GenerateRequest request;
  bool more = stream->Read(&request);
  // Where the stream's outputs gather: a session of the client's, or one that ends with the stream.
  std::string name;
  std::shared_ptr<RolloutSession> session;
  uint64_t ticket;
  bool refused = false;
  if (more && request.has_open()) {
    name = request.open().session();
    refused = name.empty() || name.size() > kMaxSessionName;
    if (!refused) {
      v1::GenerateReply reply;
      session = OpenSession(request.open(), reply.mutable_opened(), &ticket);
      stream->Write(reply);
    }
    request.Clear();  // a client that comes back may have nothing more to say, and waits
  }
  if (session == nullptr) {
    session = std::make_shared<RolloutSession>(SessionOptions(), engine_);
    ticket = session->Attach(0);
  }
  const bool numbered = !name.empty();
  std::thread writer([&] {
    for (bool over = false; !over;) {
      for (v1::GenerateReply& reply : session->Take(ticket, &over)) {
        const uint64_t number = reply.number();
        if (!numbered) reply.clear_number();
        if (!stream->Write(reply)) return;
        session->Written(number);
      }
    }
    // A stream that lost its session to another must not wait for its client.
    if (!session->Owns(ticket)) context->TryCancel();
  });
  bool flooded = false;
  for (; more && !refused; more = stream->Read(&request)) {
    refused = flooded = session->flooded();
    if (refused) break;
    switch (request.request_case()) {
      case v1::GenerateRequest::kStart: {
        if (!session->Ask(ticket, request.start())) break;
        const std::shared_ptr<const PromptEncoder> encoder = engine_->encoder();
        absl::StatusOr<RolloutRequest> start =
            ToRequest(request.start(), encoder.get(), engine_->eos_token_ids());
        if (!start.ok()) {
          session->OnFailure(request.start().request_id(), start.status());
          break;
        }
        engine_->Submit(session, {*std::move(start)});
        break;
      }
      case v1::GenerateRequest::kCancel:
        engine_->Cancel(session.get(), request.cancel().request_id());
        break;
      case v1::GenerateRequest::kAck:
        session->Acknowledge(request.ack().received());
        break;
      case v1::GenerateRequest::kOpen:
        refused = true;
        break;
      case v1::GenerateRequest::REQUEST_NOT_SET:
        break;
    }
  }
  bool draining;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    draining = draining_;
  }
  auto gone = [&] { return context->IsCancelled() || !session->Owns(ticket); };
  // The end of reading is a half-close, or the end of the stream, which is known a moment later.
  for (int i = 0; numbered && i < 10 && !gone(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // A client that has closed its side still gets what it asked for. It cannot acknowledge any more,
  // so it cannot come back to the session either.
  const bool ends = numbered && !gone() && !draining;
  if (ends) CloseSession(name, session.get());
  if (!refused && !gone() && !draining) {
    session->StopAcknowledging();
    engine_->WaitIdle(session.get(), gone);
  }
  if (!numbered || ends) {
    engine_->Detach(session.get());
    session->Close();
    writer.join();  // it writes what is left
  } else {
    // The session outlives the stream; its writer does not.
    LeaveSession(name, session.get(), ticket);
    context->TryCancel();
    writer.join();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(context);
  if (flooded) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                        "too many replies wait to be read; read while asking");
  }
  if (refused) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        "Open is the first message of a stream, with a session of 1 to 128 bytes");
  }
  return draining_ ? Draining() : grpc::Status::OK;
}

grpc::Status RolloutService::GetStatus(grpc::ServerContext*, const v1::GetRolloutStatusRequest*,
                                       v1::RolloutStatus* reply) {
  *reply = engine_->Status();
  return grpc::Status::OK;
}

grpc::Status RolloutService::GetTrace(grpc::ServerContext*, const v1::GetTraceRequest*,
                                      v1::GetTraceReply* reply) {
  reply->set_json(engine_->TraceJson());
  return grpc::Status::OK;
}

void RolloutService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  for (grpc::ServerContext* context : streams_) context->TryCancel();
}

}  // namespace e3
