#include "rollout_server/service/weights_service.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

bool AllFinite(const float* values, int64_t n) {
  // An exponent of all ones, without branches.
  uint32_t worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    worst = std::max(worst, bits & 0x7f800000u);
  }
  return worst != 0x7f800000u;
}

}  // namespace

grpc::Status WeightsService::Upload(grpc::ServerContext* context,
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
  const std::vector<ParameterSlot> slots = engine_->Slots();
  const int64_t size = slots.back().offset + slots.back().size;
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
    if (!AllFinite(staged.data() + slots[i].offset, slots[i].size)) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                          absl::StrCat(slots[i].name,
                                       " has values that are not finite; the training "
                                       "has diverged"));
    }
  }
  const absl::Status switched =
      engine_->SetParameters(std::move(staged), manifest.version(), manifest.running(),
                             [&] { return context->IsCancelled(); });
  if (!switched.ok()) return ToGrpc(switched);

  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  *reply->mutable_version() = manifest.version();
  reply->set_bytes(received);
  reply->set_seconds(seconds);
  CounterMetric("e3_rollout_weight_updates_total", "Weight updates switched to").Increment();
  CounterMetric("e3_rollout_weight_bytes_total", "Bytes of weight updates received")
      .Increment(static_cast<double>(received));
  GaugeMetric("e3_rollout_weight_update_seconds",
              "Duration of the last weight update, from the manifest to the switch")
      .Set(seconds);
  return grpc::Status::OK;
}

grpc::Status WeightsService::LoadModel(grpc::ServerContext*, const v1::LoadModelRequest* request,
                                       v1::LoadModelReply* reply) {
  std::unique_lock<std::mutex> lock(upload_mutex_, std::try_to_lock);
  if (!lock) return grpc::Status(grpc::StatusCode::ABORTED, "another upload is in progress");
  if (absl::Status status = engine_->CheckTerm(request->version()); !status.ok())
    return ToGrpc(status);
  absl::StatusOr<std::unique_ptr<ServedModel>> model = load_(request->path());
  if (!model.ok()) return ToGrpc(model.status());
  absl::Status status = engine_->SetModel(*std::move(model), request->path(), request->version());
  if (!status.ok()) return ToGrpc(status);
  Log("info", "model loaded", {{"model", request->path()}, {"job", request->version().job()}});
  *reply->mutable_version() = request->version();
  return grpc::Status::OK;
}

}  // namespace e3
