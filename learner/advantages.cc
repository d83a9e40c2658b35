#include "learner/advantages.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace e3 {

std::vector<double> GroupAdvantages(const std::vector<double>& rewards, bool normalize_std) {
  const double n = static_cast<double>(rewards.size());
  std::vector<double> advantages(rewards.size(), 0.0);
  if (rewards.size() < 2) return advantages;
  // Equal rewards say nothing: exactly zero, whatever the rounding of their mean.
  const auto [low, high] = std::minmax_element(rewards.begin(), rewards.end());
  if (*low == *high) return advantages;
  const double mean = std::accumulate(rewards.begin(), rewards.end(), 0.0) / n;
  double squares = 0;
  for (double r : rewards) squares += (r - mean) * (r - mean);
  const double deviation = std::sqrt(squares / (n - 1));
  for (size_t i = 0; i < rewards.size(); ++i) {
    advantages[i] = normalize_std ? (rewards[i] - mean) / (deviation + 1e-6) : rewards[i] - mean;
  }
  return advantages;
}

}  // namespace e3
