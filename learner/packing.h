// Sequences of unequal length, packed into micro-batches without padding.
#ifndef E3_LEARNER_PACKING_H_
#define E3_LEARNER_PACKING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace e3 {

// A prompt and its response; the response's tokens are trained on, but for the forced ones.
struct TrainingSequence {
  std::vector<uint32_t> prompt;  // at least one token
  std::vector<uint32_t> response;
  std::vector<uint32_t> forced = {};  // positions in the response, ascending: not the policy's
  int64_t length() const { return static_cast<int64_t>(prompt.size() + response.size()); }
  int64_t trained_tokens() const { return static_cast<int64_t>(response.size() - forced.size()); }
  bool IsForced(size_t i) const {
    return std::binary_search(forced.begin(), forced.end(), static_cast<uint32_t>(i));
  }
};

// Several sequences one after the other. The last token of a sequence is no input: nothing is
// predicted from it.
struct PackedBatch {
  std::vector<int64_t> token_ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> offsets;  // sequence s is inputs offsets[s] … offsets[s + 1] - 1
  // For every response token that is trained on, in order: the input that predicts it, and the
  // token.
  std::vector<int64_t> predicting_rows;
  std::vector<int64_t> targets;
};

PackedBatch Pack(const std::vector<const TrainingSequence*>& sequences);

// Splits sequences, in order, into runs of at most `max_tokens` tokens (a longer sequence is a run
// of its own). Returns the end index of each run.
std::vector<size_t> MicroBatches(const std::vector<int64_t>& lengths, int64_t max_tokens);

}  // namespace e3

#endif  // E3_LEARNER_PACKING_H_
