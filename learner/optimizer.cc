#include "learner/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace e3 {
namespace {

// A copy on the host of n values, zeros where they are not defined.
std::shared_ptr<const float> OnHost(const at::Tensor& values, int64_t n) {
  auto copy = std::make_shared<at::Tensor>(at::zeros({n}, at::kFloat));
  if (values.defined()) copy->copy_(values);
  return {copy, copy->const_data_ptr<float>()};
}

// In double, of a piece at a time: LibTorch converts it as a whole.
double NormOnDevice(const at::Tensor& gradients) {
  constexpr int64_t kPiece = 16 << 20;
  std::vector<at::Tensor> norms;
  for (int64_t begin = 0; begin < gradients.numel(); begin += kPiece) {
    norms.push_back(at::linalg_vector_norm(
        gradients.narrow(0, begin, std::min(kPiece, gradients.numel() - begin)), 2, std::nullopt,
        /*keepdim=*/false, at::kDouble));
  }
  return at::linalg_vector_norm(at::stack(norms), 2).item<double>();
}

}  // namespace

std::shared_ptr<const float> CopyFloats(const float* values, int64_t n) {
  auto copy = std::make_shared<std::vector<float>>(values, values + n);
  return {copy, copy->data()};
}

std::shared_ptr<const float> ViewFloats(const float* values) {
  return {std::shared_ptr<const float>(), values};
}

Optimizer::Optimizer(Transformer* model, bool offload, int64_t begin, int64_t end)
    : model_(model), begin_(begin), end_(end) {
  if (offload || model->device().is_cpu()) {
    host_ = std::make_unique<AdamW>(&model->layout(), begin, end);
    return;
  }
  device_ = std::make_unique<OnDevice>();
}

double Optimizer::Step(const AdamWOptions& options, double max_grad_norm,
                       const std::function<void(const at::Tensor&)>& exchange) {
  const float* gradients =
      host_ != nullptr ? model_->HostGradients().const_data_ptr<float>() : nullptr;
  const double norm = host_ != nullptr ? GlobalNorm(gradients, model_->layout().size())
                                       : NormOnDevice(model_->flat_gradients());
  if (!std::isfinite(norm)) return norm;
  const double scale =
      max_grad_norm > 0 && norm > max_grad_norm ? max_grad_norm / (norm + 1e-6) : 1.0;
  if (host_ != nullptr) {
    model_->UpdateParameters([&](float* parameters) {
      host_->Step(options, gradients, scale, parameters);
      if (exchange) exchange(model_->master());
    });
  } else {
    model_->UpdateOnDevice([&](const at::Tensor& parameters) {
      StepOnDevice(options, scale, parameters);
      if (exchange) exchange(parameters);
    });
  }
  return norm;
}

void Optimizer::StepOnDevice(const AdamWOptions& o, double scale, const at::Tensor& parameters) {
  ++device_->updates;
  const at::TensorOptions like = parameters.options();
  for (at::Tensor* moment : {&device_->first, &device_->second}) {
    if (!moment->defined()) *moment = at::zeros({end_ - begin_}, like);
  }
  const at::Tensor step = at::full({}, static_cast<double>(device_->updates), like);
  // The kernel divides gradients by what they were multiplied with.
  const auto unscale =
      scale == 1 ? std::nullopt : std::optional<at::Tensor>(at::full({}, 1 / scale, like));
  for (const bool decay : {false, true}) {
    std::vector<at::Tensor> values, gradients, first, second;
    for (const ParameterSlot& slot : model_->layout().slots()) {
      const int64_t from = std::max(slot.offset, begin_),
                    size = std::min(slot.offset + slot.size, end_) - from;
      if (size <= 0 || slot.decay != decay) continue;
      values.push_back(parameters.narrow(0, from, size));
      gradients.push_back(model_->flat_gradients().narrow(0, from, size));
      first.push_back(device_->first.narrow(0, from - begin_, size));
      second.push_back(device_->second.narrow(0, from - begin_, size));
    }
    if (values.empty()) continue;
    const std::vector<at::Tensor> steps(values.size(), step);
    at::_fused_adamw_(values, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps,
                      o.learning_rate, o.beta1, o.beta2, decay ? o.weight_decay : 0.0, o.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, unscale);
  }
}

int64_t Optimizer::updates() const {
  return host_ != nullptr ? host_->updates() : device_->updates;
}

Optimizer::Moments Optimizer::GetMoments(bool copy) const {
  const int64_t n = end_ - begin_;
  if (device_ != nullptr) return {OnHost(device_->first, n), OnHost(device_->second, n)};
  auto part = [&](const std::vector<float>& values) {
    return copy ? CopyFloats(values.data(), n) : ViewFloats(values.data());
  };
  return {part(host_->first_moment()), part(host_->second_moment())};
}

void Optimizer::Restore(int64_t updates, const float* first_moment, const float* second_moment) {
  const int64_t n = end_ - begin_;
  if (host_ != nullptr) {
    std::copy_n(first_moment, n, host_->first_moment().begin());
    std::copy_n(second_moment, n, host_->second_moment().begin());
    host_->Restore(updates);
    return;
  }
  Reset();
  if (updates == 0) return;  // zeros
  auto restore = [&](const float* from, at::Tensor& to) {
    to = at::from_blob(const_cast<float*>(from), {n}, at::kFloat).to(model_->device());
  };
  restore(first_moment, device_->first);
  restore(second_moment, device_->second);
  device_->updates = updates;
}

void Optimizer::Reset() {
  if (host_ != nullptr) return host_->Reset();
  *device_ = OnDevice();
}

}  // namespace e3
