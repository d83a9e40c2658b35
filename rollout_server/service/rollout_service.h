// The rollout server's gRPC services over an EngineThread.
#ifndef E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_
#define E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_

#include <atomic>
#include <mutex>
#include <set>

#include "e3/v1/rollouts.grpc.pb.h"
#include "e3/v1/weights.grpc.pb.h"
#include "rollout_server/service/engine_thread.h"

namespace e3 {

class RolloutService final : public v1::Rollouts::Service {
 public:
  explicit RolloutService(EngineThread* engine) : engine_(engine) {}

  grpc::Status Generate(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::GenerateReply, v1::GenerateRequest>* stream) override;
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetRolloutStatusRequest* request,
                         v1::RolloutStatus* reply) override;
  // Ends all streams.
  void Drain();

 private:
  EngineThread* engine_;
  std::mutex mutex_;
  std::set<grpc::ServerContext*> streams_;
  bool draining_ = false;
};

class WeightsService final : public v1::Weights::Service {
 public:
  explicit WeightsService(EngineThread* engine) : engine_(engine) {}

  grpc::Status Upload(grpc::ServerContext* context, grpc::ServerReader<v1::UploadRequest>* reader,
                      v1::UploadReply* reply) override;
  grpc::Status LoadModel(grpc::ServerContext* context, const v1::LoadModelRequest* request,
                         v1::LoadModelReply* reply) override;

 private:
  EngineThread* engine_;
  std::mutex upload_mutex_;  // one upload or load at a time
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_
