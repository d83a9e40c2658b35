#include "services/runtime/http.h"

#include <httplib.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/runtime/metrics.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not host:port with a port of at most 65535"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return HostPort{host.empty() ? "0.0.0.0" : host, port};
}

absl::StatusOr<std::thread> ServeHttp(httplib::Server& server, const std::string& address) {
  E3_ASSIGN_OR_RETURN(HostPort at, ParseHostPort(address));
  // Without SO_REUSEPORT, with which a second server would take every other connection.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  if (!server.bind_to_port(at.host.c_str(), at.port))
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, "; is it taken?"));
  auto ended = std::make_shared<std::atomic<bool>>(false);
  std::thread thread([&server, ended] {
    server.listen_after_bind();
    *ended = true;
  });
  // stop() does nothing to a server that does not run yet.
  while (!server.is_running() && !*ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return thread;
}

MetricsServer::MetricsServer() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Open(const std::string& address) {
  std::unique_ptr<MetricsServer> metrics(new MetricsServer);
  httplib::Server& server = *metrics->server_;
  server.new_task_queue = [] { return new httplib::ThreadPool(8); };
  server.set_keep_alive_timeout(2);  // also how long an idle client delays the end of the process
  server.Get("/metrics", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(prometheus::TextSerializer().Serialize(MetricsRegistry()->Collect()),
                         "text/plain; version=0.0.4; charset=utf-8");
  });
  E3_ASSIGN_OR_RETURN(metrics->thread_, ServeHttp(server, address));
  return metrics;
}

MetricsServer::~MetricsServer() {
  if (!thread_.joinable()) return;
  server_->stop();
  thread_.join();
}

}  // namespace e3
