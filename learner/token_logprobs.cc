#include "learner/token_logprobs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace e3 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of logits held at once: 64 MiB of floats.
int64_t ChunkRows(int64_t vocab) { return std::max<int64_t>(16, (int64_t{16} << 20) / vocab); }

// ln softmax(hidden lm_head^T / T) of some rows, [rows, V].
at::Tensor LogSoftmax(const at::Tensor& hidden, const at::Tensor& lm_head, double temperature) {
  at::Tensor scores = at::linear(hidden, lm_head);
  if (temperature != 1) scores.mul_(1 / temperature);
  return scores.sub_(at::logsumexp(scores, {-1}, /*keepdim=*/true));
}

class TokenLogprobsFunction : public torch::autograd::Function<TokenLogprobsFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const at::Tensor& lm_head, const at::Tensor& targets,
                               double temperature) {
    const int64_t n = hidden.size(0), chunk = ChunkRows(lm_head.size(0));
    at::Tensor logprobs = at::empty({n}, hidden.options()),
               entropies = at::empty({n}, hidden.options());
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t rows = std::min(chunk, n - begin);
      at::Tensor log_p = LogSoftmax(hidden.narrow(0, begin, rows), lm_head, temperature);
      logprobs.narrow(0, begin, rows)
          .copy_(log_p.gather(1, targets.narrow(0, begin, rows).unsqueeze(1)).squeeze(1));
      entropies.narrow(0, begin, rows).copy_(log_p.exp().mul_(log_p).sum(-1).neg_());
    }
    context->save_for_backward({hidden, lm_head, targets, entropies});
    context->saved_data["temperature"] = temperature;
    return {logprobs, entropies};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &hidden = saved[0], &lm_head = saved[1], &targets = saved[2],
                     &entropies = saved[3];
    const double temperature = context->saved_data["temperature"].toDouble();
    const int64_t n = hidden.size(0), chunk = ChunkRows(lm_head.size(0));
    at::Tensor d_hidden = at::empty_like(hidden), d_lm_head = at::zeros_like(lm_head);
    const bool has_logprob = gradients[0].defined(), has_entropy = gradients[1].defined();
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t rows = std::min(chunk, n - begin);
      at::Tensor h = hidden.narrow(0, begin, rows);
      at::Tensor log_p = LogSoftmax(h, lm_head, temperature);
      at::Tensor p = log_p.exp();
      // With z the scaled logits: d logp[t] / dz = onehot(t) - p, and d entropy / dz = -p (log p +
      // entropy).
      at::Tensor dz = at::zeros_like(p);
      if (has_logprob) {
        at::Tensor g = gradients[0].narrow(0, begin, rows).unsqueeze(1);
        dz.addcmul_(p, g, -1);
        dz.scatter_add_(1, targets.narrow(0, begin, rows).unsqueeze(1), g.contiguous());
      }
      if (has_entropy) {
        at::Tensor g = gradients[1].narrow(0, begin, rows).unsqueeze(1);
        dz.addcmul_(p.mul_(log_p.add_(entropies.narrow(0, begin, rows).unsqueeze(1))), g, -1);
      }
      if (temperature != 1) dz.mul_(1 / temperature);
      d_hidden.narrow(0, begin, rows).copy_(dz.mm(lm_head));
      d_lm_head.addmm_(dz.t(), h);
    }
    return {d_hidden, d_lm_head, at::Tensor(), at::Tensor()};
  }
};

at::Tensor View(const std::vector<int64_t>& ids) {
  return at::from_blob(const_cast<int64_t*>(ids.data()), {static_cast<int64_t>(ids.size())},
                       at::kLong);
}

}  // namespace

TokenLogprobs ComputeTokenLogprobs(const at::Tensor& hidden, const at::Tensor& lm_head,
                                   const at::Tensor& targets, double temperature) {
  variable_list out = TokenLogprobsFunction::apply(hidden, lm_head, targets, temperature);
  return {out[0], out[1]};
}

TokenLogprobs ForwardLogprobs(const Transformer& model, const PackedBatch& batch,
                              double temperature) {
  PackedCausalAttention attention(batch.offsets);
  // Autograd keeps the ids, so they are copied.
  at::Tensor hidden =
      model.Hidden(View(batch.token_ids).clone(), View(batch.positions).clone(), attention);
  return ComputeTokenLogprobs(at::index_select(hidden, 0, View(batch.predicting_rows).clone()),
                              model.lm_head(), View(batch.targets).clone(), temperature);
}

}  // namespace e3
