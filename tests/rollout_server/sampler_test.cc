#include "rollout_server/sampler.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <numeric>

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
      SamplingParams params;
      params.temperature = temperature;
      OutputToken draw = SampleTokens({{logits.data(), &params, 1, 2, 3}}, n)[0];
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
  const SamplingParams params;
  std::vector<DrawRequest> requests;
  for (uint64_t i = 0; i < 40000; ++i)
    requests.push_back({logits.data(), &params, 9, static_cast<uint32_t>(i % 16), i / 16});
  std::vector<OutputToken> draws = SampleTokens(requests, 4);
  for (const OutputToken& d : draws) ++counts[d.token];
  double sum = 0;
  for (float l : logits) sum += std::exp(l);
  for (uint32_t v = 0; v < 4; ++v)
    CHECK(counts[v] / 40000.0 == Approx(std::exp(logits[v]) / sum).margin(0.01));
  std::reverse(requests.begin(), requests.end());
  std::vector<OutputToken> again = SampleTokens(requests, 4);
  for (size_t i = 0; i < draws.size(); ++i)
    REQUIRE(draws[i].token == again[draws.size() - 1 - i].token);
}

TEST_CASE("the model's own distribution is reported beside the policy's") {
  const std::vector<float> logits = RandomLogits(4, 1000);
  SamplingParams params, plain;
  params.temperature = 0.6;
  params.raw_logprobs = true;
  params.top_logprobs = 3;
  const OutputToken t = SampleTokens({{logits.data(), &params, 1, 2, 3}}, 1000)[0];
  plain.top_logprobs = 3;
  const OutputToken raw = ScoreTokens(logits.data(), 1000, plain, {t.token})[0];
  CHECK(t.raw_logprob == raw.logprob);
  CHECK(t.raw_entropy == raw.entropy);
  CHECK(t.top[2].logprob == raw.top[2].logprob);
  CHECK(t.logprob != raw.logprob);
}

TEST_CASE("a forbidden token is never drawn, and logits that are not finite are told") {
  // All that is allowed is as unlikely as can be.
  std::vector<float> logits(1000, -200.f);
  logits[5] = logits[999] = 200.f;
  const std::vector<uint32_t> forbidden = {5, 999};
  const SamplingParams params;
  for (uint64_t i = 0; i < 2000; ++i) {
    const DrawRequest draw{logits.data(), &params, 3, 0, i, nullptr, {&forbidden, nullptr}};
    const uint32_t token = SampleTokens({draw}, 1000)[0].token;
    REQUIRE((token != 5 && token != 999 && token < 1000));
  }
  for (float broken : {NAN, INFINITY}) {
    for (double temperature : {0.0, 1.0}) {
      std::vector<float> all(1000, broken);
      SamplingParams p;
      p.temperature = temperature;
      const OutputToken t = SampleTokens({{all.data(), &p, 1, 2, 3}}, 1000)[0];
      CHECK(t.token < 1000);
      CHECK(!std::isfinite(t.logprob));
    }
  }
}

// Tokens that are ever drawn.
std::vector<uint32_t> Drawn(const std::vector<float>& logits, SamplingParams params) {
  std::map<uint32_t, int> seen;
  for (uint64_t i = 0; i < 4000; ++i)
    ++seen[SampleTokens({{logits.data(), &params, 3, 0, i}}, static_cast<int64_t>(logits.size()))[0]
               .token];
  std::vector<uint32_t> tokens;
  for (const auto& [token, count] : seen) tokens.push_back(token);
  return tokens;
}

TEST_CASE("top-k, top-p and min-p keep what they should") {
  // Probabilities .5, .3, .15, .05 in an order of their own.
  std::vector<float> logits = {std::log(.15f), std::log(.5f), std::log(.05f), std::log(.3f)};
  using Tokens = std::vector<uint32_t>;
  auto Support = [&](double top_p, double min_p, int64_t top_k) {
    SamplingParams params;
    params.top_p = top_p;
    params.min_p = min_p;
    params.top_k = top_k;
    return Drawn(logits, params);
  };
  CHECK(Support(1, 0, 0) == Tokens{0, 1, 2, 3});
  CHECK(Support(1, 0, 2) == Tokens{1, 3});
  CHECK(Support(0.49, 0, 0) == Tokens{1});
  CHECK(Support(0.79, 0, 0) == Tokens{1, 3});
  CHECK(Support(0.81, 0, 0) == Tokens{0, 1, 3});
  CHECK(Support(1, 0.29, 0) == Tokens{0, 1, 3});
  CHECK(Support(1, 0.9, 0) == Tokens{1});
  CHECK(Support(0.9, 0.5, 3) == Tokens{1, 3});
}

TEST_CASE("cuts are exact over large vocabularies, and so is the probability of what was drawn") {
  const int64_t n = 5000;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<float> logits = RandomLogits(seed, n);
    SamplingParams params;
    params.temperature = 0.7;
    params.top_p = seed % 2 == 0 ? 0.9 : 0.3;
    params.top_k = seed % 3 == 0 ? 400 : 0;
    params.min_p = seed % 5 == 0 ? 0.05 : 0;
    // The plain definition, in double precision.
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    auto w = [&](int i) { return std::exp((logits[i] - logits[order[0]]) / 0.7); };
    if (params.top_k > 0) order.resize(static_cast<size_t>(params.top_k));
    double total = 0, mass = 0;
    for (int i : order) total += w(i);
    std::map<uint32_t, double> kept;
    for (int i : order) {
      kept[static_cast<uint32_t>(i)] = w(i);
      mass += w(i);
      if (mass >= params.top_p * total) break;
    }
    std::erase_if(kept, [&](const auto& entry) { return entry.second < params.min_p; });
    double left = 0;
    for (const auto& [token, weight] : kept) left += weight;
    for (uint64_t i = 0; i < 300; ++i) {
      OutputToken draw = SampleTokens({{logits.data(), &params, seed, 0, i}}, n)[0];
      REQUIRE(kept.count(draw.token) == 1);
      CHECK(draw.sampled_logprob == Approx(std::log(kept[draw.token] / left)).margin(1e-5));
    }
  }
}

TEST_CASE("penalties, biases and bans change what is drawn, not what the policy's numbers are") {
  std::vector<float> logits = {2.f, 1.f, -1.f, 0.f};
  const std::vector<uint32_t> seen = {0, 2, 0};
  SamplingParams params;
  params.repetition_penalty = 2;
  params.logit_bias = {{3, 0.5f}};
  DrawRequest request{logits.data(), &params, 5, 0, 0, &seen};
  // Penalised once: 2 / 2, 1, -1 * 2, 0 + .5.
  const std::vector<double> adjusted = {1, 1, -2, 0.5};
  double sum = 0, raw = 0;
  for (double z : adjusted) sum += std::exp(z);
  for (float z : logits) raw += std::exp(z);
  std::map<uint32_t, int> counts;
  for (uint64_t i = 0; i < 20000; ++i) {
    request.position = i;
    OutputToken draw = SampleTokens({request}, 4)[0];
    ++counts[draw.token];
    REQUIRE(draw.sampled_logprob == Approx(adjusted[draw.token] - std::log(sum)).margin(1e-5));
    REQUIRE(draw.logprob == Approx(logits[draw.token] - std::log(raw)).margin(1e-5));
  }
  for (uint32_t v = 0; v < 4; ++v)
    CHECK(counts[v] / 20000.0 == Approx(std::exp(adjusted[v]) / sum).margin(0.015));

  const std::vector<uint32_t> banned = {0, 1}, also = {3};
  request.forbidden[0] = &banned;
  request.forbidden[1] = &also;
  for (double temperature : {0.0, 1.0}) {
    params.temperature = temperature;
    CHECK(SampleTokens({request}, 4)[0].token == 2);
  }
  params.top_logprobs = 3;
  OutputToken draw = SampleTokens({request}, 4)[0];
  REQUIRE(draw.top.size() == 3);
  CHECK(draw.top[0].token == 0);
  CHECK(draw.top[2].token == 3);
  CHECK(draw.top[1].logprob == Approx(1 - std::log(raw)).margin(1e-5));
  OutputToken scored = ScoreTokens(logits.data(), 4, params, {1})[0];
  CHECK(scored.logprob == draw.top[1].logprob);
}

}  // namespace
}  // namespace e3
