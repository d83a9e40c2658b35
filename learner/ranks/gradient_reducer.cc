#include "learner/ranks/gradient_reducer.h"

namespace e3 {

GradientReducer::GradientReducer(Transformer* model, Collectives* collectives)
    : model_(model), collectives_(collectives), layers_left_(model->config().num_layers) {
  bucket_begin_ = bucket_end_ = model->LayerRange(layers_left_ - 1).second;
}

GradientReducer::~GradientReducer() { model_->OnLayerGradients(nullptr); }

void GradientReducer::WatchLastBackward() {
  if (collectives_ == nullptr) return;
  model_->OnLayerGradients([this](int64_t begin, int64_t end) { LayerComplete(begin, end); });
}

void GradientReducer::LayerComplete(int64_t begin, int64_t end) {
  (void)end;  // where the layer before began
  --layers_left_;
  bucket_begin_ = begin;
  if (bucket_end_ - bucket_begin_ < kBucketElements && layers_left_ > 0) return;
  Reduce(bucket_begin_, bucket_end_);
  bucket_end_ = bucket_begin_;
}

void GradientReducer::Reduce(int64_t begin, int64_t end) {
  if (begin < end)
    collectives_->StartAllReduce(model_->flat_gradients().narrow(0, begin, end - begin));
}

absl::Status GradientReducer::Finish() {
  if (collectives_ == nullptr) return absl::OkStatus();
  model_->OnLayerGradients(nullptr);
  while (layers_left_ > 0) {  // of a rank without a backward pass
    const auto [begin, end] = model_->LayerRange(layers_left_ - 1);
    LayerComplete(begin, end);
  }
  Reduce(0, bucket_begin_);
  Reduce(model_->LayerRange(model_->config().num_layers - 1).second, model_->layout().size());
  return collectives_->Wait();
}

}  // namespace e3
