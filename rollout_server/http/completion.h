// One request of the HTTP door on its way: the engine's outputs become choices.
#ifndef E3_ROLLOUT_SERVER_HTTP_COMPLETION_H_
#define E3_ROLLOUT_SERVER_HTTP_COMPLETION_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "rollout_server/http/completion_request.h"
#include "rollout_server/http/completion_text.h"
#include "rollout_server/http/logprob_list.h"
#include "rollout_server/service/client_window.h"
#include "rollout_server/service/engine_thread.h"

namespace e3 {

// What the engine made of one HTTP request, in order. Thread-safe.
class Inbox final : public RolloutSink {
 public:
  struct Event {
    uint64_t request;
    SampleOutput output;
    v1::WeightVersion version;
    absl::Status failure;
  };

  // All requests of the door are one account.
  Inbox();
  void OnOutput(uint64_t request_id, SampleOutput output,
                const v1::WeightVersion& version) override;
  void OnFailure(uint64_t request_id, const absl::Status& status) override;
  bool full() override;
  // The next event, which Pop takes away; null after `timeout`. One thread takes.
  const Event* Wait(std::chrono::milliseconds timeout);
  Event Pop(EngineThread* engine);

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Event> events_;
  ClientWindow window_;
};

class Completion {
 public:
  // Asks the engine. `engine` outlives this object; destroying it takes back what was asked.
  // `give_up`, asked a few times a second, says why to stop: the client is gone, or the server.
  Completion(CompletionRequest request, std::shared_ptr<const PromptEncoder> encoder,
             EngineThread* engine, std::function<absl::Status()> give_up);
  ~Completion();

  // The whole answer.
  absl::StatusOr<std::string> Whole();

  // For streams. WaitForFirst returns when there is something to say, or the reason why there will
  // not be. Next appends server-sent events to `out` (sometimes none) until `over`.
  absl::Status WaitForFirst();
  void Next(std::string* out, bool* over);

  static std::string ErrorJson(const absl::Status& status);
  static int HttpCode(const absl::Status& status);

 private:
  struct Choice {
    Choice(const Tokenizer* tokenizer, const CompletionRequest& request)
        : text(tokenizer, request.stops, request.min_tokens), logprobs(tokenizer, request.chat) {}
    CompletionText text;
    LogprobList logprobs;
    std::string whole;
    bool begun = false;
    nlohmann::ordered_json finish_reason;
  };
  using Json = nlohmann::ordered_json;

  // Waits for the next event and takes its output in; the text that it adds to its choice.
  struct Piece {
    size_t index;
    std::string text;
    bool begins, ends;
  };
  absl::StatusOr<Piece> Take();
  std::string Echo(uint64_t request, const SampleOutput& output, Choice* choice);
  Json Usage() const;

  CompletionRequest request_;
  std::shared_ptr<const PromptEncoder> encoder_;
  EngineThread* engine_;
  std::function<absl::Status()> give_up_;
  std::shared_ptr<Inbox> inbox_;
  Json header_;
  std::vector<Choice> choices_;
  std::map<uint64_t, std::vector<OutputToken>> prompt_tokens_;
  std::optional<v1::WeightVersion> first_version_;
  size_t unfinished_ = 0, n_ = 1;
  int64_t usage_prompt_ = 0, usage_completion_ = 0;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_COMPLETION_H_
