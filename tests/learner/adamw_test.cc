#include "learner/adamw.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "learner/learning_rate.h"

namespace e3 {
namespace {

ModelConfig TinyConfig() {
  ModelConfig c;
  c.hidden_size = 8;
  c.intermediate_size = 16;
  c.num_layers = 1;
  c.num_heads = c.num_kv_heads = 1;
  c.head_dim = 8;
  c.vocab_size = 11;
  c.tie_word_embeddings = true;
  return c;
}

TEST_CASE(
    "AdamW agrees with its definition, decays matrices only, and goes on from restored state") {
  ParameterLayout layout(TinyConfig());
  const size_t n = static_cast<size_t>(layout.size());
  AdamW optimizer(&layout);
  std::vector<float> p(n, 1.0f), g(n);
  std::vector<double> ep(n, 1.0), m(n, 0), v(n, 0);
  AdamWOptions o{1e-2, 0.9, 0.99, 1e-8, 0.1};
  for (int t = 1; t <= 5; ++t) {
    for (size_t i = 0; i < n; ++i) g[i] = static_cast<float>(std::sin(static_cast<double>(i) * t));
    optimizer.Step(o, g.data(), 0.5, p.data());
    for (const ParameterSlot& slot : layout.slots()) {
      for (size_t i = static_cast<size_t>(slot.offset);
           i < static_cast<size_t>(slot.offset + slot.size); ++i) {
        double gradient = 0.5 * g[i];
        m[i] = 0.9 * m[i] + 0.1 * gradient;
        v[i] = 0.99 * v[i] + 0.01 * gradient * gradient;
        ep[i] *= slot.decay ? 1 - o.learning_rate * o.weight_decay : 1;
        ep[i] -= o.learning_rate * (m[i] / (1 - std::pow(0.9, t))) /
                 (std::sqrt(v[i] / (1 - std::pow(0.99, t))) + 1e-8);
      }
    }
  }
  for (size_t i = 0; i < n; ++i) REQUIRE(p[i] == Approx(ep[i]).margin(2e-5));
  CHECK_FALSE(layout.slot("model.norm.weight").decay);

  AdamW resumed(&layout);
  resumed.first_moment() = optimizer.first_moment();
  resumed.second_moment() = optimizer.second_moment();
  resumed.Restore(optimizer.updates());
  std::vector<float> q = p;
  optimizer.Step(o, g.data(), 1, p.data());
  resumed.Step(o, g.data(), 1, q.data());
  CHECK(p == q);
}

TEST_CASE("the global norm is the Euclidean norm") {
  std::vector<float> g(200000, 0.5f);
  CHECK(GlobalNorm(g.data(), 200000) == Approx(std::sqrt(200000 * 0.25)));
}

TEST_CASE("learning rates rise to the peak and fall as asked") {
  const LearningRateSchedule cosine{2, 4, Decay::kCosine, 14, 0.1},
      linear{2, 4, Decay::kLinear, 14, 0.1}, constant{2, 4, Decay::kConstant, 0, 0};
  for (const LearningRateSchedule& s : {cosine, linear, constant}) {
    CHECK(LearningRate(s, 1) == Approx(0.5));
    CHECK(LearningRate(s, 4) == Approx(2));
  }
  CHECK(LearningRate(cosine, 9) == Approx(2 * (0.1 + 0.9 * 0.5)));
  CHECK(LearningRate(linear, 9) == Approx(2 * (0.1 + 0.9 * 0.5)));
  CHECK(LearningRate(linear, 6) == Approx(2 * (0.1 + 0.9 * 0.8)));
  for (int64_t update : {14, 100}) {
    CHECK(LearningRate(cosine, update) == Approx(0.2));
    CHECK(LearningRate(linear, update) == Approx(0.2));
    CHECK(LearningRate(constant, update) == 2);
  }
}

}  // namespace
}  // namespace e3
