#include "services/cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <httplib.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Service {
  std::string name;
  std::vector<std::string> command;
  std::string address;
  std::string metrics;
  pid_t pid = 0;
  int restarts = 0;
  Clock::time_point started;
  Clock::time_point not_before;  // a service that dies at once is not started again at once
};

std::string BinaryFolder() { return fs::read_symlink("/proc/self/exe").parent_path().string(); }

std::vector<Service> Services(const UpOptions& o) {
  const std::string bin = BinaryFolder();
  auto address = [&](int offset) { return absl::StrCat("127.0.0.1:", o.port_base + offset); };
  std::string rollout_addresses;
  for (int i = 0; i < o.rollout_servers; ++i)
    absl::StrAppend(&rollout_addresses, i ? "," : "", address(10 + i));
  const int cores = o.threads > 0
                        ? o.threads
                        : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::string threads = absl::StrCat(cores),
                    rank_threads = absl::StrCat(std::max(1, cores / o.learner_ranks));

  auto device = [&](int i, int of) {
    return o.device == "cuda" && of > 1 ? absl::StrCat("cuda:", i) : o.device;
  };

  std::vector<Service> services;
  auto add = [&](const std::string& name, const std::string& binary, int offset,
                 std::vector<std::string> extra) {
    Service s;
    s.name = name;
    s.address = address(offset);
    s.metrics = address(offset + 100);
    s.command = {bin + "/" + binary, "--listen", s.address, "--metrics", s.metrics};
    s.command.insert(s.command.end(), extra.begin(), extra.end());
    services.push_back(std::move(s));
  };
  add("job-service", "e3-job-service", 0, {"--state", o.state + "/job-service"});
  add("reward-service", "e3-reward-service", 3, {});
  for (int i = 0; i < o.rollout_servers; ++i) {
    add(absl::StrCat("rollout-server-", i), "e3-rollout-server", 10 + i,
        {"--threads", threads, "--kv-cache-mib", absl::StrCat(o.kv_cache_mib), "--http",
         address(20 + i), "--device", device(i, o.rollout_servers)});
  }
  std::vector<std::string> learner = {"--state",         o.state + "/learner", "--rollout-servers",
                                      rollout_addresses, "--reward-service",   address(3)};
  std::string ranks;
  for (int rank = 1; rank < o.learner_ranks; ++rank) {
    add(absl::StrCat("learner-rank-", rank), "e3-learner", 30 + rank,
        {"--worker", "--threads", rank_threads, "--device", device(rank, o.learner_ranks)});
    absl::StrAppend(&ranks, rank > 1 ? "," : "", address(30 + rank));
  }
  if (!ranks.empty()) learner.insert(learner.end(), {"--ranks", ranks});
  if (o.shard_optimizer) learner.push_back("--shard-optimizer");
  learner.insert(learner.end(),
                 {"--threads", rank_threads, "--device", device(0, o.learner_ranks)});
  add("learner", "e3-learner", 2, learner);
  add("curriculum-controller", "e3-curriculum-controller", 1,
      {"--state", o.state + "/curriculum-controller", "--job-service", address(0), "--learner",
       address(2)});
  return services;
}

std::string LogFile(const std::string& state, const std::string& name) {
  return absl::StrCat(state, "/logs/", name, ".log");
}

void Start(const UpOptions& o, Service* s) {
  const pid_t supervisor = getpid();
  s->pid = fork();
  s->started = Clock::now();
  if (s->pid < 0) {  // no process to be had now; asked again in a second
    std::cerr << Json({{"level", "error"},
                       {"process", "supervisor"},
                       {"msg", "cannot start a process; trying again"},
                       {"service", s->name},
                       {"error", strerror(errno)}})
                     .dump()
              << std::endl;
    s->pid = 0;
    s->not_before = Clock::now() + std::chrono::seconds(1);
    return;
  }
  if (s->pid != 0) return;
  // The child: dies with its supervisor, so that nothing is left behind.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != supervisor) _exit(1);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  int log = open(LogFile(o.state, s->name).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (log >= 0) {
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
  }
  LimitSpinning();
  std::vector<char*> argv;
  for (std::string& argument : s->command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

void WriteProcesses(const UpOptions& o, const std::vector<Service>& services) {
  Json json = {{"supervisor", getpid()}, {"port_base", o.port_base}, {"services", Json::array()}};
  for (const Service& s : services) {
    json["services"].push_back({{"name", s.name},
                                {"pid", s.pid},
                                {"address", s.address},
                                {"metrics", s.metrics},
                                {"restarts", s.restarts}});
  }
  (void)WriteFileDurably(o.state + "/processes.json", json.dump(2) + "\n");
}

// Notes when each service last answered a request for its /metrics, in a thread. One that is
// stopped or starved answers none, and nobody else would end it.
class Watch {
 public:
  explicit Watch(const std::vector<Service>& services) : answered_(services.size()) {
    for (const Service& service : services) addresses_.push_back(service.metrics);
    thread_ = std::thread([this] { Run(); });
  }
  ~Watch() {
    stopped_ = true;
    thread_.join();
  }
  Clock::time_point answered(size_t service) const { return answered_[service]; }

 private:
  void Run() {
    while (!stopped_) {
      for (size_t i = 0; i < addresses_.size() && !stopped_; ++i) {
        httplib::Client client("http://" + addresses_[i]);
        client.set_connection_timeout(2);
        client.set_read_timeout(2);
        if (client.Get("/metrics")) answered_[i] = Clock::now();
      }
      for (int i = 0; i < 5 && !stopped_; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }

  std::vector<std::string> addresses_;
  std::vector<std::atomic<Clock::time_point>> answered_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

// A service that has not answered for so long is stalled; one that has not begun to, since it was
// started.
constexpr auto kStalled = std::chrono::seconds(45), kStarting = std::chrono::seconds(120);

// Runs until SIGTERM or SIGINT: ends what stalls, starts what dies again, then ends all.
int Supervise(const UpOptions& o) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::vector<Service> services = Services(o);
  for (Service& s : services) Start(o, &s);
  WriteProcesses(o, services);
  std::optional<Watch> watch(services);
  while (true) {
    timespec second = {0, 200000000};
    int signal = sigtimedwait(&signals, nullptr, &second);
    if (signal == SIGTERM || signal == SIGINT) break;
    bool changed = false;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      for (Service& s : services) {
        if (s.pid != pid) continue;
        bool quick = Clock::now() - s.started < std::chrono::seconds(5);
        s.pid = 0;
        ++s.restarts;
        s.not_before = Clock::now() + std::chrono::milliseconds(quick ? 1000 : 100);
        std::cerr << Json({{"level", "warning"},
                           {"process", "supervisor"},
                           {"msg", "service died; starting it again"},
                           {"service", s.name},
                           {"status", WIFSIGNALED(status)
                                          ? absl::StrCat("signal ", WTERMSIG(status))
                                          : absl::StrCat("exit ", WEXITSTATUS(status))}})
                         .dump()
                  << std::endl;
      }
    }
    for (size_t i = 0; i < services.size(); ++i) {
      Service& s = services[i];
      const Clock::time_point answered = watch->answered(i);
      const bool stalled = answered > s.started ? Clock::now() - answered > kStalled
                                                : Clock::now() - s.started > kStarting;
      if (s.pid != 0 && stalled) {
        std::cerr << Json({{"level", "warning"},
                           {"process", "supervisor"},
                           {"msg", "service does not answer; ending it"},
                           {"service", s.name}})
                         .dump()
                  << std::endl;
        kill(s.pid, SIGKILL);
        s.started = Clock::now();  // its end is about to be heard of
      }
      if (s.pid != 0 || Clock::now() < s.not_before) continue;
      Start(o, &s);
      changed = true;
    }
    if (changed) WriteProcesses(o, services);
  }
  watch.reset();
  // Those who use others first, so that nobody waits for one that is gone.
  auto deadline = Clock::now() + std::chrono::seconds(12);
  for (auto s = services.rbegin(); s != services.rend(); ++s) {
    if (s->pid != 0) kill(s->pid, SIGTERM);
  }
  for (Service& s : services) {
    while (s.pid != 0 && waitpid(s.pid, nullptr, WNOHANG) == 0) {
      if (Clock::now() > deadline) kill(s.pid, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  unlink((o.state + "/processes.json").c_str());
  return 0;
}

Json ReadProcesses(const std::string& state) {
  absl::StatusOr<std::string> text = ReadFile(state + "/processes.json");
  if (!text.ok()) return nullptr;
  return Json::parse(*text, nullptr, /*allow_exceptions=*/false);
}

// The process is there and is an e3 (its number may have been given to another since).
bool IsSupervisor(pid_t pid) {
  std::error_code error;
  return pid > 0 && kill(pid, 0) == 0 &&
         absl::EndsWith(fs::read_symlink(absl::StrCat("/proc/", pid, "/exe"), error).string(),
                        "/e3");
}

bool Healthy(const std::string& address) {
  auto stub = grpc::health::v1::Health::NewStub(Connect(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  context.set_wait_for_ready(true);
  grpc::health::v1::HealthCheckResponse response;
  return stub->Check(&context, {}, &response).ok() &&
         response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

std::string LastLines(const std::string& path, int lines) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "";
  size_t at = text->size();
  while (lines-- > 0 && at != std::string::npos && at > 0) at = text->rfind('\n', at - 1);
  return at == std::string::npos ? *text : text->substr(at);
}

}  // namespace

bool IsUp(const std::string& state) {
  Json json = ReadProcesses(state);
  return json.is_object() && IsSupervisor(json.value("supervisor", 0));
}

std::string JobServiceOf(const std::string& state) {
  Json json = ReadProcesses(state);
  if (!json.is_object() || !IsSupervisor(json.value("supervisor", 0))) return "";
  return absl::StrCat("127.0.0.1:", json.value("port_base", 7400));
}

std::string DescribeProcesses(const std::string& state) {
  Json json = ReadProcesses(state);
  if (!json.is_object()) return "nothing runs\n";
  std::string table = absl::StrFormat("%-24s %-18s %-32s %8s %9s\n", "service", "address",
                                      "metrics", "process", "restarts");
  for (const Json& s : json["services"]) {
    absl::StrAppendFormat(&table, "%-24s %-18s %-32s %8d %9d\n", s.value("name", ""),
                          s.value("address", ""),
                          absl::StrCat("http://", s.value("metrics", ""), "/metrics"),
                          s.value("pid", 0), s.value("restarts", 0));
  }
  return table;
}

absl::Status Up(const UpOptions& given) {
  UpOptions o = given;
  if (absl::StartsWith(o.device, "cuda:") && o.learner_ranks > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--device ", o.device, " is one GPU, and each of --learner-ranks ", o.learner_ranks,
        " needs its own: --device cuda gives them cuda:0, cuda:1, …"));
  }
  o.state = fs::absolute(o.state).lexically_normal().string();
  if (IsUp(o.state))
    return absl::AlreadyExistsError(
        absl::StrCat("e3 is up already (state folder ", o.state, "); 'e3 down' ends it"));
  E3_RETURN_IF_ERROR(MakeFolders(o.state + "/logs"));
  if (o.foreground) {
    // One supervisor a state folder; the lock ends with this process.
    if (!LockFile(o.state + "/supervisor.lock").ok()) {
      return absl::AlreadyExistsError(
          absl::StrCat("another supervisor has the state folder ", o.state));
    }
  }
  for (const Service& s : Services(o)) {
    if (access(s.command[0].c_str(), X_OK) != 0)
      return absl::NotFoundError(
          absl::StrCat("no program ", s.command[0], "; build it first (make)"));
    if (Healthy(s.address))
      return absl::AlreadyExistsError(absl::StrCat("something serves at ", s.address,
                                                   " already; --port-base chooses other ports"));
  }
  if (o.foreground) {
    Supervise(o);
    return absl::OkStatus();
  }
  pid_t pid = fork();
  if (pid < 0) return absl::UnavailableError(absl::StrCat("cannot fork: ", strerror(errno)));
  if (pid == 0) {
    setsid();
    int log = open(LogFile(o.state, "supervisor").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null = open("/dev/null", O_RDONLY);
    if (log < 0 || null < 0) _exit(1);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    // exec: a forked copy of a process with gRPC's threads is no place to live in.
    std::vector<std::string> arguments = {BinaryFolder() + "/e3",
                                          "up",
                                          "--foreground",
                                          "--state",
                                          o.state,
                                          "--port-base",
                                          absl::StrCat(o.port_base),
                                          "--threads",
                                          absl::StrCat(o.threads),
                                          "--rollout-servers",
                                          absl::StrCat(o.rollout_servers),
                                          "--learner-ranks",
                                          absl::StrCat(o.learner_ranks),
                                          "--kv-cache-mib",
                                          absl::StrCat(o.kv_cache_mib),
                                          "--device",
                                          o.device};
    if (o.shard_optimizer) arguments.push_back("--shard-optimizer");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  for (const Service& s : Services(o)) {
    while (!Healthy(s.address)) {
      int status;
      bool gone = waitpid(pid, &status, WNOHANG) == pid;
      if (!gone && Clock::now() < deadline) continue;
      if (!gone) kill(pid, SIGTERM);
      return absl::UnavailableError(absl::StrCat(s.name, " did not come up. The end of ",
                                                 LogFile(o.state, s.name), ":\n",
                                                 LastLines(LogFile(o.state, s.name), 5)));
    }
  }
  return absl::OkStatus();
}

absl::Status Down(const std::string& given) {
  const std::string state = fs::absolute(given).lexically_normal().string();
  Json json = ReadProcesses(state);
  pid_t pid = json.is_object() ? json.value("supervisor", 0) : 0;
  if (!IsSupervisor(pid)) {
    unlink((state + "/processes.json").c_str());
    return absl::NotFoundError(absl::StrCat("nothing runs from state folder ", state));
  }
  kill(pid, SIGTERM);
  for (int i = 0; i < 300; ++i) {
    // A child of ours must be reaped to be gone.
    waitpid(pid, nullptr, WNOHANG);
    if (!IsSupervisor(pid)) return absl::OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("the supervisor (process ", pid, ") did not end within 15 seconds"));
}

void LimitSpinning() {
  if (getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "10000", 0);
}

}  // namespace e3
