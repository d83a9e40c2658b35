// What the reward service does in a second. Run by bench/reward/run.py; prints one JSON object.
//
//   bench_reward math PAIRS        one thread over JSON lines with "gold" and "response"; no cache
//   bench_reward countdown         one thread over generated puzzles
//   bench_reward grpc PAIRS HOST   a stream to a running reward service
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "e3/v1/rewards.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "reward_service/countdown/countdown_verifier.h"
#include "reward_service/math/math_verifier.h"
#include "services/runtime/rpc.h"

namespace e3 {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

double Seconds(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Pair {
  std::string gold, response;
};

std::vector<Pair> Read(const char* path) {
  std::vector<Pair> pairs;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    Json json = Json::parse(line);
    pairs.push_back({json["gold"], json["response"]});
  }
  return pairs;
}

// Each pair is judged `repeats` times; the best time of each counts for the percentiles, all for
// the rate.
Json Math(const std::vector<Pair>& pairs, int repeats) {
  std::vector<double> best(pairs.size(), 1e9);
  Json verdicts = Json::array();
  double right = 0;
  const Clock::time_point begin = Clock::now();
  for (int r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < pairs.size(); ++i) {
      const Clock::time_point start = Clock::now();
      absl::StatusOr<Verdict> verdict = Verify(MathVerifier(pairs[i].gold), pairs[i].response);
      best[i] = std::min(best[i], Seconds(start));
      right += verdict.ok() ? verdict->score : 0;
      if (r == 0) verdicts.push_back(verdict.ok() ? static_cast<int>(verdict->score) : -1);
    }
  }
  const double total = Seconds(begin);
  std::sort(best.begin(), best.end());
  return {{"per_second", repeats * static_cast<double>(pairs.size()) / total},
          {"median_us", 1e6 * best[best.size() / 2]},
          {"p99_us", 1e6 * best[best.size() * 99 / 100]},
          {"max_us", 1e6 * best.back()},
          {"right", right / repeats},
          {"verdicts", verdicts}};
}

Json Countdown() {
  const CountdownVerifier verifier({{65, 37, 14, 56}, 172});
  const std::string reasoning =
      "Try: 65 + 61 = 126, 126 + 37 = 163, no.\nWait, try 56 + 14 = 70, 70 + 65 = 135, 135 + 37 = "
      "172.\n";
  const std::vector<std::string> responses = {
      reasoning + "<answer> ( 56 + 14 ) + 65 + 37 </answer>",
      reasoning + "<answer>56 + 14 + 65 - 37</answer>",
      reasoning + "<answer>(56 * 14 - 65) / 37</answer>",
      reasoning + "<answer>56 + 14 + 65</answer>"};
  const Clock::time_point begin = Clock::now();
  int64_t count = 0;
  double score = 0;
  while (Seconds(begin) < 2) {
    for (int i = 0; i < 1000; ++i)
      score += Verify(verifier, responses[static_cast<size_t>(i) % responses.size()])->score;
    count += 1000;
  }
  return {{"per_second", static_cast<double>(count) / Seconds(begin)},
          {"mean_score", score / static_cast<double>(count)}};
}

Json Grpc(const std::vector<Pair>& pairs, const std::string& address, double seconds) {
  auto stub = v1::Rewards::NewStub(Connect(address));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  auto stream = stub->Score(&context);
  int64_t sent = 0;
  std::thread writer([&] {
    v1::ScoreRequest request;
    const Clock::time_point begin = Clock::now();
    while (Seconds(begin) < seconds) {
      for (int i = 0; i < 100; ++i, ++sent) {
        // A number in the text makes every response another one.
        const Pair& pair = pairs[static_cast<size_t>(sent) % pairs.size()];
        request.set_id(static_cast<uint64_t>(sent));
        request.set_response(absl::StrCat("Attempt ", sent, ". ", pair.response));
        request.mutable_math()->set_gold(pair.gold);
        if (!stream->Write(request, grpc::WriteOptions().set_buffer_hint())) return;
      }
    }
    stream->WritesDone();
  });
  const Clock::time_point begin = Clock::now();
  int64_t received = 0, errors = 0;
  v1::ScoreReply reply;
  while (stream->Read(&reply)) {
    ++received;
    errors += reply.error_code() != 0;
  }
  const double total = Seconds(begin);
  writer.join();
  absl::Status status = FromGrpc(stream->Finish());
  return {{"per_second", static_cast<double>(received) / total},
          {"sent", sent},
          {"received", received},
          {"errors", errors},
          {"status", status.ToString()}};
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "math" && argc == 3) {
    std::cout << e3::Math(e3::Read(argv[2]), 20) << "\n";
  } else if (what == "bombs" && argc == 3) {
    std::cout << e3::Math(e3::Read(argv[2]), 3) << "\n";
  } else if (what == "countdown") {
    std::cout << e3::Countdown() << "\n";
  } else if (what == "grpc" && argc == 4) {
    std::cout << e3::Grpc(e3::Read(argv[2]), argv[3], 10) << "\n";
  } else {
    std::cerr << "usage: bench_reward math|bombs PAIRS | countdown | grpc PAIRS HOST:PORT\n";
    return 2;
  }
  return 0;
}
