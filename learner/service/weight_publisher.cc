#include "learner/service/weight_publisher.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"
#include "services/runtime/weight_version.h"

namespace e3 {
namespace {

constexpr auto kAnswer = std::chrono::seconds(5), kLoad = std::chrono::seconds(600);
constexpr auto kStopPoll = std::chrono::milliseconds(20);
constexpr auto kOthers = std::chrono::seconds(3);  // that a server may take after one has failed
constexpr size_t kChunkBytes = 1 << 20;

}  // namespace

WeightPublisher::WeightPublisher(const std::vector<Address>& servers) {
  for (const Address& address : servers) {
    auto server = std::make_unique<Server>();
    server->name = address.name;
    server->rollouts = v1::Rollouts::NewStub(address.channel);
    server->weights = v1::Weights::NewStub(address.channel);
    servers_.push_back(std::move(server));
  }
  for (const std::unique_ptr<Server>& server : servers_)
    server->thread = std::thread([this, each = server.get()] { Run(*each); });
}

WeightPublisher::~WeightPublisher() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    for (const std::unique_ptr<Server>& server : servers_) {
      if (server->call != nullptr) server->call->TryCancel();
    }
    changed_.notify_all();
  }
  for (const std::unique_ptr<Server>& server : servers_) server->thread.join();
}

v1::WeightVersion WeightPublisher::version() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return version_;
}

absl::Status WeightPublisher::Publish(const PublishedWeights& weights,
                                      const std::function<bool()>& stop) {
  auto offer = std::make_shared<Offer>();
  offer->weights = weights;
  offer->parameters = weights.layout->size();
  *offer->manifest.mutable_version() = weights.version;
  offer->manifest.set_running(weights.running);
  for (const ParameterSlot& slot : weights.layout->slots()) {
    v1::Manifest::Tensor* tensor = offer->manifest.add_tensors();
    tensor->set_name(slot.name);
    for (int64_t d : slot.shape) tensor->add_shape(d);
    tensor->set_checksum(XXH3_64bits(weights.parameters.get() + slot.offset,
                                     static_cast<size_t>(slot.size) * sizeof(float)));
  }

  std::unique_lock<std::mutex> lock(mutex_);
  version_ = weights.version;
  const std::shared_ptr<const Offer> before = std::exchange(offer_, std::move(offer));
  CancelUploads([&](const Server& server) { return server.uploading != before; });
  std::vector<uint64_t> tickets;
  for (const std::unique_ptr<Server>& server : servers_) tickets.push_back(++server->asked);
  changed_.notify_all();
  absl::Status status;
  std::optional<Stopwatch> failed;
  const bool known = WaitUnless(lock, stop, [&] {
    bool all = true;
    for (size_t i = 0; i < servers_.size(); ++i) {
      if (servers_[i]->answered < tickets[i]) {
        all = false;
        continue;
      }
      const absl::Status& answer = servers_[i]->answer;
      if (answer.ok()) {
        status = answer;
        return true;
      }
      status = absl::Status(answer.code(), absl::StrCat("rollout server ", servers_[i]->name, ": ",
                                                        answer.message()));
      if (!failed.has_value()) failed.emplace();
    }
    return all || (failed.has_value() && failed->Seconds() > kOthers.count());
  });
  return known ? status : absl::CancelledError("stopped while publishing weights");
}

absl::Status WeightPublisher::Bring(size_t server, const std::function<bool()>& stop) {
  Server& s = *servers_[server];
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t ticket = ++s.asked;
  changed_.notify_all();
  if (!WaitUnless(lock, stop, [&] { return s.answered >= ticket; }))
    return absl::CancelledError("stopped while a server gets its weights");
  return s.answer;
}

bool WeightPublisher::WaitUnless(std::unique_lock<std::mutex>& lock,
                                 const std::function<bool()>& stop,
                                 const std::function<bool()>& done) {
  while (!changed_.wait_for(lock, kStopPoll, done)) {
    lock.unlock();  // whoever stops may hold what others want that hold this
    const bool stopped = stop();
    lock.lock();
    if (stopped) return done();
  }
  return true;
}

void WeightPublisher::Recall() {
  std::unique_lock<std::mutex> lock(mutex_);
  offer_.reset();
  auto uploading = [](const std::unique_ptr<Server>& s) { return s->uploading != nullptr; };
  while (std::any_of(servers_.begin(), servers_.end(), uploading)) {
    CancelUploads([](const Server&) { return true; });
    changed_.wait_for(lock, kStopPoll);
  }
}

void WeightPublisher::CancelUploads(const std::function<bool(const Server&)>& which) {
  for (const std::unique_ptr<Server>& server : servers_) {
    if (server->uploading != nullptr && server->call != nullptr && which(*server))
      server->call->TryCancel();
  }
}

void WeightPublisher::Run(Server& server) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ending_ || server.asked > server.answered; });
    if (ending_) return;
    const uint64_t ticket = server.asked;
    lock.unlock();
    absl::Status status = BringUpToDate(server);
    lock.lock();
    server.answered = ticket;
    server.answer = std::move(status);
    changed_.notify_all();
  }
}

absl::Status WeightPublisher::Call(Server& server, std::chrono::seconds deadline,
                                   const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return absl::CancelledError("the learner ends");
    server.call = &context;
  }
  const grpc::Status status = call(&context);
  std::lock_guard<std::mutex> lock(mutex_);
  server.call = nullptr;
  return FromGrpc(status);
}

absl::Status WeightPublisher::BringUpToDate(Server& server) {
  v1::RolloutStatus status;
  E3_RETURN_IF_ERROR(Call(server, kAnswer, [&](grpc::ClientContext* context) {
    return server.rollouts->GetStatus(context, {}, &status);
  }));
  const v1::WeightVersion wanted = version();
  if (SameVersion(status.weights(), wanted)) return absl::OkStatus();
  if (status.model().empty() || status.weights().job() != wanted.job()) {
    v1::LoadModelRequest request;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (offer_ == nullptr) return absl::UnavailableError("there are no weights to be had now");
      request.set_path(offer_->weights.model_path);
    }
    request.mutable_version()->set_job(wanted.job());
    request.mutable_version()->set_term(wanted.term());
    v1::LoadModelReply reply;
    E3_RETURN_IF_ERROR(Call(server, kLoad, [&](grpc::ClientContext* context) {
      return server.weights->LoadModel(context, request, &reply);
    }));
  }
  return Upload(server, wanted.job());
}

absl::Status WeightPublisher::Upload(Server& server, const std::string& job) {
  std::shared_ptr<const Offer> offer;
  {
    // From here on Recall waits.
    std::lock_guard<std::mutex> lock(mutex_);
    if (offer_ == nullptr || offer_->weights.version.job() != job)
      return absl::UnavailableError("there are no weights to be had now");
    server.uploading = offer = offer_;
  }
  absl::Status uploaded = Call(server, kLoad, [&](grpc::ClientContext* context) {
    v1::UploadReply reply;
    auto writer = server.weights->Upload(context, &reply);
    v1::UploadRequest part;
    *part.mutable_manifest() = offer->manifest;
    bool open = writer->Write(part);
    const char* bytes = reinterpret_cast<const char*>(offer->weights.parameters.get());
    const size_t total = static_cast<size_t>(offer->parameters) * sizeof(float);
    for (size_t offset = 0; open && offset < total; offset += kChunkBytes) {
      part.mutable_chunk()->set_offset(offset);
      part.mutable_chunk()->set_data(bytes + offset, std::min(kChunkBytes, total - offset));
      open = writer->Write(part);
    }
    writer->WritesDone();
    return writer->Finish();
  });
  const v1::WeightVersion version = offer->weights.version;
  offer.reset();
  std::lock_guard<std::mutex> lock(mutex_);
  if (absl::IsCancelled(uploaded)) {
    uploaded = absl::CancelledError(absl::StrCat("the upload of step ", version.step(),
                                                 " took longer than its weights were of use"));
  }
  server.uploading.reset();
  changed_.notify_all();
  return absl::IsAlreadyExists(uploaded) ? absl::OkStatus() : uploaded;
}

}  // namespace e3
