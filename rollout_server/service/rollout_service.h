// The rollout server's streams over an EngineThread.
#ifndef E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_
#define E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "e3/v1/rollouts.grpc.pb.h"
#include "rollout_server/service/engine_thread.h"
#include "rollout_server/service/session.h"

namespace e3 {

class RolloutService final : public v1::Rollouts::Service {
 public:
  explicit RolloutService(EngineThread* engine);
  ~RolloutService() override;

  grpc::Status Generate(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::GenerateReply, v1::GenerateRequest>* stream) override;
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetRolloutStatusRequest* request,
                         v1::RolloutStatus* reply) override;
  grpc::Status GetTrace(grpc::ServerContext* context, const v1::GetTraceRequest* request,
                        v1::GetTraceReply* reply) override;
  // Ends all streams.
  void Drain();

 private:
  struct NamedSession {
    std::shared_ptr<RolloutSession> session;
    std::chrono::seconds grace;
    bool attached = false;
    Clock::time_point left;  // when the last stream went away
  };

  // The session of this name, which may be new.
  std::shared_ptr<RolloutSession> OpenSession(const v1::GenerateRequest::Open& open,
                                              v1::GenerateReply::Opened* opened, uint64_t* ticket);
  // The ticket's stream is gone.
  void LeaveSession(const std::string& name, const RolloutSession* session, uint64_t ticket);
  // Nobody can come back to the session from now on.
  void CloseSession(const std::string& name, const RolloutSession* session);
  void ReportSessions();  // with the lock
  // Forgets sessions whose client did not come back.
  void Expire();

  EngineThread* engine_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  std::set<grpc::ServerContext*> streams_;
  std::map<std::string, NamedSession> sessions_;
  bool draining_ = false, stop_ = false;
  std::thread reaper_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_ROLLOUT_SERVICE_H_
