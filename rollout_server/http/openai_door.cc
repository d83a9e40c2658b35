#include "rollout_server/http/openai_door.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <netdb.h>
#include <sys/socket.h>

#include <filesystem>
#include <random>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "rollout_server/http/completion.h"
#include "rollout_server/http/completion_request.h"
#include "services/runtime/http.h"
#include "services/runtime/metrics.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kOpenRequests = 256, kOtherThreads = 16;
constexpr size_t kMaxBodyBytes = 64 << 20;
constexpr int kMaxNesting = 64;
constexpr time_t kSlowestReaderSeconds = 600;

void Reply(const absl::Status& status, httplib::Response& response) {
  response.status = Completion::HttpCode(status);
  response.set_content(Completion::ErrorJson(status), "application/json");
}

// Levels of arrays and objects in a JSON text: what reads it is recursive.
int Nesting(const std::string& text) {
  int depth = 0, deepest = 0;
  bool string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (string) {
      if (c == '\\') ++i;
      string = c != '"';
    } else if (c == '"') {
      string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// The socket of a request, which the HTTP library does not tell; -1 when it is not found.
int SocketOf(const httplib::Request& request) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    int fd;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &fd)) continue;
    sockaddr_storage peer;
    socklen_t size = sizeof peer;
    auto* address = reinterpret_cast<sockaddr*>(&peer);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getpeername(fd, address, &size) == 0 &&
        getnameinfo(address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0 &&
        request.remote_addr == host && std::to_string(request.remote_port) == port) {
      return fd;
    }
  }
  return -1;
}

bool IsClosed(int socket) {
  char byte;
  const ssize_t n = recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

struct Door {
  EngineThread* engine;
  const std::atomic<bool>* stopping;
  std::shared_ptr<std::atomic<int>> open;  // completions
};

void Complete(const std::shared_ptr<Door>& door, bool chat, const httplib::Request& http,
              const std::string& text, httplib::Response& response) {
  CounterMetric("e3_rollout_http_requests_total", "Requests of the HTTP door",
                {{"endpoint", chat ? "chat" : "completions"}})
      .Increment();
  // Given back when the answer is over, however it ends.
  auto place = std::shared_ptr<void>(nullptr, [open = door->open](void*) { --*open; });
  if (++*door->open > kOpenRequests) {
    response.set_header("Retry-After", "1");
    return Reply(absl::ResourceExhaustedError(
                     absl::StrCat("more than ", kOpenRequests, " requests are open; ask again")),
                 response);
  }
  std::shared_ptr<const PromptEncoder> encoder = door->engine->encoder();
  if (encoder == nullptr)
    return Reply(absl::UnavailableError("the server has no model with a tokenizer yet"), response);
  if (Nesting(text) > kMaxNesting) {
    return Reply(absl::InvalidArgumentError(
                     absl::StrCat("the body is nested deeper than ", kMaxNesting, " levels")),
                 response);
  }
  Json body = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded())
    return Reply(absl::InvalidArgumentError("the body is not JSON"), response);
  std::random_device device;
  absl::StatusOr<CompletionRequest> request;
  try {
    request = ParseCompletionRequest(body, chat, *encoder,
                                     static_cast<int64_t>(door->engine->Status().context_length()),
                                     (static_cast<uint64_t>(device()) << 32) | device());
  } catch (const Json::exception& e) {
    request = absl::InvalidArgumentError(e.what());
  }
  if (!request.ok()) return Reply(request.status(), response);
  const bool stream = request->stream;
  const int socket = SocketOf(http);
  auto give_up = [door, socket] {
    if (*door->stopping) return absl::UnavailableError("the server is stopping");
    if (socket >= 0 && IsClosed(socket)) return absl::CancelledError("the client is gone");
    return absl::OkStatus();
  };
  auto completion =
      std::make_shared<Completion>(*std::move(request), std::move(encoder), door->engine, give_up);
  if (!stream) {
    absl::StatusOr<std::string> whole = completion->Whole();
    if (!whole.ok()) return Reply(whole.status(), response);
    return response.set_content(*whole, "application/json");
  }
  if (absl::Status status = completion->WaitForFirst(); !status.ok())
    return Reply(status, response);
  response.set_chunked_content_provider(
      "text/event-stream", [completion, place](size_t, httplib::DataSink& out) {
        std::string events;
        bool over = false;
        completion->Next(&events, &over);
        // Blocks while the client does not read; the engine pauses its rollouts meanwhile.
        if (!events.empty() && !out.write(events.data(), events.size())) return false;
        if (over) out.done();
        return true;
      });
}

}  // namespace

OpenAiDoor::OpenAiDoor() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<OpenAiDoor>> OpenAiDoor::Open(const std::string& address,
                                                             EngineThread* engine) {
  std::unique_ptr<OpenAiDoor> door(new OpenAiDoor);
  httplib::Server& server = *door->server_;
  server.new_task_queue = [] { return new httplib::ThreadPool(kOpenRequests + kOtherThreads); };
  server.set_payload_max_length(kMaxBodyBytes);
  server.set_tcp_nodelay(true);
  server.set_write_timeout(kSlowestReaderSeconds);
  server.set_keep_alive_timeout(2);  // also how long an idle client delays the end of the server
  server.Get("/health", [engine](const httplib::Request&, httplib::Response& response) {
    if (engine->Status().model().empty())
      Reply(absl::UnavailableError("the server has no model yet"), response);
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
    response.set_content(Json{{"object", "list"}, {"data", data}}.dump(), "application/json");
  });
  auto shared = std::make_shared<Door>();
  shared->engine = engine;
  shared->stopping = &door->stopping_;
  shared->open = door->open_;
  for (bool chat : {false, true}) {
    const char* path = chat ? "/v1/chat/completions" : "/v1/completions";
    // The body is read here: the library would take one without a content type for a form, of 8 KB
    // at most.
    server.Post(path, [shared, chat](const httplib::Request& request, httplib::Response& response,
                                     const httplib::ContentReader& read) {
      std::string text;
      const bool whole = read([&text](const char* data, size_t size) {
        text.append(data, size);
        return true;
      });
      if (whole) Complete(shared, chat, request, text, response);
    });
    server.Get(path, [path](const httplib::Request&, httplib::Response& response) {
      Reply(absl::InvalidArgumentError(absl::StrCat(path, " is asked with POST")), response);
      response.status = 405;
    });
  }
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    // What the library refuses by itself; a path that is not UTF-8 would not be JSON.
    response.set_content(
        Completion::ErrorJson(absl::InvalidArgumentError(absl::StrCat(
            request.method, " ", request.path, " is answered with HTTP ", response.status))),
        "application/json");
  });
  E3_ASSIGN_OR_RETURN(door->thread_, ServeHttp(server, address));
  return door;
}

OpenAiDoor::~OpenAiDoor() {
  stopping_ = true;
  // Every answer ends with the error that says so; who does not read it is not waited for.
  for (int i = 0; i < 200 && *open_ > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace e3
