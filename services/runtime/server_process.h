// What every server process of e3 is: flags, a gRPC server with health and reflection, /metrics,
// and a graceful end.
#ifndef E3_SERVICES_RUNTIME_SERVER_PROCESS_H_
#define E3_SERVICES_RUNTIME_SERVER_PROCESS_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace e3 {

struct ServerFlags {
  std::string listen;   // host:port of the gRPC server
  std::string metrics;  // host:port of /metrics; empty: none
};

// Adds --listen and --metrics with the given default port (metrics: port + 100) to `app`.
void AddServerFlags(CLI::App& app, int default_port, ServerFlags* flags);

class ServerProcess {
 public:
  // Names the process in logs and blocks SIGTERM and SIGINT, so that Run() receives them; so
  // construct it before the process starts threads.
  ServerProcess(const std::string& name, const ServerFlags& flags);

  // Serves until SIGTERM or SIGINT; then reports NOT_SERVING, calls `drain` (which makes long calls
  // end), waits up to ten seconds for calls in progress, and returns the exit code: 0, or 1 when
  // the server could not start.
  int Run(const std::vector<grpc::Service*>& services, const std::function<void()>& drain = {});

 private:
  std::string name_;
  ServerFlags flags_;
};

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_SERVER_PROCESS_H_
