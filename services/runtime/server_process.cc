#include "services/runtime/server_process.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "services/runtime/http.h"
#include "services/runtime/log.h"
#include "services/runtime/rpc.h"

namespace e3 {

void AddServerFlags(CLI::App& app, int default_port, ServerFlags* flags) {
  flags->listen = absl::StrCat("127.0.0.1:", default_port);
  flags->metrics = absl::StrCat("127.0.0.1:", default_port + 100);
  app.add_option("--listen", flags->listen, "Address of the gRPC server (host:port)")
      ->capture_default_str();
  app.add_option("--metrics", flags->metrics,
                 "Address of the Prometheus endpoint /metrics; empty for none")
      ->capture_default_str();
}

ServerProcess::ServerProcess(const std::string& name, const ServerFlags& flags)
    : name_(name), flags_(flags) {
  SetLogProcess(name);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int ServerProcess::Run(const std::vector<grpc::Service*>& services,
                       const std::function<void()>& drain) {
  for (const std::string& address : {flags_.listen, flags_.metrics}) {
    // gRPC would take what is left of 99999 in 16 bits for a port.
    if (address.empty() || ParseHostPort(address).ok()) continue;
    Log("error", "expected host:port with a port of at most 65535 (--listen, --metrics)",
        {{"address", address}});
    return 1;
  }
  std::unique_ptr<MetricsServer> metrics;
  if (!flags_.metrics.empty()) {
    absl::StatusOr<std::unique_ptr<MetricsServer>> opened = MetricsServer::Open(flags_.metrics);
    if (!opened.ok()) {
      Log("error", "cannot serve /metrics (--metrics HOST:PORT chooses another address)",
          {{"error", std::string(opened.status().message())}});
      return 1;
    }
    metrics = *std::move(opened);
  }

  // Touching the generated file links it in: reflection describes the health service from it.
  (void)grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(flags_.listen, grpc::InsecureServerCredentials(), &port);
  // Two servers on one port would share its connections silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    Log("error", "cannot listen; is the port taken? (--listen HOST:PORT chooses another)",
        {{"address", flags_.listen}});
    return 1;
  }
  Log("info", "serving",
      {{"address", flags_.listen}, {"metrics", flags_.metrics}, {"pid", getpid()}});

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int received = 0;
  sigwait(&signals, &received);
  Log("info", "draining", {{"signal", received == SIGTERM ? "SIGTERM" : "SIGINT"}});
  server->GetHealthCheckService()->SetServingStatus(false);
  if (drain) drain();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
  Log("info", "stopped");
  return 0;
}

}  // namespace e3
