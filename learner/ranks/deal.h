// Sequences dealt to ranks so that each has about the same to compute. Knows nothing of LibTorch.
#ifndef E3_LEARNER_RANKS_DEAL_H_
#define E3_LEARNER_RANKS_DEAL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace e3 {

// The indices of sequences with these lengths, for each of `ranks` ranks, ascending. Work is what
// grows with tokens and with their square (attention): the longest first, each to the rank that has
// the least so far (Graham 1969), so no rank has more than 4/3 of the least possible maximum.
// `quadratic_length`: where a sequence's attention costs as much as the rest of it.
std::vector<std::vector<size_t>> DealSequences(const std::vector<int64_t>& lengths, int ranks,
                                               double quadratic_length);

}  // namespace e3

#endif  // E3_LEARNER_RANKS_DEAL_H_
