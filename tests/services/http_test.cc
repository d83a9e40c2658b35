#include "services/runtime/http.h"

#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "services/runtime/metrics.h"

namespace e3 {
namespace {

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name = {};
  socklen_t size = sizeof name;
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&name), size) == 0);
  REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0);
  close(fd);
  return ntohs(name.sin_port);
}

TEST_CASE("an address is a host and a port") {
  CHECK(ParseHostPort("host:80")->host == "host");
  CHECK(ParseHostPort("host:80")->port == 80);
  CHECK(ParseHostPort(":80")->host == "0.0.0.0");
  CHECK(ParseHostPort("[::1]:80")->host == "::1");
  for (const char* bad : {"", "80", "host", "host:", "host:x", "host:-1", "host:65536"})
    CHECK(absl::IsInvalidArgument(ParseHostPort(bad).status()));
}

TEST_CASE("metrics are served as Prometheus reads them, by one process at an address") {
  const int port = FreePort();
  const std::string address = "127.0.0.1:" + std::to_string(port);
  auto metrics = MetricsServer::Open(address);
  REQUIRE(metrics.ok());
  CounterMetric("e3_http_test_total", "A test's", {{"kind", "a"}}).Increment(3);
  httplib::Client client("127.0.0.1", port);
  auto answer = client.Get("/metrics");
  REQUIRE(answer);
  CHECK(answer->status == 200);
  CHECK(absl::StartsWith(answer->get_header_value("Content-Type"), "text/plain; version=0.0.4"));
  CHECK(absl::StrContains(answer->body, "# TYPE e3_http_test_total counter"));
  CHECK(absl::StrContains(answer->body, "e3_http_test_total{kind=\"a\"} 3"));
  CHECK(client.Get("/")->status == 404);
  CHECK(absl::IsUnavailable(MetricsServer::Open(address).status()));
  metrics->reset();
  CHECK(MetricsServer::Open(address).ok());  // free again
}

}  // namespace
}  // namespace e3
