#include "learner/ranks/deal.h"

#include <algorithm>
#include <numeric>

namespace e3 {

std::vector<std::vector<size_t>> DealSequences(const std::vector<int64_t>& lengths, int ranks,
                                               double quadratic_length) {
  auto work = [&](size_t i) {
    const double n = static_cast<double>(lengths[i]);
    return n + n * n / quadratic_length;
  };
  std::vector<size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<size_t>> dealt(static_cast<size_t>(ranks));
  std::vector<double> load(static_cast<size_t>(ranks), 0.0);
  for (size_t i : order) {
    const auto least =
        static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    dealt[least].push_back(i);
    load[least] += work(i);
  }
  for (std::vector<size_t>& part : dealt) std::sort(part.begin(), part.end());
  return dealt;
}

}  // namespace e3
