// Models and weight updates of a rollout server.
#ifndef E3_ROLLOUT_SERVER_SERVICE_WEIGHTS_SERVICE_H_
#define E3_ROLLOUT_SERVER_SERVICE_WEIGHTS_SERVICE_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "e3/v1/weights.grpc.pb.h"
#include "rollout_server/service/engine_thread.h"

namespace e3 {

// Loads a Hugging Face folder.
using ModelLoader =
    std::function<absl::StatusOr<std::unique_ptr<ServedModel>>(const std::string& path)>;

class WeightsService final : public v1::Weights::Service {
 public:
  WeightsService(EngineThread* engine, ModelLoader load)
      : engine_(engine), load_(std::move(load)) {}

  grpc::Status Upload(grpc::ServerContext* context, grpc::ServerReader<v1::UploadRequest>* reader,
                      v1::UploadReply* reply) override;
  grpc::Status LoadModel(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                         v1::LoadModelReply* reply) override;

 private:
  EngineThread* engine_;
  ModelLoader load_;
  std::mutex upload_mutex_;  // one upload or load at a time
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_WEIGHTS_SERVICE_H_
