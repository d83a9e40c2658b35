// HTTP servers of a process.
#ifndef E3_SERVICES_RUNTIME_HTTP_H_
#define E3_SERVICES_RUNTIME_HTTP_H_

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace httplib {
class Server;
}

namespace e3 {

struct HostPort {
  std::string host;  // "0.0.0.0" where none is named; of IPv6 without brackets
  int port;
};

// "host:port". InvalidArgument for anything else, a port above 65535 included.
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

// Binds `server` to the address, which no other process may share, and serves in a thread that ends
// with server.stop(). Unavailable when the address is taken.
absl::StatusOr<std::thread> ServeHttp(httplib::Server& server, const std::string& address);

// /metrics of this process in Prometheus's text format, served for as long as it lives. (The server
// of prometheus-cpp gives its threads stacks of 100 KiB; what CUDA's libraries keep for each thread
// does not fit into that.)
class MetricsServer {
 public:
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Open(const std::string& address);
  ~MetricsServer();

 private:
  MetricsServer();
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
};

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_HTTP_H_
