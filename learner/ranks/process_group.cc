#include "learner/ranks/process_group.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
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
#ifdef E3_CUDA
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "learner/ranks/call_for_a_while.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"

namespace e3 {
namespace {

// What LibTorch does besides, switched off before there are threads. Time-outs and lost ranks are
// this file's business: NCCL's watchdogs would end the process, or hold a failed group for a
// minute. The flight recorder, which nobody reads here, keeps a map of the process's groups without
// a lock (2.11): two threads that each begin an operation of their own group crash it.
[[maybe_unused]] const bool switched_off = [] {
  for (const char* name : {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_ENABLE_MONITORING",
                           "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC",
                           "TORCH_FR_BUFFER_SIZE"})
    setenv(name, "0", /*overwrite=*/0);
  return true;
}();

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

c10::intrusive_ptr<c10d::Backend> MakeGloo(const c10::intrusive_ptr<c10d::TCPStore>& store,
                                           const GroupOptions& options) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(Milliseconds(kJoinSeconds));
  gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.host));
  gloo->threads = 2;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.size, gloo);
}

c10::intrusive_ptr<c10d::Backend> MakeNccl(
    [[maybe_unused]] const c10::intrusive_ptr<c10d::TCPStore>& store,
    [[maybe_unused]] const GroupOptions& options) {
#ifdef E3_CUDA
  auto nccl = c10d::ProcessGroupNCCL::Options::create();
  nccl->timeout = Milliseconds(options.timeout_seconds);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::make_intrusive<c10d::PrefixStore>("nccl", store), options.rank, options.size, nccl);
#else
  return nullptr;
#endif
}

class ProcessGroup final : public Collectives {
 public:
  ProcessGroup(const c10::intrusive_ptr<c10d::TCPStore>& store, const GroupOptions& options)
      : options_(options), gloo_(MakeGloo(store, options)) {
    if (options.device.is_cuda()) nccl_ = MakeNccl(store, options);
  }

  // Sees that all ranks are there and of one kind, and lets NCCL connect, which it does in its
  // first operation. Operations have their own time-out from then on.
  absl::Status Enter() {
    const at::Tensor gpus = at::full({1}, options_.device.is_cuda() ? 1.0 : 0.0);
    StartAllReduce(gpus);
    E3_RETURN_IF_ERROR(Wait());
    const int on_gpus = static_cast<int>(gpus.item<float>());
    if (on_gpus != 0 && on_gpus != options_.size) {
      return absl::InvalidArgumentError(absl::StrCat(
          on_gpus, " of ", options_.size, " ranks compute on GPUs: all must, or none (--device)"));
    }
    if (on_gpus > 0) {
      ConnectNccl();
      const absl::Status connected = Wait();
      if (absl::StrContains(connected.message(), "invalid usage")) {
        return absl::InvalidArgumentError(absl::StrCat(
            "NCCL refuses this group; has each rank a GPU of its own? ", connected.message()));
      }
      E3_RETURN_IF_ERROR(connected);
    }
    timeout_seconds_ = options_.timeout_seconds;
    gloo_->setTimeout(Milliseconds(timeout_seconds_));
    return absl::OkStatus();
  }

  // The end of a group waits for operations that run, up to their time-out where a rank has
  // stalled: nobody else should.
  ~ProcessGroup() override {
    const bool idle = failed_.ok() && work_.empty();
    auto end = [gloo = std::move(gloo_), nccl = std::move(nccl_), work = std::move(work_),
                tensors = std::move(tensors_)]() mutable {
      try {
        if (nccl != nullptr) nccl->abort();
      } catch (const std::exception&) {  // it is lost either way
      }
      if (nccl != nullptr) tensors.clear();  // nobody writes them now, and a GPU's memory is wanted
      nccl.reset();
      gloo.reset();
    };
    if (idle) {
      end();
    } else {
      std::thread(std::move(end)).detach();
    }
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }

  void StartAllReduce(const at::Tensor& values) override {
    Start(values, [](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
      return backend.allreduce(tensors);
    });
  }

  void StartBroadcast(const at::Tensor& values, int root) override {
    Start(values, [root](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
      c10d::BroadcastOptions broadcast;
      broadcast.rootRank = root;
      return backend.broadcast(tensors, broadcast);
    });
  }

  absl::Status Wait() override {
    const Stopwatch waiting;
    for (size_t i = 0; i < work_.size(); ++i) {
      const bool on_gpu = tensors_[i][0].is_cuda();
      while (failed_.ok() && !(on_gpu ? EndedOnGpu(*work_[i]) : Ended(*work_[i]))) {
        if (abandoned_) Fail("given up");
        // Gloo looks at the clock itself.
        if (on_gpu && waiting.Seconds() > timeout_seconds_) Fail("timed out");
      }
    }
    if (!failed_.ok()) return failed_;
    work_.clear();
    tensors_.clear();
    return absl::OkStatus();
  }

  void Abandon() override { abandoned_ = true; }

 private:
  // Begins a first operation, in which NCCL connects: with a rank that has died meanwhile for ever,
  // so it is not waited for longer than for joining. What hangs then is left behind.
  void ConnectNccl() {
    tensors_.push_back({at::ones({1}, at::TensorOptions(options_.device))});
    auto begun = CallForAWhile<c10::intrusive_ptr<c10d::Work>>(
        [nccl = nccl_, tensors = tensors_.back()]() mutable { return nccl->allreduce(tensors); },
        kJoinSeconds, [this] { return abandoned_.load(); });
    if (begun.ok()) {
      work_.push_back(*std::move(begun));
      return;
    }
    Fail(std::string(begun.status().message()).c_str());
    if (absl::IsDeadlineExceeded(begun.status())) (void)nccl_.release();  // its end would wait, too
  }

  template <typename F>
  void Start(const at::Tensor& values, F begin) {
    if (!failed_.ok()) return;
    try {
      tensors_.push_back({values});
      work_.push_back(begin(values.is_cuda() ? *nccl_ : *gloo_, tensors_.back()));
    } catch (const std::exception& e) {
      Fail(e.what());
    }
  }

  // Whether it has ended, looking for a while.
  bool Ended(c10d::Work& work) {
    try {
      work.wait(kLook);
      return true;
    } catch (const std::exception& e) {
      // The operation failed; or it takes longer than a look, and may have ended meanwhile.
      if (!work.isCompleted()) return false;
      if (!work.isSuccess()) Fail(e.what());
      return true;
    }
  }

  // NCCL's wait() only orders streams: whether the GPU has done it must be asked.
  bool EndedOnGpu(c10d::Work& work) {
    try {
      if (!work.isCompleted()) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        return false;
      }
      if (work.exception() != nullptr) std::rethrow_exception(work.exception());
      work.wait();
    } catch (const std::exception& e) {
      Fail(e.what());
    }
    return true;
  }
  void Fail(const char* why) {
    if (!failed_.ok()) return;
    failed_ = absl::UnavailableError(absl::StrCat("rank ", options_.rank, " of ", options_.size,
                                                  " lost another rank of its group: ", why));
  }

  GroupOptions options_;
  c10::intrusive_ptr<c10d::Backend> gloo_, nccl_;  // nccl_ of ranks on GPUs
  std::vector<c10::intrusive_ptr<c10d::Work>> work_;
  std::vector<std::vector<at::Tensor>> tensors_;
  double timeout_seconds_ = kJoinSeconds;
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
    auto group = std::make_unique<ProcessGroup>(
        c10::make_intrusive<c10d::TCPStore>(o.store_host, options), o);
    E3_RETURN_IF_ERROR(group->Enter());
    return group;
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("rank ", o.rank, " of ", o.size, " could not enter its group (store at ",
                     o.store_host, ":", o.store_port, ", own host ", o.host, "): ", e.what()));
  }
}

}  // namespace e3
