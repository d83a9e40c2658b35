// The HTTP door: the engine as an OpenAI-compatible server, so that evaluation harnesses and other
// clients of the ecosystem can talk to the policy while it is being trained.
//
//   GET  /v1/models              the model, and the version of its weights
//   POST /v1/completions         prompt: text or token ids; logprobs, echo, n, stream, …
//   POST /v1/chat/completions    messages through the model's chat template; logprobs, n, stream, …
//   GET  /health                 200 when there is a model
//   GET  /trace                  the last engine steps, for ui.perfetto.dev
//
// Requests run with the priority of evaluation. A client that goes away takes back what it asked
// for; one that reads slowly pauses.
#ifndef E3_ROLLOUT_SERVER_HTTP_OPENAI_DOOR_H_
#define E3_ROLLOUT_SERVER_HTTP_OPENAI_DOOR_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "rollout_server/service/engine_thread.h"

namespace httplib {
class Server;
}

namespace e3 {

class OpenAiDoor {
 public:
  // Listens on "host:port" from now on. `engine` outlives the door. Unavailable when the address
  // cannot be had.
  static absl::StatusOr<std::unique_ptr<OpenAiDoor>> Open(const std::string& address,
                                                          EngineThread* engine);
  // Ends all requests.
  ~OpenAiDoor();

 private:
  OpenAiDoor();
  std::atomic<bool> stopping_{false};
  std::shared_ptr<std::atomic<int>> open_ = std::make_shared<std::atomic<int>>(0);  // completions
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_OPENAI_DOOR_H_
