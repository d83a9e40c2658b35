// What an optimizer update tells of itself.
#ifndef E3_LEARNER_UPDATE_STATISTICS_H_
#define E3_LEARNER_UPDATE_STATISTICS_H_

#include <algorithm>
#include <cstdint>

namespace e3 {

// Sums over the tokens that a rank computed, and means over those of all ranks.
struct TokenStatistics {
  int64_t tokens = 0;
  double kl = 0;  // 0 without a reference
  double ratio = 0;
  double clip_low_share = 0, clip_high_share = 0, clip_dual_share = 0;
  // |policy's log-probability - sampled one| before the update.
  double mismatch_mean = 0, mismatch_max = 0;
  double ratio_max = 0;
  // Of the tokens that end an incorrect response: how many, and logp - logp_old summed (or its
  // mean), by which earlier updates of the step moved the end of the sequence there.
  int64_t incorrect_ends = 0;
  double incorrect_end_shift = 0;

  void Add(const TokenStatistics& other) {
    tokens += other.tokens;
    kl += other.kl;
    ratio += other.ratio;
    clip_low_share += other.clip_low_share;
    clip_high_share += other.clip_high_share;
    clip_dual_share += other.clip_dual_share;
    mismatch_mean += other.mismatch_mean;
    mismatch_max = std::max(mismatch_max, other.mismatch_max);
    ratio_max = std::max(ratio_max, other.ratio_max);
    incorrect_ends += other.incorrect_ends;
    incorrect_end_shift += other.incorrect_end_shift;
  }
  TokenStatistics Means() const {
    TokenStatistics means = *this;
    const double n = static_cast<double>(std::max<int64_t>(1, tokens));
    for (double* mean : {&means.kl, &means.ratio, &means.clip_low_share, &means.clip_high_share,
                         &means.clip_dual_share, &means.mismatch_mean}) {
      *mean /= n;
    }
    means.incorrect_end_shift /= static_cast<double>(std::max<int64_t>(1, incorrect_ends));
    return means;
  }
};

struct UpdateStatistics {
  TokenStatistics tokens;
  double loss = 0;  // weights sum to 1 over the mini-batch, so ranks' losses add up to its loss
  double gradient_norm = 0;
  double learning_rate = 0;
  bool skipped = false;  // nothing had a gradient, or it was not finite
  bool finite = true;
  double flops = 0;  // of the model's products and attention, forward and backward once
};

}  // namespace e3

#endif  // E3_LEARNER_UPDATE_STATISTICS_H_
