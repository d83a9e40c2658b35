#include "rollout_server/http/openai_door.h"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "rollout_server/http/completion_request.h"
#include "rollout_server/http/completion_text.h"
#include "rollout_server/service/client_window.h"
#include "services/runtime/metrics.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kThreads = 256;  // open requests
constexpr size_t kMaxBodyBytes = 64 << 20;
constexpr std::chrono::milliseconds kPoll{200};
constexpr int64_t kWindowTokens = 4096;  // on their way to a client before it pauses

uint64_t Random() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// Tokens need not be UTF-8 by themselves.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int HttpCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    default:
      return 503;
  }
}

Json Error(const absl::Status& status) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  const bool names_field =
      absl::IsInvalidArgument(status) && colon != std::string::npos && message.find(' ') > colon;
  return {{"error",
           {{"message", message},
            {"type", HttpCode(status) == 503 ? "server_error" : "invalid_request_error"},
            {"param", names_field ? Json(message.substr(0, colon)) : Json()},
            {"code", absl::StatusCodeToString(status.code())}}}};
}

void Reply(const absl::Status& status, httplib::Response& response) {
  response.status = HttpCode(status);
  response.set_content(Dump(Error(status)), "application/json");
}

// What the engine made of one HTTP request, in order.
class Inbox final : public RolloutSink {
 public:
  struct Event {
    uint64_t request;
    SampleOutput output;
    absl::Status failure;
  };
  void OnOutput(uint64_t request_id, SampleOutput output, const v1::WeightVersion&) override {
    std::lock_guard<std::mutex> lock(mutex_);
    window_.Add(static_cast<int64_t>(output.tokens.size()));
    events_.push_back({request_id, std::move(output), absl::OkStatus()});
    ready_.notify_one();
  }
  void OnFailure(uint64_t request_id, const absl::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    events_.push_back({request_id, {}, status});
    ready_.notify_one();
  }
  bool full() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return window_.PauseIfFull();
  }
  // The next event; nullopt after `timeout`.
  std::optional<Event> Take(std::chrono::milliseconds timeout, EngineThread* engine) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!ready_.wait_for(lock, timeout, [&] { return !events_.empty(); })) return std::nullopt;
    Event event = std::move(events_.front());
    events_.pop_front();
    if (window_.Remove(static_cast<int64_t>(event.output.tokens.size()))) engine->Resume(this);
    return event;
  }
  void PutBack(Event event) {
    std::lock_guard<std::mutex> lock(mutex_);
    window_.Add(static_cast<int64_t>(event.output.tokens.size()));
    events_.push_front(std::move(event));
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Event> events_;
  ClientWindow window_{kWindowTokens};
};

// The log-probabilities of a choice in the shapes of both end points.
class LogprobList {
 public:
  LogprobList(const Tokenizer* tokenizer, bool chat) : tokenizer_(tokenizer), chat_(chat) {}

  // `known`: false for the first token of a prompt, which nothing predicts.
  void Add(const OutputToken& t, bool known) {
    const std::string text = Text(t.token);
    Json logprob = known ? Json(t.logprob) : Json();
    if (chat_) {
      Json entry = Entry(t.token, logprob);
      entry["top_logprobs"] = Json::array();
      for (const TopToken& top : t.top)
        entry["top_logprobs"].push_back(Entry(top.token, top.logprob));
      content_.push_back(std::move(entry));
      return;
    }
    tokens_.push_back(text);
    logprobs_.push_back(std::move(logprob));
    Json tops = Json::object();
    for (const TopToken& top : t.top) tops.emplace(Text(top.token), top.logprob);
    // The drawn token is always among them.
    if (!t.top.empty()) tops.emplace(text, t.logprob);
    top_.push_back(t.top.empty() ? Json() : tops);
    offsets_.push_back(offset_);
    offset_ += text.size();
  }
  // What was added since the last call.
  Json Take() {
    Json json;
    if (chat_) {
      json = {{"content", std::exchange(content_, Json::array())}};
    } else {
      json = {{"tokens", std::exchange(tokens_, Json::array())},
              {"token_logprobs", std::exchange(logprobs_, Json::array())},
              {"top_logprobs", std::exchange(top_, Json::array())},
              {"text_offset", std::exchange(offsets_, Json::array())}};
    }
    return json;
  }

 private:
  std::string Text(uint32_t token) const {
    return tokenizer_->Decode({token}, /*skip_special_tokens=*/false).value_or("");
  }
  Json Entry(uint32_t token, const Json& logprob) const {
    const std::string text = Text(token);
    Json bytes = Json::array();
    for (char c : text) bytes.push_back(static_cast<unsigned char>(c));
    return {{"token", text}, {"logprob", logprob}, {"bytes", bytes}};
  }

  const Tokenizer* tokenizer_;
  bool chat_;
  Json content_ = Json::array(), tokens_ = Json::array(), logprobs_ = Json::array(),
       top_ = Json::array(), offsets_ = Json::array();
  size_t offset_ = 0;
};

// One HTTP request on its way: turns the engine's outputs into choices.
class Completion {
 public:
  Completion(CompletionRequest request, std::shared_ptr<const PromptEncoder> encoder,
             EngineThread* engine, const std::atomic<bool>* stopping)
      : request_(std::move(request)),
        encoder_(std::move(encoder)),
        engine_(engine),
        stopping_(stopping),
        inbox_(std::make_shared<Inbox>()) {
    const v1::RolloutStatus status = engine->Status();
    const v1::WeightVersion& v = status.weights();
    header_ = {
        {"id", absl::StrCat(request_.chat ? "chatcmpl-" : "cmpl-", absl::Hex(Random()))},
        {"object", request_.chat ? request_.stream ? "chat.completion.chunk" : "chat.completion"
                                 : "text_completion"},
        {"created", std::time(nullptr)},
        {"model", request_.model.empty() ? status.model() : request_.model},
        // The weights that served as the request came: which policy this is.
        {"system_fingerprint", absl::StrCat(v.job(), "/epoch-", v.epoch(), "/step-", v.step())}};
    for (const RolloutRequest& r : request_.requests) {
      usage_prompt_ += static_cast<int64_t>(r.prompt.size());
      for (int64_t i = 0; i < r.n; ++i) choices_.emplace_back(&encoder_->tokenizer(), request_);
    }
    unfinished_ = choices_.size();
    n_ = static_cast<size_t>(request_.requests[0].n);
    for (const RolloutRequest& r : request_.requests) engine_->Submit(inbox_, r);
  }
  ~Completion() { engine_->Detach(inbox_.get()); }

  // Waits for the first thing that the engine says: an error is the answer.
  absl::Status WaitForFirst() {
    while (true) {
      if (*stopping_) return absl::UnavailableError("the server is stopping");
      std::optional<Inbox::Event> event = inbox_->Take(kPoll, engine_);
      if (!event) continue;
      absl::Status failure = event->failure;
      inbox_->PutBack(*std::move(event));
      return failure;
    }
  }

  // Does a part of the work and writes what is to be written; false: the client is gone.
  bool Advance(httplib::DataSink& out) {
    if (*stopping_ || !out.is_writable()) return false;
    std::optional<Inbox::Event> event = inbox_->Take(kPoll, engine_);
    if (!event) return true;
    if (!event->failure.ok()) {
      // Behind the header there is no status code left to say it with.
      const std::string error = Dump(Error(event->failure));
      Write(out, request_.stream ? absl::StrCat("data: ", error, "\n\n") : error);
      out.done();
      return true;
    }
    Handle(event->request, event->output, out);
    if (unfinished_ > 0) return true;
    if (request_.stream) {
      if (request_.include_usage) {
        Json last = header_;
        last["choices"] = Json::array();
        last["usage"] = Usage();
        Event(out, last);
      }
      Write(out, "data: [DONE]\n\n");
    } else {
      Json reply = header_;
      reply["choices"] = Json::array();
      for (size_t i = 0; i < choices_.size(); ++i) reply["choices"].push_back(WholeChoice(i));
      reply["usage"] = Usage();
      Write(out, Dump(reply));
    }
    out.done();
    return true;
  }

  bool stream() const { return request_.stream; }

 private:
  struct Choice {
    Choice(const Tokenizer* tokenizer, const CompletionRequest& request)
        : text(tokenizer, request.stops), logprobs(tokenizer, request.chat) {}
    CompletionText text;
    LogprobList logprobs;
    std::string whole;
    bool begun = false;
    Json finish_reason;
  };

  void Handle(uint64_t request, SampleOutput& output, httplib::DataSink& out) {
    const size_t index = request * n_ + output.sample;
    Choice& choice = choices_[index];
    std::string text;
    if (!choice.begun && request_.echo) text += Echo(request, output, &choice);
    if (!request_.no_tokens) {
      for (const OutputToken& token : output.tokens) {
        text += choice.text.Push(token.token);
        if (request_.logprobs) choice.logprobs.Add(token, true);
        ++usage_completion_;
      }
    }
    if (output.finish != Finish::kNone) {
      text += choice.text.Finish();
      choice.finish_reason =
          output.finish == Finish::kStop && !request_.no_tokens ? "stop" : "length";
      --unfinished_;
    }
    if (!request_.stream) {
      choice.whole += text;
      choice.begun = true;
      return;
    }
    if (text.empty() && output.finish == Finish::kNone && choice.begun) return;
    Json part = {{"index", index}};
    if (request_.chat) {
      part["delta"] = Json::object();
      if (!choice.begun) part["delta"]["role"] = "assistant";
      part["delta"]["content"] = text;
    } else {
      part["text"] = text;
    }
    part["logprobs"] = request_.logprobs ? choice.logprobs.Take() : Json();
    part["finish_reason"] = choice.finish_reason;
    choice.begun = true;
    Json chunk = header_;
    chunk["choices"] = Json::array({part});
    Event(out, chunk);
  }

  // The prompt in front of a choice, with its log-probabilities.
  std::string Echo(uint64_t request, const SampleOutput& output, Choice* choice) {
    const std::vector<uint32_t>& prompt = request_.requests[request].prompt;
    if (request_.logprobs && output.sample == 0) prompt_tokens_[request] = output.prompt_tokens;
    if (request_.logprobs) {
      OutputToken first;
      first.token = prompt[0];
      choice->logprobs.Add(first, false);
      for (const OutputToken& token : prompt_tokens_[request]) choice->logprobs.Add(token, true);
    }
    return encoder_->tokenizer().Decode(prompt, /*skip_special_tokens=*/true).value_or("");
  }

  Json WholeChoice(size_t index) {
    Choice& choice = choices_[index];
    Json json = {{"index", index}};
    if (request_.chat) {
      json["message"] = {{"role", "assistant"}, {"content", choice.whole}};
    } else {
      json["text"] = choice.whole;
    }
    json["logprobs"] = request_.logprobs ? choice.logprobs.Take() : Json();
    json["finish_reason"] = choice.finish_reason;
    return json;
  }

  Json Usage() const {
    return {{"prompt_tokens", usage_prompt_},
            {"completion_tokens", usage_completion_},
            {"total_tokens", usage_prompt_ + usage_completion_}};
  }
  static void Write(httplib::DataSink& out, const std::string& text) {
    out.write(text.data(), text.size());
  }
  static void Event(httplib::DataSink& out, const Json& json) {
    Write(out, absl::StrCat("data: ", Dump(json), "\n\n"));
  }

  CompletionRequest request_;
  std::shared_ptr<const PromptEncoder> encoder_;
  EngineThread* engine_;
  const std::atomic<bool>* stopping_;
  std::shared_ptr<Inbox> inbox_;
  Json header_;
  std::vector<Choice> choices_;
  std::map<uint64_t, std::vector<OutputToken>> prompt_tokens_;
  size_t unfinished_ = 0, n_ = 1;
  int64_t usage_prompt_ = 0, usage_completion_ = 0;
};

void Complete(EngineThread* engine, const std::atomic<bool>* stopping, bool chat,
              const httplib::Request& http, httplib::Response& response) {
  CounterMetric("e3_rollout_http_requests_total", "Requests of the HTTP door",
                {{"endpoint", chat ? "chat" : "completions"}})
      .Increment();
  std::shared_ptr<const PromptEncoder> encoder = engine->encoder();
  if (encoder == nullptr)
    return Reply(absl::UnavailableError("the server has no model with a tokenizer yet"), response);
  Json body = Json::parse(http.body, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded())
    return Reply(absl::InvalidArgumentError("the body is not JSON"), response);
  absl::StatusOr<CompletionRequest> request;
  try {
    request = ParseCompletionRequest(
        body, chat, *encoder, static_cast<int64_t>(engine->Status().context_length()), Random());
  } catch (const Json::exception& e) {
    request = absl::InvalidArgumentError(e.what());
  }
  if (!request.ok()) return Reply(request.status(), response);
  auto completion =
      std::make_shared<Completion>(*std::move(request), std::move(encoder), engine, stopping);
  if (absl::Status status = completion->WaitForFirst(); !status.ok())
    return Reply(status, response);
  response.set_chunked_content_provider(
      completion->stream() ? "text/event-stream" : "application/json",
      [completion](size_t, httplib::DataSink& out) { return completion->Advance(out); });
}

}  // namespace

OpenAiDoor::OpenAiDoor() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<OpenAiDoor>> OpenAiDoor::Open(const std::string& address,
                                                             EngineThread* engine) {
  const size_t colon = address.rfind(':');
  int port;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port))
    return absl::InvalidArgumentError(absl::StrCat("'", address, "' is not host:port (--http)"));
  std::unique_ptr<OpenAiDoor> door(new OpenAiDoor);
  httplib::Server& server = *door->server_;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server.set_payload_max_length(kMaxBodyBytes);
  server.set_tcp_nodelay(true);
  server.set_keep_alive_timeout(2);  // also how long an idle client delays the end of the server
  server.Get("/health", [engine](const httplib::Request&, httplib::Response& response) {
    response.status = engine->Status().model().empty() ? 503 : 200;
  });
  server.Get("/trace", [engine](const httplib::Request&, httplib::Response& response) {
    response.set_header("Content-Disposition", "attachment; filename=e3-trace.json");
    response.set_content(engine->TraceJson(), "application/json");
  });
  server.Get("/v1/models", [engine](const httplib::Request&, httplib::Response& response) {
    const v1::RolloutStatus status = engine->Status();
    Json data = Json::array();
    if (!status.model().empty()) {
      data.push_back({{"id", status.model()},
                      {"object", "model"},
                      {"created", 0},
                      {"owned_by", "e3"},
                      {"max_model_len", status.context_length()},
                      {"weights",
                       {{"job", status.weights().job()},
                        {"epoch", status.weights().epoch()},
                        {"step", status.weights().step()}}}});
    }
    response.set_content(Dump({{"object", "list"}, {"data", data}}), "application/json");
  });
  const std::atomic<bool>* stopping = &door->stopping_;
  for (bool chat : {false, true}) {
    server.Post(
        chat ? "/v1/chat/completions" : "/v1/completions",
        [engine, stopping, chat](const httplib::Request& request, httplib::Response& response) {
          Complete(engine, stopping, chat, request, response);
        });
  }
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    response.set_content(Dump({{"error",
                                {{"message", absl::StrCat(request.method, " ", request.path,
                                                          ": HTTP ", response.status)},
                                 {"type", "invalid_request_error"},
                                 {"param", Json()},
                                 {"code", Json()}}}}),
                         "application/json");
  });
  if (!server.bind_to_port(address.substr(0, colon).c_str(), port))
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, " (--http)"));
  door->thread_ = std::thread([&server] { server.listen_after_bind(); });
  return door;
}

OpenAiDoor::~OpenAiDoor() {
  stopping_ = true;
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace e3
