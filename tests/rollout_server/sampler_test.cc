#include "rollout_server/sampler.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "services/runtime/philox.h"

namespace e3 {
namespace {

std::vector<float> RandomLogits(uint64_t seed, int64_t n) {
  std::vector<float> logits;
  for (int64_t i = 0; i < n; ++i)
    logits.push_back(static_cast<float>(8 * UniformDouble(seed, static_cast<uint64_t>(i), 0) - 4));
  return logits;
}

TEST_CASE("log-probability and entropy are those of softmax(logits / T)") {
  for (int64_t n : {1, 3, 8, 265, 1000, 49152}) {
    for (double temperature : {0.0, 0.6, 1.0, 2.5}) {
      std::vector<float> logits = RandomLogits(static_cast<uint64_t>(n), n);
      Draw draw = SampleTokens({{logits.data(), {temperature}, 1, 2, 3}}, n)[0];
      const double t = temperature == 0 ? 1 : temperature;
      double sum = 0, entropy = 0;
      for (float l : logits) sum += std::exp(l / t);
      for (float l : logits) entropy -= std::exp(l / t) / sum * (l / t - std::log(sum));
      CHECK(draw.logprob == Approx(logits[draw.token] / t - std::log(sum)).margin(2e-6));
      CHECK(draw.entropy == Approx(entropy).margin(2e-5));
      if (temperature == 0)
        CHECK(draw.token == std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
  }
}

TEST_CASE("frequencies are the probabilities, and a draw is a function of its key") {
  std::vector<float> logits = {0.f, 1.f, 2.f, -1.f};
  std::map<uint32_t, int> counts;
  std::vector<DrawRequest> requests;
  for (uint64_t i = 0; i < 40000; ++i)
    requests.push_back({logits.data(), {}, 9, static_cast<uint32_t>(i % 16), i / 16});
  std::vector<Draw> draws = SampleTokens(requests, 4);
  for (const Draw& d : draws) ++counts[d.token];
  double sum = 0;
  for (float l : logits) sum += std::exp(l);
  for (uint32_t v = 0; v < 4; ++v)
    CHECK(counts[v] / 40000.0 == Approx(std::exp(logits[v]) / sum).margin(0.01));
  std::reverse(requests.begin(), requests.end());
  std::vector<Draw> again = SampleTokens(requests, 4);
  for (size_t i = 0; i < draws.size(); ++i)
    REQUIRE(draws[i].token == again[draws.size() - 1 - i].token);
}

// Tokens that are ever drawn.
std::vector<uint32_t> Support(const std::vector<float>& logits, SamplingParams params) {
  std::map<uint32_t, int> seen;
  for (uint64_t i = 0; i < 4000; ++i)
    ++seen[SampleTokens({{logits.data(), params, 3, 0, i}}, static_cast<int64_t>(logits.size()))[0]
               .token];
  std::vector<uint32_t> tokens;
  for (const auto& [token, count] : seen) tokens.push_back(token);
  return tokens;
}

TEST_CASE("top-k, top-p and min-p keep what they should") {
  // Probabilities .5, .3, .15, .05 in an order of their own.
  std::vector<float> logits = {std::log(.15f), std::log(.5f), std::log(.05f), std::log(.3f)};
  using Tokens = std::vector<uint32_t>;
  CHECK(Support(logits, {1, 1, 0, 0}) == Tokens{0, 1, 2, 3});
  CHECK(Support(logits, {1, 1, 0, 2}) == Tokens{1, 3});
  CHECK(Support(logits, {1, 0.49, 0, 0}) == Tokens{1});
  CHECK(Support(logits, {1, 0.79, 0, 0}) == Tokens{1, 3});
  CHECK(Support(logits, {1, 0.81, 0, 0}) == Tokens{0, 1, 3});
  CHECK(Support(logits, {1, 1, 0.29, 0}) == Tokens{0, 1, 3});
  CHECK(Support(logits, {1, 1, 0.9, 0}) == Tokens{1});
  CHECK(Support(logits, {1, 0.9, 0.5, 3}) == Tokens{1, 3});
}

}  // namespace
}  // namespace e3
