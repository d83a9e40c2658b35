// e3: the client.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <random>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "learner/memory_need.h"
#include "model/config.h"
#include "re2/re2.h"
#include "services/cli/supervisor.h"
#include "services/cli/watch.h"
#include "services/jobs/job_file.h"
#include "services/runtime/files.h"
#include "services/runtime/rpc.h"
#include "services/runtime/stage_settings.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

struct Options {
  std::string server;  // of the job service; empty: what runs from the state folder
  std::string state = "state";
  std::string file, id;
  bool watch = false;
  UpOptions up;
};

std::string ServerAddress(const Options& o) {
  if (!o.server.empty()) return o.server;
  std::string local = JobServiceOf(o.state);
  return local.empty() ? "127.0.0.1:7400" : local;
}

std::unique_ptr<v1::Jobs::Stub> Jobs(const Options& o) {
  return v1::Jobs::NewStub(Connect(ServerAddress(o)));
}

// Calls are answered soon or not at all; a service that restarts is waited for.
void SetDeadline(grpc::ClientContext* context, int seconds = 20) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
}

absl::Status Explain(const Options& o, absl::Status status) {
  if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
  return absl::UnavailableError(
      absl::StrCat("no job service at ", ServerAddress(o),
                   " ('e3 up' starts one here, --server names another): ", status.message()));
}

absl::Status Validate(const Options& o) {
  E3_ASSIGN_OR_RETURN(std::string yaml, ReadFile(o.file));
  E3_ASSIGN_OR_RETURN(v1::JobSpec spec, ParseJob(yaml, o.file));
  std::cout << o.file << ": a valid job with " << spec.curriculum().stages_size() << " stage"
            << (spec.curriculum().stages_size() == 1 ? "" : "s") << "\n";
  E3_ASSIGN_OR_RETURN(ModelConfig model, ModelConfig::Load(spec.model()));
  for (const v1::Stage& stage : spec.curriculum().stages()) {
    int64_t budget = spec.curriculum().grid().rbegin()[0];  // of "auto" at most
    if (stage.budget() != "auto") (void)absl::SimpleAtoi(stage.budget(), &budget);
    const v1::Training training = StageTraining(spec, stage);
    const int64_t longest = LongestSequence(model, spec, budget);
    std::cout << stage.name() << ": an update on sequences of up to " << longest
              << " tokens needs ";
    if (o.up.device == "cpu") {
      std::cout << ComputeMemoryNeed(MemoryOf::kHost, model, training, longest).Describe() << "\n";
    } else {
      std::cout << ComputeMemoryNeed(MemoryOf::kGpu, model, training, longest).Describe() << "; "
                << ComputeMemoryNeed(MemoryOf::kHostOfGpu, model, training, longest).Describe()
                << "\n";
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> SubmitFile(const Options& o) {
  E3_ASSIGN_OR_RETURN(std::string yaml, ReadFile(o.file));
  v1::SubmitJobRequest request;
  request.set_yaml(yaml);
  request.set_path(std::filesystem::absolute(o.file).lexically_normal().string());
  std::random_device random;
  request.set_idempotency_key(absl::StrFormat("%08x%08x", random(), random()));
  auto jobs = Jobs(o);
  absl::Status status;
  // The key makes it safe to ask again when the answer was lost.
  for (int attempt = 0; attempt < 3; ++attempt) {
    grpc::ClientContext context;
    SetDeadline(&context, 60);
    v1::SubmitJobReply reply;
    status = FromGrpc(jobs->SubmitJob(&context, request, &reply));
    if (status.ok()) return reply.job().id();
    if (!IsTransient(status)) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  return Explain(o, status);
}

absl::Status Watch(const Options& o, const std::string& id) {
  auto jobs = Jobs(o);
  {
    // A server that is not there, or a job that it does not know, is told at once; one that goes
    // away later is waited for.
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GetJobRequest request;
    request.set_id(id);
    v1::Job found;
    if (absl::Status s = FromGrpc(jobs->GetJob(&context, request, &found)); !s.ok())
      return Explain(o, s);
  }
  absl::StatusOr<v1::Job> job = WatchJob(jobs.get(), id);
  if (!job.ok()) return Explain(o, job.status());
  std::cout << DescribeOutcome(*job);
  return job->state() == v1::JOB_STATE_SUCCEEDED
             ? absl::OkStatus()
             : absl::AbortedError(absl::StrCat("job ", id, " ", StateName(job->state())));
}

absl::Status Submit(const Options& o) {
  E3_ASSIGN_OR_RETURN(std::string id, SubmitFile(o));
  std::cout << id << std::endl;
  return o.watch ? Watch(o, id) : absl::OkStatus();
}

absl::Status List(const Options& o) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListJobsReply reply;
  absl::Status status = FromGrpc(Jobs(o)->ListJobs(&context, {}, &reply));
  if (!status.ok()) return Explain(o, status);
  std::cout << absl::StrFormat("%-32s %-10s %-20s %6s  %s\n", "job", "state", "submitted", "step",
                               "now");
  for (const v1::Job& job : reply.jobs()) {
    std::cout << absl::StrFormat(
        "%-32s %-10s %-20s %6d  %s\n", job.id(), StateName(job.state()),
        absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(job.submitted_at_ms()),
                         absl::LocalTimeZone()),
        job.last_step().step(), job.error().empty() ? job.activity() : job.error());
  }
  return absl::OkStatus();
}

absl::Status Cancel(const Options& o) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::CancelJobRequest request;
  request.set_id(o.id);
  v1::Job job;
  absl::Status status = FromGrpc(Jobs(o)->CancelJob(&context, request, &job));
  if (!status.ok()) return Explain(o, status);
  std::cout << job.id() << " "
            << (job.state() == v1::JOB_STATE_RUNNING
                    ? "stops; its steps so far and the model they made are kept"
                    : StateName(job.state()))
            << "\n";
  return absl::OkStatus();
}

absl::Status UpAndTell(const UpOptions& up) {
  E3_RETURN_IF_ERROR(Up(up));
  if (!up.foreground) std::cout << DescribeProcesses(up.state) << "logs: " << up.state << "/logs\n";
  return absl::OkStatus();
}

int interrupt_pipe[2] = {-1, -1};

// From here Ctrl-C (and SIGTERM) end the services that `e3 run` started before they end this
// program.
void DownOnInterrupt(const std::string& state) {
  if (pipe(interrupt_pipe) != 0) return;
  struct sigaction action = {};
  action.sa_handler = [](int) { (void)!write(interrupt_pipe[1], "x", 1); };
  action.sa_flags = SA_RESETHAND;  // a second one ends this program at once
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::thread([state] {
    char byte;
    while (read(interrupt_pipe[0], &byte, 1) < 0 && errno == EINTR) {
    }
    std::cerr << "\ne3: interrupted; ending the services (the job goes on after 'e3 up --state "
              << state << "')\n";
    absl::Status status = Down(state);
    if (!status.ok()) std::cerr << "e3: " << status.message() << "\n";
    _exit(130);
  }).detach();
}

absl::Status RunJobFile(Options o) {
  // A bad file is told before anything starts.
  E3_RETURN_IF_ERROR(Validate(o));
  o.up.state = o.state;
  const bool was_up = IsUp(o.state);
  if (!was_up) {
    E3_RETURN_IF_ERROR(UpAndTell(o.up));
    DownOnInterrupt(o.state);
  }
  absl::StatusOr<std::string> id = SubmitFile(o);
  absl::Status status = id.status();
  if (id.ok()) {
    std::cout << "job " << *id << std::endl;
    status = Watch(o, *id);
  }
  if (!was_up) status.Update(Down(o.state));
  return status;
}

// The offline commands live in a program of their own, so that this one links no LibTorch.
absl::Status ExecOffline(int argc, char** argv) {
  std::string program =
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "e3-offline").string();
  std::vector<char*> arguments(argv, argv + argc);
  arguments.push_back(nullptr);
  LimitSpinning();
  execv(program.c_str(), arguments.data());
  return absl::NotFoundError(absl::StrCat("cannot run ", program, ": ", strerror(errno)));
}

// Of --device.
std::string CheckDevice(const std::string& name) {
  return RE2::FullMatch(name, "cpu|cuda(:[0-9]+)?") ? "" : "expected cpu, cuda or cuda:N";
}

void AddUpFlags(CLI::App* command, UpOptions* up) {
  command->add_option("--port-base", up->port_base, "Port of the job service; the others follow")
      ->check(CLI::Range(1024, 65000))
      ->capture_default_str();
  command
      ->add_option("--threads", up->threads,
                   "Threads of the learner and of each rollout server; 0: one a core")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  command->add_option("--rollout-servers", up->rollout_servers, "How many")
      ->check(CLI::Range(1, 10))
      ->capture_default_str();
  command
      ->add_option("--learner-ranks", up->learner_ranks,
                   "Processes that the learner's updates are divided among; they share the threads")
      ->check(CLI::Range(1, 10))
      ->capture_default_str();
  command->add_flag("--shard-optimizer", up->shard_optimizer,
                    "Divide the optimizer's state among the learner's ranks");
  command
      ->add_option("--device", up->device,
                   "Where models compute: cpu, cuda or cuda:N. cuda: several rollout servers, and "
                   "several ranks, take one GPU each")
      ->check(CheckDevice)
      ->capture_default_str();
  command->add_option("--kv-cache-mib", up->kv_cache_mib, "KV cache of a rollout server")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

int Main(int argc, char** argv) {
  for (const char* name : {"generate", "score", "encode", "decode", "verify", "sft"}) {
    if (argc > 1 && std::string(argv[1]) == name) {
      absl::Status status = ExecOffline(argc, argv);  // returns only when it could not
      std::cerr << "e3: " << status.message() << "\n";
      return 1;
    }
  }
  CLI::App app{"e3 post-trains language models so that they get better the longer they think."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "e3 " E3_VERSION);
  app.footer(
      "Start here:\n  e3 run deploy/jobs/countdown.yaml     services up, job submitted, watched, "
      "services down\n  e3 COMMAND --help");
  Options o;
  absl::Status status;
  auto with_server = [&](CLI::App* command) {
    command
        ->add_option("--server", o.server,
                     "Job service (host:port); default: the one started from --state")
        ->envname("E3_SERVER");
    command->add_option("--state", o.state, "State folder of 'e3 up'")
        ->envname("E3_STATE")
        ->capture_default_str();
    return command;
  };
  // What is named is meant: services of another folder, at the default port, are not it.
  auto with_running = [&](CLI::App* command) {
    with_server(command)->parse_complete_callback([&o, command] {
      if (o.server.empty() && command->count("--state") > 0 && JobServiceOf(o.state).empty())
        throw CLI::ValidationError("--state", "nothing runs from " + o.state + " ('e3 up' does)");
    });
    return command;
  };

  CLI::App* up = app.add_subcommand("up", "Start all services on this machine and keep them alive");
  up->add_option("--state", o.up.state, "Folder of databases, logs and jobs")
      ->envname("E3_STATE")
      ->capture_default_str();
  up->add_flag("--foreground", o.up.foreground, "Stay in the foreground");
  AddUpFlags(up, &o.up);
  up->callback([&] { status = UpAndTell(o.up); });

  CLI::App* down = app.add_subcommand("down", "Drain and end what 'e3 up' started");
  down->add_option("--state", o.state, "State folder")->envname("E3_STATE")->capture_default_str();
  down->callback([&] { status = Down(o.state); });

  CLI::App* processes = app.add_subcommand("status", "Show the services that 'e3 up' started");
  processes->add_option("--state", o.state, "State folder")
      ->envname("E3_STATE")
      ->capture_default_str();
  processes->callback([&] { std::cout << DescribeProcesses(o.state); });

  CLI::App* run = with_server(
      app.add_subcommand("run", "Services up, job submitted and watched, services down"));
  run->add_option("file", o.file, "Job file (YAML)")->required();
  AddUpFlags(run, &o.up);
  run->callback([&] { status = RunJobFile(o); });

  CLI::App* submit = with_running(app.add_subcommand("submit", "Submit a job; prints its id"));
  submit->add_option("file", o.file, "Job file (YAML)")->required();
  submit->add_flag("--watch", o.watch, "Follow it");
  submit->callback([&] { status = Submit(o); });

  CLI::App* validate = app.add_subcommand("validate", "Check a job file without a server");
  validate->add_option("file", o.file, "Job file (YAML)")->required();
  validate->add_option("--device", o.up.device, "Where the learner computes: cpu or cuda")
      ->check(CheckDevice)
      ->capture_default_str();
  validate->callback([&] { status = Validate(o); });

  with_running(app.add_subcommand("list", "List jobs, newest first"))->callback([&] {
    status = List(o);
  });

  CLI::App* watch = with_running(app.add_subcommand("watch", "Follow a job live until it ends"));
  watch->add_option("job", o.id, "Job id")->required();
  watch->callback([&] { status = Watch(o, o.id); });

  CLI::App* cancel = with_running(
      app.add_subcommand("cancel", "Stop a job; its finished steps and their model are kept"));
  cancel->add_option("job", o.id, "Job id")->required();
  cancel->callback([&] { status = Cancel(o); });

  // Listed here for --help; handled above.
  app.add_subcommand("generate", "Offline: sample responses to prompts (JSONL)");
  app.add_subcommand("score", "Offline: log-probabilities of given tokens (JSONL)");
  app.add_subcommand("encode", "Offline: token ids of prompts and chats (JSONL)");
  app.add_subcommand("decode", "Offline: text of token ids (JSONL)");
  app.add_subcommand("verify", "Offline: judge responses (JSONL)");
  app.add_subcommand("sft", "Offline: supervised fine-tuning");

  CLI11_PARSE(app, argc, argv);
  if (!status.ok()) {
    std::cerr << "e3: " << status.message() << "\n";
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
