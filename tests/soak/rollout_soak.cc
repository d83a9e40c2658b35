// rollout_soak ADDRESS HTTP_PORT PID MODEL SECONDS CLIENTS: a rollout server under everything that
// clients do.
//
// Clients ask for rollouts with random prompts, budgets, samples and sampling, cancel some, lose
// their streams and come back (or not), half-close them, read slowly, or come through the HTTP
// door; the weights are uploaded again every five seconds (the same ones, so that what a rollout
// should be is known) with every policy, among uploads that must be refused. Every rollout must
// end, no token may be lost or come twice, and at the end nothing may run, all blocks be free and
// the server's memory be what it was after the first fifth of the time.
#include <httplib.h>
#include <unistd.h>
#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "e3/v1/rollouts.grpc.pb.h"
#include "e3/v1/weights.grpc.pb.h"
#include "model/parameters.h"
#include "nlohmann/json.hpp"
#include "services/runtime/philox.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

using Clock = std::chrono::steady_clock;
using Stream = grpc::ClientReaderWriter<v1::GenerateRequest, v1::GenerateReply>;
using namespace std::chrono_literals;

constexpr int64_t kVocab = 265;
constexpr auto kPatience = 300s;

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "soak failed: " << what << std::endl;
  _exit(1);
}

void Must(bool condition, const std::string& what) {
  if (!condition) Fail(what);
}

struct Totals {
  std::atomic<int64_t> rollouts{0}, cancelled{0}, abandoned{0}, tokens{0}, lost_streams{0},
      resumed{0}, asked_again{0}, cut{0}, updates{0}, http{0}, http_left{0};
};

// A finished rollout, to be asked for again at the end.
struct Finished {
  v1::GenerateRequest::Start start;
  uint32_t sample;
  std::vector<uint32_t> tokens;
};

class Soak {
 public:
  Soak(const std::string& address, const std::string& model)
      : rollouts_(v1::Rollouts::NewStub(Connect(address))),
        weights_(v1::Weights::NewStub(Connect(address))) {
    auto config = ModelConfig::Load(model);
    Must(config.ok(), "the model's configuration");
    layout_ = std::make_unique<ParameterLayout>(*config);
    parameters_.resize(static_cast<size_t>(layout_->size()));
    Must(LoadParameters(model, *config, *layout_, parameters_.data()).ok(), "the parameters");
  }

  void Client(uint64_t number, Clock::time_point until) {
    PhiloxStream random(number, 77);
    while (Clock::now() < until) Visit(number, random);
  }

  void Learner(Clock::time_point until) {
    PhiloxStream random(5, 5);
    for (uint64_t step = 1; Clock::now() < until; ++step) {
      const auto policy = static_cast<v1::RunningPolicy>(1 + random.Below(4));
      const double dice = random.Uniform();
      // Now and then an upload is torn or corrupt, or two learners come at once.
      if (dice < 0.1) {
        Must(!Upload(step, policy, /*bytes_share=*/0.5, false).ok(), "a torn upload is refused");
      } else if (dice < 0.2) {
        Must(!Upload(step, policy, 1, /*corrupt=*/true).ok(), "a corrupt upload is refused");
      } else if (dice < 0.3) {
        const float kept = std::exchange(parameters_[1000], NAN);
        Must(!Upload(step, policy, 1, false).ok(), "weights that are not finite are refused");
        parameters_[1000] = kept;
      }
      grpc::Status status = Upload(step, policy, 1, false);
      Must(status.ok(), absl::StrCat("upload ", step, ": ", status.error_message()));
      ++totals.updates;
      std::this_thread::sleep_for(5s);
    }
  }

  // A client of the HTTP door, who now and then does not wait for the answer.
  void HttpClient(uint64_t number, int port, Clock::time_point until) {
    PhiloxStream random(number, 78);
    while (Clock::now() < until) {
      const int64_t n = random.Between(1, 3), tokens = random.Between(1, 200);
      nlohmann::json body = {{"n", n},
                             {"best_of", n},
                             {"logprobs", 1},
                             {"max_tokens", tokens},
                             {"seed", number},
                             {"stream", random.Uniform() < 0.5},
                             {"prompt", nlohmann::json::array()}};
      for (int64_t i = random.Between(1, 60); i > 0; --i)
        body["prompt"].push_back(random.Below(kVocab));
      httplib::Client client("127.0.0.1", port);
      const bool leaves = random.Uniform() < 0.2;
      client.set_read_timeout(leaves ? std::chrono::milliseconds(random.Between(1, 300))
                                     : std::chrono::milliseconds(kPatience));
      auto reply = client.Post("/v1/completions", body.dump(), "application/json");
      if (!reply) {
        Must(leaves, "an answer comes");
        ++totals.http_left;
        continue;
      }
      if (reply->status == 503 || reply->body.find("the weights changed") != std::string::npos)
        continue;  // cut by a change of weights
      Must(reply->status == 200, reply->body);
      ++totals.http;
      std::vector<std::string> parts;
      if (body["stream"]) {
        parts = absl::StrSplit(reply->body, "\n\n", absl::SkipEmpty());
        Must(parts.back() == "data: [DONE]", "a stream ends");
        parts.pop_back();
        for (std::string& part : parts) part = part.substr(6);
      } else {
        parts = {reply->body};
      }
      std::map<int64_t, int64_t> lengths;
      int64_t ended = 0;
      for (const std::string& part : parts) {
        const nlohmann::json choices = nlohmann::json::parse(part)["choices"];
        for (const auto& choice : choices) {
          int64_t& length = lengths[choice["index"].get<int64_t>()];
          length += static_cast<int64_t>(choice["logprobs"]["tokens"].size());
          if (choice["finish_reason"].is_null()) continue;
          ++ended;
          Must(choice["finish_reason"] == "stop" || length == tokens,
               "an answer of the door has all its tokens");
        }
      }
      Must(ended == n, "every choice ends once");
    }
  }

  // Finished rollouts come out the same again.
  void AskAgain() {
    for (const Finished& f : finished_) {
      v1::GenerateRequest request;
      *request.mutable_start() = f.start;
      request.mutable_start()->set_n(1);
      request.mutable_start()->set_first_sample(f.start.first_sample() + f.sample);
      grpc::ClientContext context;
      auto stream = rollouts_->Generate(&context);
      stream->Write(request);
      stream->WritesDone();
      std::vector<uint32_t> tokens;
      v1::GenerateReply reply;
      while (stream->Read(&reply)) {
        for (uint32_t token : reply.chunk().token_ids()) tokens.push_back(token);
      }
      Must(stream->Finish().ok(), "asking again");
      Must(tokens == f.tokens, absl::StrCat("a rollout of ", f.tokens.size(),
                                            " tokens is the same when asked for again"));
    }
    std::cout << finished_.size() << " rollouts asked for again: the same tokens" << std::endl;
  }

  v1::RolloutStatus Status() {
    grpc::ClientContext context;
    v1::RolloutStatus status;
    Must(rollouts_->GetStatus(&context, {}, &status).ok(), "GetStatus");
    return status;
  }

  Totals totals;

 private:
  v1::GenerateRequest RandomStart(uint64_t id, PhiloxStream& random) {
    v1::GenerateRequest request;
    auto* start = request.mutable_start();
    start->set_request_id(id);
    // Half of the prompts begin as many others do.
    const uint64_t common = random.Uniform() < 0.5 ? 1 + static_cast<uint64_t>(random.Below(8)) : 0;
    for (int64_t i = 0, n = random.Between(4, 120); i < n; ++i) {
      start->add_prompt_token_ids(
          static_cast<uint32_t>(common > 0 ? DeriveSeed(common, static_cast<uint64_t>(i)) % kVocab
                                           : static_cast<uint64_t>(random.Below(kVocab))));
    }
    start->set_n(static_cast<uint32_t>(random.Between(1, 4)));
    start->set_budget(static_cast<uint32_t>(random.Between(1, 300)));
    start->set_seed(static_cast<uint64_t>(random.Below(1 << 30)));
    if (random.Uniform() < 0.3) start->mutable_sampling()->set_temperature(0.7);
    if (random.Uniform() < 0.2) start->mutable_sampling()->set_top_p(0.9);
    if (random.Uniform() < 0.2) start->mutable_sampling()->set_min_tokens(20);
    if (random.Uniform() < 0.1) start->mutable_sampling()->set_repetition_penalty(1.2);
    if (random.Uniform() < 0.2) start->add_stop_strings("no");
    if (random.Uniform() < 0.2) start->mutable_forcing()->set_extensions(2);
    if (start->has_forcing()) start->mutable_forcing()->add_prefixes("Wait");
    if (random.Uniform() < 0.3) start->set_priority(v1::ROLLOUT_PRIORITY_EVALUATION);
    return request;
  }

  // What one client asks for at a time.
  struct Asked {
    v1::GenerateRequest::Start start;
    std::map<uint32_t, std::vector<uint32_t>> tokens;
    std::set<uint32_t> ended;
    bool cut = false, cancelled = false, over = false;
  };

  void Visit(uint64_t number, PhiloxStream& random) {
    const bool session = random.Uniform() < 0.6, slow = random.Uniform() < 0.15;
    const std::string name = absl::StrCat("soak-", number, "-", random.Below(1 << 30));
    std::map<uint64_t, Asked> asked;
    uint64_t received = 0;
    auto open = [&](grpc::ClientContext* context) {
      auto stream = rollouts_->Generate(context);
      if (!session) return stream;
      v1::GenerateRequest request;
      request.mutable_open()->set_session(name);
      request.mutable_open()->set_received(received);
      request.mutable_open()->set_grace_seconds(20);
      request.mutable_open()->set_window_tokens(slow ? 200 : 4000);
      Must(stream->Write(request), "opening a session");
      v1::GenerateReply reply;
      Must(stream->Read(&reply) && reply.has_opened(), "a session is opened");
      Must(reply.opened().resumed() == !asked.empty(), "a session is there within its grace time");
      const std::set<uint64_t> known(reply.opened().request_ids().begin(),
                                     reply.opened().request_ids().end());
      for (auto& [id, a] : asked) {
        if (a.over || known.count(id) > 0) continue;
        // The request was lost with the stream.
        Must(a.tokens.empty(), "a request that is lost had not begun");
        v1::GenerateRequest again;
        *again.mutable_start() = a.start;
        a.cancelled = false;
        Must(stream->Write(again), "asking again");
        ++totals.asked_again;
      }
      return stream;
    };
    auto context = std::make_unique<grpc::ClientContext>();
    auto stream = open(context.get());
    for (uint64_t id = 1, n = static_cast<uint64_t>(random.Between(1, 4)); id <= n; ++id) {
      v1::GenerateRequest request = RandomStart(id, random);
      Must(stream->Write(request), "asking");
      asked[id].start = request.start();
      if (random.Uniform() < 0.07) {
        v1::GenerateRequest cancel;
        cancel.mutable_cancel()->set_request_id(id);
        stream->Write(cancel);
        asked[id].cancelled = true;
      }
    }
    // Some say that they will ask for nothing more, and with it give up coming back.
    const bool half_closed = session && random.Uniform() < 0.1;
    if (half_closed) stream->WritesDone();
    if (slow && random.Uniform() < 0.02) std::this_thread::sleep_for(15s);
    auto acknowledge = [&] {
      if (half_closed) return;
      v1::GenerateRequest ack;
      ack.mutable_ack()->set_received(received);
      stream->Write(ack);
    };
    const Clock::time_point begin = Clock::now();
    bool abandoned = false;
    auto done = [&] {
      for (const auto& [id, a] : asked) {
        if (!a.over) return false;
      }
      return true;
    };
    while (!done()) {
      Must(Clock::now() - begin < kPatience, "every rollout ends");
      if (random.Uniform() < 0.01) {
        context->TryCancel();
        stream->Finish();
        ++totals.lost_streams;
        if (!session || half_closed || random.Uniform() < 0.1) {
          abandoned = true;  // the client does not come back
          break;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(random.Below(500)));
        context = std::make_unique<grpc::ClientContext>();
        stream = open(context.get());
        ++totals.resumed;
      }
      if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(random.Below(100)));
      v1::GenerateReply reply;
      Must(stream->Read(&reply), "the stream goes on");
      if (session) {
        Must(reply.number() == received + 1,
             absl::StrCat("reply ", received + 1, " of a session, not ", reply.number()));
        received = reply.number();
        // A slow one acknowledges late, but before its window would stay full for ever.
        if (!slow || received % 2 == 0) acknowledge();
      }
      Take(reply, &asked);
      if (slow && session && received % 2 == 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(random.Below(100)));
        acknowledge();
      }
    }
    if (abandoned) {
      totals.abandoned += static_cast<int64_t>(asked.size());
      return;
    }
    if (!half_closed) stream->WritesDone();
    v1::GenerateReply rest;
    Must(!stream->Read(&rest), "nothing comes after the end");
    Must(stream->Finish().ok(), "the stream ends well");
    Check(asked, random);
  }

  void Take(const v1::GenerateReply& reply, std::map<uint64_t, Asked>* asked) {
    if (reply.has_failure()) {
      Asked& a = asked->at(reply.failure().request_id());
      Must(a.cancelled && reply.failure().code() == 1,
           absl::StrCat("only cancels fail: ", reply.failure().message()));
      a.over = true;
      ++totals.cancelled;
      return;
    }
    Asked& a = asked->at(reply.chunk().request_id());
    const auto& chunk = reply.chunk();
    Must(a.ended.count(chunk.sample()) == 0 && !a.over, "nothing comes after the end of a sample");
    auto& tokens = a.tokens[chunk.sample()];
    tokens.insert(tokens.end(), chunk.token_ids().begin(), chunk.token_ids().end());
    Must(chunk.logprobs_size() == chunk.token_ids_size(), "a log-probability for every token");
    totals.tokens += chunk.token_ids_size();
    if (chunk.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return;
    a.ended.insert(chunk.sample());
    if (chunk.finish_reason() == v1::FINISH_REASON_CUT) {
      a.cut = true;
      ++totals.cut;
    } else if (chunk.finish_reason() == v1::FINISH_REASON_LENGTH) {
      Must(tokens.size() == a.start.budget(), "the budget is used up");
    }
    a.over = a.ended.size() == a.start.n();
  }

  void Check(const std::map<uint64_t, Asked>& asked, PhiloxStream& random) {
    for (const auto& [id, a] : asked) {
      if (a.ended.size() < a.start.n()) continue;  // cancelled
      totals.rollouts += a.start.n();
      if (a.cut || random.Uniform() > 0.02) continue;
      const uint32_t sample = static_cast<uint32_t>(random.Below(a.start.n()));
      std::lock_guard<std::mutex> lock(mutex_);
      if (finished_.size() < 1000) finished_.push_back({a.start, sample, a.tokens.at(sample)});
    }
  }

  grpc::Status Upload(uint64_t step, v1::RunningPolicy policy, double bytes_share, bool corrupt) {
    grpc::ClientContext context;
    v1::UploadReply reply;
    auto writer = weights_->Upload(&context, &reply);
    v1::UploadRequest part;
    auto* manifest = part.mutable_manifest();
    manifest->mutable_version()->set_job("soak");
    manifest->mutable_version()->set_step(step);
    manifest->set_running(policy);
    for (const ParameterSlot& slot : layout_->slots()) {
      auto* tensor = manifest->add_tensors();
      tensor->set_name(slot.name);
      for (int64_t d : slot.shape) tensor->add_shape(d);
      tensor->set_checksum(XXH3_64bits(parameters_.data() + slot.offset,
                                       static_cast<size_t>(slot.size) * sizeof(float)));
    }
    writer->Write(part);
    const size_t total = parameters_.size() * sizeof(float);
    const char* bytes = reinterpret_cast<const char*>(parameters_.data());
    for (size_t at = 0; at < static_cast<size_t>(static_cast<double>(total) * bytes_share);) {
      const size_t n = std::min<size_t>(1 << 20, total - at);
      part.mutable_chunk()->set_offset(at);
      part.mutable_chunk()->set_data(bytes + at, n);
      if (corrupt && at == 0) (*part.mutable_chunk()->mutable_data())[100] ^= 1;
      if (!writer->Write(part)) break;
      at += n;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  std::unique_ptr<v1::Rollouts::Stub> rollouts_;
  std::unique_ptr<v1::Weights::Stub> weights_;
  std::unique_ptr<ParameterLayout> layout_;
  std::vector<float> parameters_;
  std::mutex mutex_;
  std::vector<Finished> finished_;
};

double ResidentMiB(const std::string& pid) {
  std::ifstream statm("/proc/" + pid + "/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

int Main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "rollout_soak ADDRESS HTTP_PORT PID MODEL SECONDS CLIENTS\n";
    return 2;
  }
  const int http_port = std::atoi(argv[2]);
  const std::string pid = argv[3];
  const int64_t seconds = std::atoll(argv[5]), clients = std::atoll(argv[6]);
  Soak soak(argv[1], argv[4]);
  const Clock::time_point begin = Clock::now(), until = begin + std::chrono::seconds(seconds);
  std::vector<std::thread> threads;
  threads.emplace_back([&] { soak.Learner(until); });
  // One in eight comes through the HTTP door.
  for (int64_t c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] {
      const uint64_t number = static_cast<uint64_t>(c);
      c % 8 == 7 ? soak.HttpClient(number, http_port, until) : soak.Client(number, until);
    });
  }
  std::vector<double> memory;
  while (Clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::seconds(std::max<int64_t>(1, seconds / 20)));
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    const double resident = ResidentMiB(pid);
    memory.push_back(resident);
    const Totals& t = soak.totals;
    const v1::RolloutStatus s = soak.Status();
    std::cout
        << absl::StrFormat(
               "%5.0f s: %d rollouts, %d tokens, %d cancelled, %d abandoned, %d streams lost, "
               "%d resumed, %d asked again, %d cut, %d updates, %d + %d over HTTP; running %d, "
               "waiting %d, blocks "
               "%d/%d, "
               "%.0f MiB",
               elapsed, t.rollouts.load(), t.tokens.load(), t.cancelled.load(), t.abandoned.load(),
               t.lost_streams.load(), t.resumed.load(), t.asked_again.load(), t.cut.load(),
               t.updates.load(), t.http.load(), t.http_left.load(), s.running(), s.waiting(),
               s.kv_blocks_used(), s.kv_blocks_total(), resident)
        << std::endl;
  }
  for (std::thread& thread : threads) thread.join();
  soak.AskAgain();
  // Abandoned sessions end after their grace time.
  for (int i = 0; i < 300 && (soak.Status().running() > 0 || soak.Status().waiting() > 0); ++i)
    std::this_thread::sleep_for(100ms);
  const v1::RolloutStatus status = soak.Status();
  Must(status.running() == 0 && status.waiting() == 0, "nothing runs at the end");
  Must(status.kv_blocks_used() == 0, "all blocks are free at the end");
  // The second fifth of the time against the last one.
  const size_t fifth = memory.size() / 5;
  auto mean = [&](size_t begin) {
    const auto first = memory.begin() + static_cast<std::ptrdiff_t>(begin);
    return std::accumulate(first, first + static_cast<std::ptrdiff_t>(fifth), 0.0) /
           static_cast<double>(fifth);
  };
  const std::string found =
      absl::StrFormat("memory %.0f MiB after a fifth of the time, %.0f MiB at the end", mean(fifth),
                      mean(memory.size() - fifth));
  Must(mean(memory.size() - fifth) <= mean(fifth) * 1.05 + 8, found);
  std::cout << "passed: " << found << "\n";
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
