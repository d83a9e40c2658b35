#include "model/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <utility>

namespace e3 {
namespace {

using torch::autograd::variable_list;

struct RecomputedBackward final : torch::autograd::Node {
  std::function<at::Tensor(const at::Tensor&)> f;
  at::Tensor x;  // without history

  variable_list apply(variable_list&& gradients) override {
    at::Tensor input = x.detach().set_requires_grad(true);
    {
      at::AutoGradMode enable(true);
      at::Tensor y = f(input);
      // The gradients of leaves are added where they are; the input's is what is passed on.
      torch::autograd::backward({y}, {gradients[0]});
    }
    release_variables();
    return {input.grad()};
  }
  void release_variables() override {
    x.reset();
    f = nullptr;
  }
};

}  // namespace

at::Tensor Recomputed(std::function<at::Tensor(const at::Tensor&)> f, const at::Tensor& x) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = f(x);
  }
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return y;
  auto node =
      std::shared_ptr<RecomputedBackward>(new RecomputedBackward, torch::autograd::deleteNode);
  node->f = std::move(f);
  node->x = x.detach();
  node->set_next_edges(torch::autograd::collect_next_edges(x));
  torch::autograd::set_history(y, node);
  return y;
}

}  // namespace e3
