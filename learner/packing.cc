#include "learner/packing.h"

namespace e3 {

PackedBatch Pack(const std::vector<const TrainingSequence*>& sequences) {
  PackedBatch batch;
  batch.offsets.push_back(0);
  for (const TrainingSequence* s : sequences) {
    const int64_t begin = batch.offsets.back();
    const int64_t prompt = static_cast<int64_t>(s->prompt.size());
    for (int64_t i = 0; i + 1 < s->length(); ++i) {
      batch.token_ids.push_back(i < prompt ? s->prompt[static_cast<size_t>(i)]
                                           : s->response[static_cast<size_t>(i - prompt)]);
      batch.positions.push_back(i);
    }
    for (size_t i = 0; i < s->response.size(); ++i) {
      if (s->IsForced(i)) continue;
      batch.predicting_rows.push_back(begin + prompt - 1 + static_cast<int64_t>(i));
      batch.targets.push_back(s->response[i]);
    }
    batch.offsets.push_back(static_cast<int64_t>(batch.token_ids.size()));
  }
  return batch;
}

std::vector<size_t> MicroBatches(const std::vector<int64_t>& lengths, int64_t max_tokens) {
  std::vector<size_t> ends;
  int64_t tokens = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (tokens > 0 && tokens + lengths[i] > max_tokens) {
      ends.push_back(i);
      tokens = 0;
    }
    tokens += lengths[i];
  }
  if (!lengths.empty()) ends.push_back(lengths.size());
  return ends;
}

}  // namespace e3
