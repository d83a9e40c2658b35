#include "learner/ranks/process_group.h"

#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

constexpr std::chrono::milliseconds kLook(200);
constexpr double kJoinSeconds = 30;

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

// A socket on a free port of `host`, and the port.
absl::StatusOr<std::pair<int, uint16_t>> BindFreePort(const std::string& host) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (int error = getaddrinfo(host.c_str(), "0", &hints, &found); error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rank-host ", host, " is no host: ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_storage name = {};
  socklen_t size = sizeof(name);
  if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    absl::Status status =
        FromErrno(errno, absl::StrCat("cannot listen at ", host, ": ", strerror(errno)));
    if (fd >= 0) close(fd);
    return status;
  }
  const bool v6 = name.ss_family == AF_INET6;
  return std::pair(fd, ntohs(v6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port
                                : reinterpret_cast<sockaddr_in&>(name).sin_port));
}

class StoreServer final : public Rendezvous {
 public:
  explicit StoreServer(c10::intrusive_ptr<c10d::TCPStore> store) : store_(std::move(store)) {}
  int port() const override { return store_->getPort(); }

 private:
  c10::intrusive_ptr<c10d::TCPStore> store_;
};

class ProcessGroup final : public Collectives {
 public:
  ProcessGroup(c10::intrusive_ptr<c10d::TCPStore> store, const GroupOptions& options)
      : options_(options) {
    auto gloo = c10d::ProcessGroupGloo::Options::create(Milliseconds(kJoinSeconds));
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.host));
    gloo->threads = 2;
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.size, gloo);
    group_->setTimeout(Milliseconds(options.timeout_seconds));
  }

  // The group's own destructor waits for operations that run, up to their time-out where a rank has
  // stalled: nobody else should.
  ~ProcessGroup() override {
    if (failed_.ok()) return;
    std::thread([group = std::move(group_), work = std::move(work_),
                 tensors = std::move(tensors_)]() mutable {
      group.reset();
    }).detach();
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  void StartAllReduce(const at::Tensor& values) override {
    Start({values}, [&](std::vector<at::Tensor>& tensors) { return group_->allreduce(tensors); });
  }

  void StartBroadcast(const at::Tensor& values, int root) override {
    Start({values}, [&](std::vector<at::Tensor>& tensors) {
      c10d::BroadcastOptions broadcast;
      broadcast.rootRank = root;
      return group_->broadcast(tensors, broadcast);
    });
  }

  absl::Status Wait() override {
    for (c10::intrusive_ptr<c10d::Work>& work : work_) {
      while (failed_.ok()) {
        try {
          work->wait(kLook);
          break;
        } catch (const std::exception& e) {
          // The operation failed; or it takes longer than a look, and may have ended meanwhile.
          if (work->isCompleted() && work->isSuccess()) break;
          if (work->isCompleted()) Fail(e.what());
          if (abandoned_) Fail("given up");
        }
      }
    }
    if (!failed_.ok()) return failed_;
    work_.clear();
    tensors_.clear();
    return absl::OkStatus();
  }

  void Abandon() override { abandoned_ = true; }

 private:
  template <typename F>
  void Start(std::vector<at::Tensor> tensors, F begin) {
    if (!failed_.ok()) return;
    try {
      tensors_.push_back(std::move(tensors));
      work_.push_back(begin(tensors_.back()));
    } catch (const std::exception& e) {
      Fail(e.what());
    }
  }
  void Fail(const char* why) {
    if (!failed_.ok()) return;
    failed_ = absl::UnavailableError(absl::StrCat("rank ", options_.rank, " of ", options_.size,
                                                  " lost another rank of its group: ", why));
  }

  GroupOptions options_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  std::vector<c10::intrusive_ptr<c10d::Work>> work_;
  std::vector<std::vector<at::Tensor>> tensors_;
  absl::Status failed_;
  std::atomic<bool> abandoned_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Create(const std::string& host) {
  try {
    // A store that opened its own port would listen on all interfaces.
    E3_ASSIGN_OR_RETURN(auto bound, BindFreePort(host));
    c10d::TCPStoreOptions options;
    options.port = bound.second;
    options.masterListenFd = bound.first;
    options.isServer = true;
    options.waitWorkers = false;
    return std::make_unique<StoreServer>(c10::make_intrusive<c10d::TCPStore>(host, options));
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat("cannot open a rendezvous for ranks: ", e.what()));
  }
}

absl::StatusOr<std::unique_ptr<Collectives>> JoinGroup(const GroupOptions& o) {
  try {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(o.store_port);
    options.isServer = false;
    options.waitWorkers = false;
    options.timeout = Milliseconds(kJoinSeconds);
    return std::make_unique<ProcessGroup>(
        c10::make_intrusive<c10d::TCPStore>(o.store_host, options), o);
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("rank ", o.rank, " of ", o.size, " could not enter its group (store at ",
                     o.store_host, ":", o.store_port, ", own host ", o.host, "): ", e.what()));
  }
}

}  // namespace e3
