#include "rollout_server/service/rollout_service.h"

#include <xxhash.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "model/transformer.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

v1::FinishReason ToProto(Finish finish) {
  switch (finish) {
    case Finish::kStop:
      return v1::FINISH_REASON_STOP;
    case Finish::kLength:
      return v1::FINISH_REASON_LENGTH;
    case Finish::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case Finish::kNone:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

bool SameVersion(const v1::WeightVersion& a, const v1::WeightVersion& b) {
  return a.step() == b.step() && a.epoch() == b.epoch() && a.job() == b.job();
}

RolloutRequest FromProto(const v1::GenerateRequest::Start& start) {
  RolloutRequest request;
  request.id = start.request_id();
  request.prompt.assign(start.prompt_token_ids().begin(), start.prompt_token_ids().end());
  request.n = start.n() == 0 ? 1 : start.n();
  request.budget = start.budget();
  request.sampling.temperature =
      start.sampling().has_temperature() ? start.sampling().temperature() : 1;
  request.sampling.top_p = start.sampling().top_p() == 0 ? 1 : start.sampling().top_p();
  request.sampling.min_p = start.sampling().min_p();
  request.sampling.top_k = start.sampling().top_k();
  request.seed = start.seed();
  request.first_sample = start.first_sample();
  request.response_prefix.assign(start.response_prefix().begin(), start.response_prefix().end());
  request.stop_token_ids.assign(start.stop_token_ids().begin(), start.stop_token_ids().end());
  return request;
}

// Gathers tokens into chunks: the engine thread appends, the stream's writer takes what is there. A
// chunk leaves when a sample finishes, or after kChunkDelay at the latest, so that what was
// generated is soon with the client.
class ChunkQueue final : public RolloutSink {
 public:
  static constexpr std::chrono::milliseconds kChunkDelay{100};

  void OnToken(uint64_t request_id, const TokenOutput& token,
               const v1::WeightVersion& version) override {
    std::lock_guard<std::mutex> lock(mutex_);
    v1::GenerateReply::Chunk& chunk = chunks_[{request_id, token.sample}];
    chunk.add_token_ids(token.token);
    chunk.add_logprobs(token.logprob);
    chunk.add_entropies(token.entropy);
    if (chunk.versions_size() == 0 ||
        !SameVersion(chunk.versions(chunk.versions_size() - 1).version(), version)) {
      *chunk.add_versions()->mutable_version() = version;
    }
    v1::GenerateReply::VersionSpan* span = chunk.mutable_versions(chunk.versions_size() - 1);
    span->set_tokens(span->tokens() + 1);
    if (token.finish != Finish::kNone) {
      chunk.set_finish_reason(ToProto(token.finish));
      urgent_ = true;
      ready_.notify_one();
    }
  }

  void OnFailure(uint64_t request_id, const absl::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    v1::GenerateReply reply;
    reply.mutable_failure()->set_request_id(request_id);
    reply.mutable_failure()->set_code(static_cast<int>(status.code()));
    reply.mutable_failure()->set_message(std::string(status.message()));
    failures_.push_back(std::move(reply));
    urgent_ = true;
    ready_.notify_one();
  }

  // What there is to write. Empty and `closed` when the queue was closed.
  std::vector<v1::GenerateReply> Take(bool* closed) {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait_for(lock, kChunkDelay, [&] { return urgent_ || closed_; });
    std::vector<v1::GenerateReply> replies;
    for (auto& [key, chunk] : chunks_) {
      chunk.set_request_id(key.first);
      chunk.set_sample(key.second);
      *replies.emplace_back().mutable_chunk() = std::move(chunk);
    }
    chunks_.clear();
    for (v1::GenerateReply& failure : failures_) replies.push_back(std::move(failure));
    failures_.clear();
    urgent_ = false;
    *closed = closed_;
    return replies;
  }

  void Close() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    ready_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::map<std::pair<uint64_t, uint32_t>, v1::GenerateReply::Chunk> chunks_;
  std::vector<v1::GenerateReply> failures_;
  bool urgent_ = false, closed_ = false;
};

}  // namespace

grpc::Status RolloutService::Generate(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::GenerateReply, v1::GenerateRequest>* stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping");
    streams_.insert(context);
  }
  auto queue = std::make_shared<ChunkQueue>();
  std::thread writer([&] {
    for (bool closed = false; !closed;) {
      for (const v1::GenerateReply& reply : queue->Take(&closed)) {
        if (!stream->Write(reply)) return;
      }
    }
  });
  v1::GenerateRequest request;
  while (stream->Read(&request)) {
    switch (request.request_case()) {
      case v1::GenerateRequest::kStart:
        engine_->Submit(queue, FromProto(request.start()));
        break;
      case v1::GenerateRequest::kCancel:
        engine_->Cancel(queue.get(), request.cancel().request_id());
        break;
      case v1::GenerateRequest::REQUEST_NOT_SET:
        break;
    }
  }
  // A client that has closed its side still gets what it asked for; one that is gone does not.
  bool draining;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    draining = draining_;
  }
  if (!context->IsCancelled() && !draining)
    engine_->WaitIdle(queue.get(), [&] { return context->IsCancelled(); });
  engine_->Detach(queue.get());
  queue->Close();
  writer.join();
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(context);
  return draining_ ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping")
                   : grpc::Status::OK;
}

grpc::Status RolloutService::GetStatus(grpc::ServerContext*, const v1::GetRolloutStatusRequest*,
                                       v1::RolloutStatus* reply) {
  *reply = engine_->Status();
  return grpc::Status::OK;
}

void RolloutService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  draining_ = true;
  for (grpc::ServerContext* context : streams_) context->TryCancel();
}

grpc::Status WeightsService::Upload(grpc::ServerContext*,
                                    grpc::ServerReader<v1::UploadRequest>* reader,
                                    v1::UploadReply* reply) {
  auto begin = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(upload_mutex_, std::try_to_lock);
  if (!lock) return grpc::Status(grpc::StatusCode::ABORTED, "another upload is in progress");

  v1::UploadRequest part;
  if (!reader->Read(&part) || !part.has_manifest()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        "the first message must be the manifest");
  }
  const v1::Manifest manifest = part.manifest();
  if (absl::Status status = engine_->CheckVersion(manifest.version()); !status.ok())
    return ToGrpc(status);

  // The manifest must list exactly this model's tensors, in its order.
  std::vector<ParameterSlot> slots;
  int64_t size = 0;
  engine_->WithModel([&](const Transformer* model) {
    slots = model->layout().slots();
    size = model->layout().size();
  });
  if (manifest.tensors_size() != static_cast<int>(slots.size())) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                        absl::StrCat("the manifest has ", manifest.tensors_size(),
                                     " tensors, this model has ", slots.size()));
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    const v1::Manifest::Tensor& tensor = manifest.tensors(static_cast<int>(i));
    if (tensor.name() != slots[i].name ||
        !std::equal(tensor.shape().begin(), tensor.shape().end(), slots[i].shape.begin(),
                    slots[i].shape.end())) {
      return grpc::Status(
          grpc::StatusCode::INVALID_ARGUMENT,
          absl::StrCat("tensor ", i, " of the manifest is ", tensor.name(), ", this model's is ",
                       slots[i].name, " (names and shapes must agree)"));
    }
  }

  std::vector<float> staged(static_cast<size_t>(size));
  char* bytes = reinterpret_cast<char*>(staged.data());
  const uint64_t total = static_cast<uint64_t>(size) * sizeof(float);
  uint64_t received = 0;
  while (reader->Read(&part)) {
    if (!part.has_chunk() || part.chunk().offset() != received ||
        part.chunk().data().size() > total - received) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          absl::StrCat("expected the chunk at byte ", received));
    }
    memcpy(bytes + received, part.chunk().data().data(), part.chunk().data().size());
    received += part.chunk().data().size();
  }
  if (received != total) {
    return grpc::Status(grpc::StatusCode::DATA_LOSS,
                        absl::StrCat("the upload ended after ", received, " of ", total, " bytes"));
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    uint64_t checksum = XXH3_64bits(staged.data() + slots[i].offset,
                                    static_cast<size_t>(slots[i].size) * sizeof(float));
    if (checksum != manifest.tensors(static_cast<int>(i)).checksum()) {
      return grpc::Status(grpc::StatusCode::DATA_LOSS,
                          absl::StrCat("the checksum of ", slots[i].name, " does not match"));
    }
  }
  if (absl::Status status = engine_->SetParameters(staged, manifest.version()); !status.ok())
    return ToGrpc(status);

  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  *reply->mutable_version() = manifest.version();
  reply->set_bytes(received);
  reply->set_seconds(seconds);
  CounterMetric("e3_rollout_weight_updates_total", "Weight updates switched to").Increment();
  CounterMetric("e3_rollout_weight_bytes_total", "Bytes of weight updates received")
      .Increment(static_cast<double>(received));
  GaugeMetric("e3_rollout_weight_update_seconds", "Duration of the last weight update")
      .Set(seconds);
  return grpc::Status::OK;
}

grpc::Status WeightsService::LoadModel(grpc::ServerContext*, const v1::LoadModelRequest* request,
                                       v1::LoadModelReply* reply) {
  std::unique_lock<std::mutex> lock(upload_mutex_, std::try_to_lock);
  if (!lock) return grpc::Status(grpc::StatusCode::ABORTED, "another upload is in progress");
  absl::StatusOr<std::unique_ptr<Transformer>> model = Transformer::Load(request->path());
  if (!model.ok()) return ToGrpc(model.status());
  engine_->SetModel(*std::move(model), request->path(), request->version());
  Log("info", "model loaded", {{"model", request->path()}, {"job", request->version().job()}});
  *reply->mutable_version() = request->version();
  return grpc::Status::OK;
}

}  // namespace e3
