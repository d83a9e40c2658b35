// rollout_soak ADDRESS PID MODEL SECONDS CLIENTS: a rollout server under everything that clients
// do.
//
// Clients ask for rollouts with random prompts, budgets, samples and sampling, cancel some, lose
// their streams and come back (or not), and read slowly; the weights are uploaded again every five
// seconds (the same ones, so that what a rollout should be is known) with every policy. Every
// rollout must end, no token may be lost or come twice, and at the end nothing may run, all blocks
// be free and the server's memory have stayed where it was after the first fifth of the time.
#include <unistd.h>
#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "e3/v1/rollouts.grpc.pb.h"
#include "e3/v1/weights.grpc.pb.h"
#include "model/parameters.h"
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
      resumed{0}, asked_again{0}, cut{0}, updates{0};
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
      }
      grpc::Status status = Upload(step, policy, 1, false);
      Must(status.ok(), absl::StrCat("upload ", step, ": ", status.error_message()));
      ++totals.updates;
      std::this_thread::sleep_for(5s);
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
    auto acknowledge = [&] {
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
        if (!session || random.Uniform() < 0.1) {
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
    stream->WritesDone();
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
      if (a.cut || random.Uniform() > 0.01) continue;
      std::lock_guard<std::mutex> lock(mutex_);
      if (finished_.size() < 300) finished_.push_back({a.start, 0, a.tokens.at(0)});
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
  if (argc != 6) {
    std::cerr << "rollout_soak ADDRESS PID MODEL SECONDS CLIENTS\n";
    return 2;
  }
  const std::string pid = argv[2];
  const int64_t seconds = std::atoll(argv[4]), clients = std::atoll(argv[5]);
  Soak soak(argv[1], argv[3]);
  const Clock::time_point begin = Clock::now(), until = begin + std::chrono::seconds(seconds);
  std::vector<std::thread> threads;
  threads.emplace_back([&] { soak.Learner(until); });
  for (int64_t c = 0; c < clients; ++c)
    threads.emplace_back([&, c] { soak.Client(static_cast<uint64_t>(c), until); });
  double settled = 0, most = 0;
  while (Clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::seconds(std::max<int64_t>(1, seconds / 20)));
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    const double resident = ResidentMiB(pid);
    (elapsed < static_cast<double>(seconds) / 5 ? settled : most) =
        std::max(elapsed < static_cast<double>(seconds) / 5 ? settled : most, resident);
    const Totals& t = soak.totals;
    const v1::RolloutStatus s = soak.Status();
    std::cout
        << absl::StrFormat(
               "%5.0f s: %d rollouts, %d tokens, %d cancelled, %d abandoned, %d streams lost, "
               "%d resumed, %d asked again, %d cut, %d updates; running %d, waiting %d, blocks "
               "%d/%d, "
               "%.0f MiB",
               elapsed, t.rollouts.load(), t.tokens.load(), t.cancelled.load(), t.abandoned.load(),
               t.lost_streams.load(), t.resumed.load(), t.asked_again.load(), t.cut.load(),
               t.updates.load(), s.running(), s.waiting(), s.kv_blocks_used(), s.kv_blocks_total(),
               resident)
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
  Must(most <= settled * 1.1 + 32, absl::StrFormat("memory stayed: %.0f MiB after a fifth, %.0f "
                                                   "MiB at most later",
                                                   settled, most));
  std::cout << absl::StrFormat("passed: memory %.0f MiB after a fifth, %.0f MiB at most later\n",
                               settled, most);
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
