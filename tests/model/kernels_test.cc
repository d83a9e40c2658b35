#include <omp.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "model/attention_blocks.h"
#include "model/attention_kernel.h"
#include "model/log_softmax.h"
#include "model/packed_matrix.h"
#include "model/packed_matrix_kernel.h"
#include "model/row_kernels.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

std::vector<float> Random(int64_t n, uint64_t seed) {
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<float>(2 * UniformDouble(seed, i, 0) - 1);
  return v;
}

TEST_CASE("a row of a product has the same bits in every batch, and on every width of vectors") {
  for (auto [outputs, inputs] :
       {std::pair<int64_t, int64_t>{1, 8}, {265, 128}, {31, 24}, {64, 1}, {577, 640}}) {
    const std::vector<float> weight = Random(outputs * inputs, 1), bias = Random(outputs, 2);
    const int64_t most = 150;
    const std::vector<float> x = Random(most * inputs, 3);
    PackedMatrix packed(outputs, inputs);
    packed.Pack(weight.data());
    std::vector<float> expected(static_cast<size_t>(most * outputs));
    packed.Multiply(x.data(), most, bias.data(), expected.data());
    for (int64_t r = 0; r < most; r += 29) {
      for (int64_t o = 0; o < outputs; ++o) {
        // One chain of fused multiply-adds over k: not close to it, but it.
        float sum = 0;
        for (int64_t k = 0; k < inputs; ++k)
          sum = std::fma(x[r * inputs + k], weight[o * inputs + k], sum);
        REQUIRE(expected[r * outputs + o] == sum + bias[o]);
      }
    }
    for (int64_t rows : {1, 2, 3, 5, 6, 7, 11, 12, 13, 64, 149}) {
      std::vector<float> y(static_cast<size_t>(rows * outputs));
      packed.Multiply(x.data(), rows, bias.data(), y.data());
      REQUIRE(memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0);
    }
    if (!__builtin_cpu_supports("avx512f")) continue;
    std::vector<float> panel(static_cast<size_t>(inputs * kPanelWidth)), narrow(13 * kPanelWidth),
        wide(13 * kPanelWidth);
    for (size_t i = 0; i < panel.size(); ++i) panel[i] = weight[i % weight.size()];
    const ProductRows in{x.data(), inputs, 13, inputs};
    PanelProductAvx2(in, panel.data(), {narrow.data(), kPanelWidth, 29, nullptr, false});
    PanelProductAvx512(in, panel.data(), {wide.data(), kPanelWidth, 29, nullptr, false});
    REQUIRE(narrow == wide);
  }
}

TEST_CASE("attention has the same bits on every width of vectors") {
  if (!__builtin_cpu_supports("avx512f")) return;
  for (int64_t dim : {8, 24, 32, 64, 80, 128}) {
    constexpr int64_t kHeads = 7;
    const auto floats = static_cast<size_t>(kKvBlockRows * dim);
    const std::vector<float> queries = Random(kHeads * dim, 1), keys = Random(16 * dim, 2),
                             keys_t = Random(16 * dim, 3), values_t = Random(16 * dim, 4),
                             d_outs = Random(kHeads * dim, 5);
    std::vector<std::vector<float>> results[2];
    for (const AttentionBlocks* blocks : {&kAttentionBlocksAvx2, &kAttentionBlocksAvx512}) {
      std::vector<float> scores(kHeads * 16), outs(queries), d_queries(d_outs),
          d_keys(floats, 1.0f), d_values(floats, 2.0f);
      std::vector<QueryHead> heads;
      std::vector<GradientRow> rows;
      for (int64_t i = 0; i < kHeads; ++i) {
        heads.push_back({queries.data() + i * dim, 3 + 2 * i, scores.data() + i * 16,
                         outs.data() + i * dim, nullptr});
        rows.push_back({queries.data() + i * dim, d_outs.data() + i * dim,
                        d_queries.data() + i * dim, 0.5f * static_cast<float>(i), 0.1f, 3 + 2 * i});
      }
      blocks->score(heads.data(), kHeads, keys_t.data(), dim, 0.3f, 0);
      blocks->add_values(heads.data(), kHeads, keys.data(), dim, 0);
      blocks->add_gradients(
          rows.data(), kHeads, dim, 0.3f,
          {keys.data(), keys_t.data(), values_t.data(), d_keys.data(), d_values.data()});
      results[blocks == &kAttentionBlocksAvx512] = {scores, outs, d_queries, d_keys, d_values};
    }
    INFO("head size " << dim);
    for (size_t i = 0; i < results[0].size(); ++i) CHECK(results[0][i] == results[1][i]);
  }
}

TEST_CASE("gradients of a product are those of double precision, on any number of threads") {
  for (auto [rows, outputs, inputs] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 8},
                                       {13, 265, 40},
                                       {1500, 70, 24},
                                       {5, 9000, 600}}) {
    const std::vector<float> x = Random(rows * inputs, 1), weight = Random(outputs * inputs, 2),
                             d_y = Random(rows * outputs, 3);
    std::vector<float> d_x(x.size()), d_weight = weight;  // the weight's gradient is added to
    ProductInputGradient(d_y.data(), rows, weight.data(), outputs, inputs, d_x.data());
    AddProductWeightGradient(d_y.data(), x.data(), rows, outputs, inputs, d_weight.data());
    for (int64_t r = 0; r < rows; r += 7) {
      for (int64_t i = 0; i < inputs; i += 5) {
        double sum = 0;
        for (int64_t o = 0; o < outputs; ++o)
          sum += static_cast<double>(d_y[r * outputs + o]) * weight[o * inputs + i];
        REQUIRE(d_x[r * inputs + i] == Approx(sum).margin(1e-3));
      }
    }
    for (int64_t o = 0; o < outputs; o += 11) {
      for (int64_t i = 0; i < inputs; i += 7) {
        double sum = weight[o * inputs + i];
        for (int64_t r = 0; r < rows; ++r)
          sum += static_cast<double>(d_y[r * outputs + o]) * x[r * inputs + i];
        REQUIRE(d_weight[o * inputs + i] == Approx(sum).margin(3e-4));
      }
    }
#ifndef __SANITIZE_THREAD__  // which does not know how OpenMP's threads wait for each other
    const int threads = omp_get_max_threads();
    omp_set_num_threads(threads == 1 ? 2 : 1);
    std::vector<float> d_x_again(x.size()), d_weight_again = weight;
    ProductInputGradient(d_y.data(), rows, weight.data(), outputs, inputs, d_x_again.data());
    AddProductWeightGradient(d_y.data(), x.data(), rows, outputs, inputs, d_weight_again.data());
    omp_set_num_threads(threads);
    REQUIRE(d_x == d_x_again);
    REQUIRE(d_weight == d_weight_again);
#endif
  }
}

TEST_CASE("log-softmax, entropy and their gradients are those of double precision") {
  for (int64_t n : {1, 7, 8, 265, 1000}) {
    const int64_t rows = 3;
    std::vector<float> logits = Random(rows * n, static_cast<uint64_t>(n));
    for (float& z : logits) z *= 12;
    const double temperature = 0.7;
    const float inverse = InverseTemperature(temperature);
    std::vector<SoftmaxRow> found(rows);
    ComputeSoftmaxRows(logits.data(), rows, n, inverse, found.data());
    std::vector<float> d = logits;
    std::vector<SoftmaxRowGradient> gradients;
    for (int64_t r = 0; r < rows; ++r)
      gradients.push_back({(r * 5) % n, 1.5f, r == 0 ? 0.0f : -0.25f});
    SoftmaxRowsBackward(d.data(), rows, n, inverse, gradients.data());
    for (int64_t r = 0; r < rows; ++r) {
      const float* z = logits.data() + r * n;
      double sum = 0, entropy = 0;
      for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] / temperature);
      auto log_p = [&](int64_t i) { return z[i] / temperature - std::log(sum); };
      for (int64_t i = 0; i < n; ++i) entropy -= std::exp(log_p(i)) * log_p(i);
      CHECK(found[r].entropy == Approx(entropy).margin(2e-6));
      CHECK(z[found[r].argmax] == found[r].max_logit);
      for (int64_t i = 0; i < n; ++i) {
        CHECK(found[r].LogProbability(z[i]) == Approx(log_p(i)).margin(3e-6));
        const double p = std::exp(log_p(i));
        const double slope = (1.5 * ((i == gradients[r].target) - p) -
                              gradients[r].d_entropy * p * (log_p(i) + entropy)) /
                             temperature;
        CHECK(d[r * n + i] == Approx(slope).margin(4e-6));
      }
    }
  }
}

TEST_CASE("rotary tables give the same rows in any order") {
  RotaryTable forwards({1.0f, 0.1f, 0.01f, 0.001f}, 3000);
  RotaryTable backwards({1.0f, 0.1f, 0.01f, 0.001f}, 3000);
  for (int64_t p = 2999; p >= 0; p -= 7) backwards.Row(p);
  for (int64_t p = 0; p < 3000; p += 11) {
    CHECK(memcmp(forwards.Row(p), backwards.Row(p), 8 * sizeof(float)) == 0);
    CHECK(forwards.Row(p)[1] == Approx(std::cos(0.1f * static_cast<float>(p))).margin(1e-6));
  }
}

}  // namespace
}  // namespace e3
