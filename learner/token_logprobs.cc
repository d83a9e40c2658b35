#include "learner/token_logprobs.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "model/log_softmax.h"
#include "model/recompute.h"

namespace e3 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class TokenLogprobsFunction : public torch::autograd::Function<TokenLogprobsFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const at::Tensor& weight, const Projection* lm_head,
                               const at::Tensor& targets, double temperature) {
    const int64_t n = hidden.size(0), vocab = weight.size(0), chunk = LogitChunkRows(vocab);
    at::Tensor logprobs = at::empty({n}, hidden.options()),
               entropies = at::empty({n}, hidden.options());
    std::vector<SoftmaxRow> softmax(static_cast<size_t>(std::min(n, chunk)));
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t rows = std::min(chunk, n - begin);
      at::Tensor logits = Linear(hidden.narrow(0, begin, rows), *lm_head);
      const float* z = logits.const_data_ptr<float>();
      ComputeSoftmaxRows(z, rows, vocab, InverseTemperature(temperature), softmax.data());
      for (int64_t r = 0; r < rows; ++r) {
        const SoftmaxRow& row = softmax[static_cast<size_t>(r)];
        const int64_t target = targets.const_data_ptr<int64_t>()[begin + r];
        logprobs.mutable_data_ptr<float>()[begin + r] = row.LogProbability(z[r * vocab + target]);
        entropies.mutable_data_ptr<float>()[begin + r] = static_cast<float>(row.entropy);
      }
    }
    context->save_for_backward({hidden, targets});
    context->saved_data["lm_head"] = reinterpret_cast<int64_t>(lm_head);
    context->saved_data["temperature"] = temperature;
    return {logprobs, entropies};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &hidden = saved[0], &targets = saved[1];
    const auto* lm_head =
        reinterpret_cast<const Projection*>(context->saved_data["lm_head"].toInt());
    const double temperature = context->saved_data["temperature"].toDouble();
    const int64_t n = hidden.size(0), vocab = lm_head->weight.size(0),
                  chunk = LogitChunkRows(vocab);
    at::Tensor d_hidden = at::empty_like(hidden);
    auto gradient = [&](size_t i, int64_t r) {
      return gradients[i].defined() ? gradients[i].const_data_ptr<float>()[r] : 0.0f;
    };
    for (at::Tensor& g : gradients) {
      if (g.defined()) g = g.contiguous();
    }
    std::vector<SoftmaxRowGradient> rows_gradients(static_cast<size_t>(std::min(n, chunk)));
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t rows = std::min(chunk, n - begin);
      at::Tensor h = hidden.narrow(0, begin, rows);
      at::Tensor d_logits = Linear(h, *lm_head);
      for (int64_t r = 0; r < rows; ++r) {
        rows_gradients[static_cast<size_t>(r)] = {targets.const_data_ptr<int64_t>()[begin + r],
                                                  gradient(0, begin + r), gradient(1, begin + r)};
      }
      SoftmaxRowsBackward(d_logits.mutable_data_ptr<float>(), rows, vocab,
                          InverseTemperature(temperature), rows_gradients.data());
      d_hidden.narrow(0, begin, rows).copy_(LinearInputGradient(d_logits, *lm_head));
      AddLinearWeightGradient(h, d_logits, *lm_head);
    }
    return {d_hidden, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor View(const std::vector<int64_t>& ids) {
  return at::from_blob(const_cast<int64_t*>(ids.data()), {static_cast<int64_t>(ids.size())},
                       at::kLong);
}

}  // namespace

namespace {

// From LibTorch's own operators, where the fused ones do not compute; in chunks whose logits are
// computed again in the backward pass.
TokenLogprobs ComposedTokenLogprobs(const at::Tensor& hidden, const Projection& lm_head,
                                    const at::Tensor& targets, double temperature) {
  const int64_t n = hidden.size(0), chunk = LogitChunkRows(lm_head.weight.size(0));
  std::vector<at::Tensor> logprobs, entropies;
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t rows = std::min(chunk, n - begin);
    const at::Tensor ids = targets.narrow(0, begin, rows).unsqueeze(1);
    at::Tensor both = Recomputed(
        [&lm_head, ids, temperature](const at::Tensor& h) {
          at::Tensor log_p = at::log_softmax(Linear(h, lm_head) / temperature, -1);
          return at::cat({at::gather(log_p, 1, ids), -(at::exp(log_p) * log_p).sum(-1, true)}, 1);
        },
        hidden.narrow(0, begin, rows));
    logprobs.push_back(both.select(1, 0));
    entropies.push_back(both.select(1, 1));
  }
  return {at::cat(logprobs), at::cat(entropies)};
}

}  // namespace

TokenLogprobs ComputeTokenLogprobs(const at::Tensor& hidden, const Projection& lm_head,
                                   const at::Tensor& targets, double temperature) {
  if (!UsesFusedOperators(hidden))
    return ComposedTokenLogprobs(hidden, lm_head, targets, temperature);
  variable_list out = TokenLogprobsFunction::apply(hidden.contiguous(), lm_head.weight, &lm_head,
                                                   targets, temperature);
  return {out[0], out[1]};
}

TokenLogprobs ForwardLogprobs(const Transformer& model, const PackedBatch& batch,
                              double temperature, bool recompute) {
  auto attention = std::make_shared<PackedCausalAttention>(batch.offsets, model.products());
  // Autograd keeps the ids, so they are copied.
  auto copied = [&](const std::vector<int64_t>& values) {
    return View(values).clone().to(model.device());
  };
  at::Tensor ids = copied(batch.token_ids), positions = copied(batch.positions);
  at::Tensor hidden = recompute ? model.RecomputedHidden(ids, positions, attention)
                                : model.Hidden(ids, positions, *attention);
  return ComputeTokenLogprobs(at::index_select(hidden, 0, copied(batch.predicting_rows)),
                              model.lm_head(), copied(batch.targets), temperature);
}

}  // namespace e3
