#include "learner/service/rollout_pool.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"
#include "services/runtime/weight_version.h"

namespace e3 {
namespace {

// A prompt that servers hang at is found within the time that no progress may take.
constexpr auto kStallTimeout = std::chrono::minutes(2);
constexpr auto kGiveUpAfter = std::chrono::minutes(10);
// That a server may take to get its weights before the others get its share of the work: uploads of
// large models end one after the other, and who is first should not take all.
constexpr double kLateSeconds = 5;
constexpr int64_t kSamplesARequest = 64;
constexpr int64_t kSamplesInFlight = 1024;  // of a server: fills its batch and its queue
constexpr int kAttempts = 3;  // at a task that servers answer with a failure, or die of

// Whether a version is one that this life of the learner published from `oldest` to `newest`.
bool Between(const v1::WeightVersion& oldest, const v1::WeightVersion& version,
             const v1::WeightVersion& newest) {
  return version.job() == newest.job() && version.epoch() == newest.epoch() &&
         oldest.step() <= version.step() && version.step() <= newest.step();
}

// What is asked of a server at once: all samples of a task, or one sample that goes on.
struct WorkItem {
  size_t task;
  uint32_t first_sample;
  uint32_t n;
  const void* refused_by = nullptr;  // the server that answered it with a failure, or died, last
};

// An item that a server has, and those of its samples that it has not ended: finished, cut or
// failed.
struct InFlight {
  WorkItem item;
  std::set<uint32_t> open;    // counted from the item's first
  std::set<uint32_t> silent;  // of these, those that nothing was heard of yet
};

// Of a server that cannot serve now, whatever it is asked: says nothing of the prompt.
bool IsOfServer(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsUnavailable(status) ||
         absl::IsCancelled(status) || absl::IsAborted(status) || absl::IsFailedPrecondition(status);
}

// Whether a stream's end is what a server that died leaves behind; one that stops says so.
bool Died(const grpc::Status& status) {
  return !IsDraining(status) && (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                                 status.error_code() == grpc::StatusCode::INTERNAL ||
                                 status.error_code() == grpc::StatusCode::UNKNOWN);
}

void Append(const v1::GenerateReply::Chunk& chunk, v1::Rollout* rollout) {
  for (uint32_t position : chunk.forced())
    rollout->add_forced(static_cast<uint32_t>(rollout->token_ids_size()) + position);
  rollout->mutable_token_ids()->MergeFrom(chunk.token_ids());
  rollout->mutable_logprobs()->MergeFrom(chunk.logprobs());
  rollout->mutable_entropies()->MergeFrom(chunk.entropies());
  for (const auto& span : chunk.versions()) {
    auto* spans = rollout->mutable_versions();
    if (!spans->empty() && SameVersion(spans->rbegin()->version(), span.version())) {
      spans->rbegin()->set_tokens(spans->rbegin()->tokens() + span.tokens());
    } else {
      *spans->Add() = span;
    }
  }
  // A rollout that a change of weights cut goes on later.
  if (chunk.finish_reason() != v1::FINISH_REASON_CUT)
    rollout->set_finish_reason(chunk.finish_reason());
}

}  // namespace

// The state that the server threads of one Generate share.
struct RolloutPool::Generation {
  const std::vector<RolloutTask>& tasks;
  const RolloutOptions& options;
  const v1::WeightVersion oldest;  // that a token may be of
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<WorkItem> queue;
  std::vector<TaskRollouts> results;
  std::vector<std::vector<int>> failures;  // of each sample of each task
  // In a row, deaths of a server before anything was heard of a sample that it had been asked for.
  // One less than a sample may have makes it a suspect.
  std::vector<std::vector<int>> deaths;
  size_t set_aside = 0;    // tasks
  int64_t unfinished = 0;  // rollouts
  absl::Status error;      // final: the generation is over
  bool stopped = false;
  std::string last_error;  // of any server
  struct Stream {
    Server* server;
    int64_t samples = 0;  // in flight
  };
  std::map<grpc::ClientContext*, Stream> streams;
  std::set<grpc::ClientContext*> stalled;  // that were cancelled since nothing came
  std::set<const Server*> away;  // servers whose last stream failed, or that wait for weights
  const int64_t servers;

  // Samples that a server may have: its part of what is left, so that none idles while another has
  // all, and what a slow one leaves goes to the others.
  int64_t Share() const {
    const auto serving = std::max<int64_t>(1, servers - static_cast<int64_t>(away.size()));
    return std::min(kSamplesInFlight, (unfinished + serving - 1) / serving);
  }
  bool over() const { return unfinished == 0 || stopped || !error.ok(); }
  bool Unfinished(size_t task, uint32_t sample) const {
    const TaskRollouts& t = results[task];
    return t.status.ok() && t.rollouts[sample].finish_reason() == v1::FINISH_REASON_UNSPECIFIED;
  }
  // Whether it may be what servers die of. It is asked for when nothing else of its server is
  // silent, so that it is known who is to blame.
  bool Suspect(const WorkItem& item) const {
    return item.n == 1 && deaths[item.task][item.first_sample] >= kAttempts - 1;
  }
  // Puts back what a server has not ended, sample by sample.
  void PutBack(const InFlight& asked, const void* refused_by = nullptr) {
    for (uint32_t s : asked.open) {
      const uint32_t sample = asked.item.first_sample + s;
      if (Unfinished(asked.item.task, sample))
        queue.push_back({asked.item.task, sample, 1, refused_by});
    }
    changed.notify_all();  // a server that waits for work may be the one to take it
  }
  void SetAside(size_t task, const absl::Status& status) {
    for (uint32_t s = 0; s < results[task].rollouts.size(); ++s) unfinished -= Unfinished(task, s);
    results[task].status = status;
    std::erase_if(queue, [&](const WorkItem& item) { return item.task == task; });
    if (++set_aside == tasks.size()) error = status;
    changed.notify_all();
  }
  // A server answered with a failure: the samples are tried again, or the task is set aside.
  void Fail(const InFlight& asked, const void* server, const absl::Status& status) {
    const size_t task = asked.item.task;
    if (!results[task].status.ok()) return;
    bool enough = false;
    for (uint32_t s : asked.open)
      enough = ++failures[task][asked.item.first_sample + s] >= kAttempts || enough;
    enough ? SetAside(task, status) : PutBack(asked, server);
  }
  // The server died: its samples go on elsewhere, unless it has happened too often just when a
  // server began with one.
  void Die(const InFlight& asked, const void* server) {
    const size_t task = asked.item.task;
    if (!results[task].status.ok()) return;
    for (uint32_t s : asked.silent) {
      if (++deaths[task][asked.item.first_sample + s] < kAttempts) continue;
      return SetAside(task, absl::InternalError(absl::StrCat(
                                "rollout servers died or hung ", kAttempts,
                                " times as they began with it, the last time with nothing else")));
    }
    PutBack(asked, server);
  }
  // The next item for a server: one that it refused, or died of, only where no other server works.
  std::deque<WorkItem>::iterator Next(const void* server, bool suspects) {
    return std::find_if(queue.begin(), queue.end(), [&](const WorkItem& item) {
      return (item.refused_by != server || streams.size() <= 1) && (suspects || !Suspect(item));
    });
  }
};

RolloutPool::RolloutPool(std::vector<std::string> addresses) {
  std::vector<WeightPublisher::Address> published;
  for (std::string& address : addresses) {
    auto channel = Connect(address);
    published.push_back({address, channel});
    auto server = std::make_unique<Server>();
    server->address = std::move(address);
    server->index = servers_.size();
    server->rollouts = v1::Rollouts::NewStub(channel);
    servers_.push_back(std::move(server));
  }
  weights_ = std::make_unique<WeightPublisher>(published);
}

absl::Status RolloutPool::Work(Server& server, Generation& g) {
  const Stopwatch bringing;
  E3_RETURN_IF_ERROR(weights_->Bring(server.index, [&] {
    std::lock_guard<std::mutex> lock(g.mutex);
    if (bringing.Seconds() > kLateSeconds) {
      server.late = true;
      g.away.insert(&server);
    }
    return g.over();
  }));
  grpc::ClientContext context;
  auto stream = server.rollouts->Generate(&context);
  server.heard = Clock::now();
  {
    std::lock_guard<std::mutex> lock(g.mutex);
    g.streams[&context] = {&server};
    server.late = false;
    g.away.erase(&server);
  }
  std::map<uint64_t, InFlight> in_flight;
  uint64_t next_id = 1;
  int64_t samples = 0;  // open, of all in flight
  bool open = true, writable = true;
  int64_t silent = 0;    // this stream's part of the server's
  bool suspect = false;  // is among them
  // Something was heard of n of them, or will not be any more.
  auto no_longer_silent = [&](int64_t n) {
    std::lock_guard<std::mutex> lock(server.mutex);
    server.silent -= n;
    silent -= n;
    if (n > 0 && std::exchange(suspect, false)) server.suspect = false;
  };
  absl::Status failure;

  while (open && failure.ok()) {
    // Take work while the server has room for it.
    std::vector<std::pair<uint64_t, WorkItem>> taken;
    {
      std::unique_lock<std::mutex> lock(g.mutex);
      g.streams[&context].samples = samples;
      if (in_flight.empty() && writable) {
        g.changed.wait(lock, [&] { return g.over() || g.Next(&server, true) != g.queue.end(); });
      }
      if (g.over()) break;
      while (writable && samples < g.Share()) {
        std::lock_guard<std::mutex> server_lock(server.mutex);
        if (server.suspect) break;
        auto next = g.Next(&server, /*suspects=*/server.silent == 0);
        if (next == g.queue.end()) break;
        server.suspect = suspect = g.Suspect(*next);
        server.silent += next->n;
        silent += next->n;
        samples += next->n;
        taken.emplace_back(next_id++, *next);
        g.queue.erase(next);
      }
      if (taken.empty() && in_flight.empty() && writable) {
        // Another generation looks at a suspect.
        g.changed.wait_for(lock, std::chrono::milliseconds(20));
        continue;
      }
      if (!taken.empty()) server.heard = Clock::now();  // it has been silent for good reason
      g.streams[&context].samples = samples;
    }
    for (const auto& [id, item] : taken) {
      InFlight& asked = in_flight[id];
      asked.item = item;
      for (uint32_t s = 0; s < item.n; ++s) asked.open.insert(s);
      asked.silent = asked.open;
      const RolloutTask& task = g.tasks[item.task];
      v1::GenerateRequest request;
      v1::GenerateRequest::Start* start = request.mutable_start();
      start->set_request_id(id);
      start->mutable_prompt_token_ids()->Add(task.prompt.begin(), task.prompt.end());
      start->set_n(item.n);
      start->set_budget(static_cast<uint32_t>(g.options.budget));
      *start->mutable_sampling() = g.options.sampling;
      start->set_seed(task.seed);
      start->set_first_sample(item.first_sample);
      if (item.n == 1) {
        std::lock_guard<std::mutex> lock(g.mutex);
        const v1::Rollout& rollout = g.results[item.task].rollouts[item.first_sample];
        *start->mutable_response_prefix() = rollout.token_ids();
        *start->mutable_prefix_forced() = rollout.forced();
      }
      // Where nothing can be written any more, what the server wrote before it left is still read:
      // the stream ends only then.
      writable = writable && stream->Write(request);
      if (!writable) asked.silent.clear();  // the server never heard of it
    }

    v1::GenerateReply reply;
    open = stream->Read(&reply);
    if (!open) break;
    server.heard = Clock::now();
    server.told = false;
    std::lock_guard<std::mutex> lock(g.mutex);
    if (reply.has_failure()) {
      const v1::GenerateReply::Failure& f = reply.failure();
      absl::Status status(static_cast<absl::StatusCode>(f.code()), f.message());
      auto asked = in_flight.find(f.request_id());
      if (asked == in_flight.end()) continue;
      if (IsOfServer(status)) {
        failure = status;
        continue;
      }
      samples -= static_cast<int64_t>(asked->second.open.size());
      no_longer_silent(static_cast<int64_t>(asked->second.silent.size()));
      g.Fail(asked->second, &server, status);
      in_flight.erase(asked);
    } else if (reply.has_chunk()) {
      auto asked = in_flight.find(reply.chunk().request_id());
      if (asked == in_flight.end() || asked->second.open.count(reply.chunk().sample()) == 0) {
        failure = absl::InternalError("the server sent tokens that were not asked for");
        continue;
      }
      // A server that came back with other weights answers for another policy: nothing of it
      // counts.
      const v1::WeightVersion newest = weights_->version();
      for (const auto& span : reply.chunk().versions()) {
        if (!Between(g.oldest, span.version(), newest))
          failure = absl::AbortedError("the server generated with other weights");
      }
      if (!failure.ok()) continue;
      if (asked->second.silent.erase(reply.chunk().sample()) > 0) no_longer_silent(1);
      const WorkItem& item = asked->second.item;
      const uint32_t sample = item.first_sample + reply.chunk().sample();
      const v1::FinishReason finished = reply.chunk().finish_reason();
      g.deaths[item.task][sample] = 0;
      if (g.Unfinished(item.task, sample)) {
        progress_ = Clock::now();
        Append(reply.chunk(), &g.results[item.task].rollouts[sample]);
        if (finished == v1::FINISH_REASON_CUT) {
          g.queue.push_back({item.task, sample, 1});
        } else if (finished != v1::FINISH_REASON_UNSPECIFIED && --g.unfinished == 0) {
          g.changed.notify_all();
        }
      }
      if (finished != v1::FINISH_REASON_UNSPECIFIED) {
        --samples;
        asked->second.open.erase(reply.chunk().sample());
        if (asked->second.open.empty()) in_flight.erase(asked);
      }
    }
  }

  // What has not finished goes back: sample by sample, from the tokens that are here.
  no_longer_silent(silent);
  bool over;
  {
    std::lock_guard<std::mutex> lock(g.mutex);
    over = g.over();
  }
  if (over || !failure.ok()) context.TryCancel();
  const grpc::Status finished = stream->Finish();
  std::lock_guard<std::mutex> lock(g.mutex);
  g.streams.erase(&context);
  const bool stalled = g.stalled.erase(&context) > 0;
  const bool died = !over && failure.ok() && (stalled || Died(finished));
  for (const auto& [id, asked] : in_flight) died ? g.Die(asked, &server) : g.PutBack(asked);
  g.changed.notify_all();
  if (!failure.ok()) return failure;
  return over ? absl::OkStatus() : FromGrpc(finished);
}

absl::StatusOr<std::vector<TaskRollouts>> RolloutPool::Generate(
    const std::vector<RolloutTask>& tasks, const RolloutOptions& options,
    const std::function<bool()>& stop) {
  Generation g{.tasks = tasks,
               .options = options,
               .oldest = weights_->version(),
               .servers = static_cast<int64_t>(servers_.size())};
  progress_ = Clock::now();
  for (size_t i = 0; i < tasks.size(); ++i) {
    // Samples of a prompt share its blocks within a request; a request is never more than a server
    // runs at once.
    for (int64_t first = 0; first < tasks[i].n; first += kSamplesARequest) {
      g.queue.push_back({i, static_cast<uint32_t>(first),
                         static_cast<uint32_t>(std::min(kSamplesARequest, tasks[i].n - first))});
    }
    g.results.push_back(
        {std::vector<v1::Rollout>(static_cast<size_t>(tasks[i].n)), absl::OkStatus()});
    g.failures.emplace_back(static_cast<size_t>(tasks[i].n));
    g.deaths.emplace_back(static_cast<size_t>(tasks[i].n));
    g.unfinished += tasks[i].n;
  }
  for (const std::unique_ptr<Server>& server : servers_) {
    if (server->late) g.away.insert(server.get());
  }
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Server>& each : servers_) {
    threads.emplace_back([&, server = each.get()] {
      while (true) {
        absl::Status status = Work(*server, g);
        std::unique_lock<std::mutex> lock(g.mutex);
        if (g.over()) return;
        if (!status.ok()) {
          g.last_error = absl::StrCat("rollout server ", server->address, ": ", status.message());
          g.away.insert(server);
        }
        if (!status.ok() && !server->told.exchange(true)) {
          Log("warning", "rollout server away; its rollouts go on from their last token",
              {{"server", server->address}, {"error", std::string(status.message())}});
          CounterMetric("e3_learner_rollout_server_failures_total",
                        "Streams to rollout servers that broke")
              .Increment();
        }
        g.changed.wait_for(lock, std::chrono::milliseconds(300), [&] { return g.over(); });
        if (g.over()) return;
      }
    });
  }
  {
    std::unique_lock<std::mutex> lock(g.mutex);
    while (!g.over()) {
      g.changed.wait_for(lock, std::chrono::milliseconds(200));
      if (stop()) g.stopped = true;
      for (const auto& [context, asked] : g.streams) {
        const bool stalled =
            asked.samples > 0 && Clock::now() - asked.server->heard.load() > kStallTimeout;
        if (stalled) g.stalled.insert(context);
        if (g.stopped || stalled) context->TryCancel();
      }
      if (!g.over() && Clock::now() - progress_.load() > kGiveUpAfter) {
        g.error = absl::UnavailableError(
            absl::StrCat("no rollout server generated anything for ten minutes; the last error: ",
                         g.last_error.empty() ? "none" : g.last_error));
      }
    }
    for (const auto& [context, asked] : g.streams) context->TryCancel();
    g.changed.notify_all();
  }
  for (std::thread& thread : threads) thread.join();
  if (!g.error.ok()) return g.error;
  if (g.stopped) return absl::CancelledError("stopped while generating");
  return std::move(g.results);
}

}  // namespace e3
