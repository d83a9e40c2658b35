#include "model/operators.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace e3 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

thread_local bool composed_operators = false;

const float* Data(const at::Tensor& t) { return t.const_data_ptr<float>(); }
const float* DataOrNull(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}
float* Out(at::Tensor& t) { return t.mutable_data_ptr<float>(); }

bool NeedsGradient(const at::Tensor& x, const at::Tensor& weight) {
  return at::GradMode::is_enabled() &&
         (x.requires_grad() || (weight.defined() && weight.requires_grad()));
}

// --- products ---

// a b of bf16 matrices, summed up in fp32; on the CPU LibTorch rounds the sums.
at::Tensor MultiplyBf16(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cuda() ? at::mm(a, b, at::kFloat) : at::mm(a, b).to(at::kFloat);
}

at::Tensor Multiply(const at::Tensor& x, const Projection& p) {
  if (p.bf16.defined()) {
    at::Tensor y = MultiplyBf16(x.to(at::kBFloat16), p.bf16.t());
    return p.bias.defined() ? y.add_(p.bias) : y;
  }
  at::Tensor in = x.contiguous();
  at::Tensor y = at::empty({in.size(0), p.packed.outputs()}, in.options());
  p.packed.Multiply(Data(in), in.size(0), DataOrNull(p.bias), Out(y));
  return y;
}

// Where a leaf's gradient is summed up. Adding to it in place, rather than returning a gradient for
// autograd to add, saves a matrix of zeros and a pass over it for every product.
at::Tensor& GradientOf(const at::Tensor& leaf) {
  at::Tensor& gradient = leaf.mutable_grad();
  if (!gradient.defined()) gradient = at::zeros_like(leaf);
  return gradient;
}

class LinearFunction : public Function<LinearFunction> {
 public:
  // `projection` outlives the backward pass; x may be undefined in what follows from it.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const Projection* projection) {
    // The gradient of the weight wants no more of x than the product takes.
    context->save_for_backward({projection->bf16.defined() ? x.to(at::kBFloat16) : x});
    context->saved_data["projection"] = reinterpret_cast<int64_t>(projection);
    (void)weight;  // an input, so that the result requires a gradient where x does not
    return Multiply(x, *projection);
  }
  static variable_list backward(AutogradContext* context, variable_list d_ys) {
    const at::Tensor x = context->get_saved_variables()[0];
    const auto& p = *reinterpret_cast<const Projection*>(context->saved_data["projection"].toInt());
    at::Tensor d_y = d_ys[0].contiguous(), d_x;
    if (p.bias.defined()) GradientOf(p.bias).add_(d_y.sum(0));
    if (p.bf16.defined()) d_y = d_y.to(at::kBFloat16);
    AddLinearWeightGradient(x, d_y, p);
    if (context->needs_input_grad(0)) d_x = LinearInputGradient(d_y, p);
    return {d_x, at::Tensor(), at::Tensor()};
  }
};

// --- embedding ---

class EmbeddingFunction : public Function<EmbeddingFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& token_ids) {
    context->save_for_backward({weight, token_ids});
    return at::embedding(weight, token_ids);
  }
  // Touches the rows of these tokens only, in the order of the tokens.
  static variable_list backward(AutogradContext* context, variable_list d_ys) {
    variable_list saved = context->get_saved_variables();
    at::Tensor d_y = d_ys[0].contiguous(), &gradient = GradientOf(saved[0]);
    const int64_t* ids = saved[1].const_data_ptr<int64_t>();
    const int64_t rows = d_y.size(0), dim = d_y.size(1);
    const float* from = Data(d_y);
    float* out = Out(gradient);
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out + ids[r] * dim;
      for (int64_t i = 0; i < dim; ++i) to[i] += from[r * dim + i];
    }
    return {at::Tensor(), at::Tensor()};
  }
};

// --- RMS norm ---

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double epsilon) {
    at::Tensor y = at::empty_like(x), scale = at::empty({x.size(0)}, x.options());
    RmsNormRows(Data(x), x.size(0), x.size(1), Data(weight), static_cast<float>(epsilon), Out(y),
                Out(scale));
    context->save_for_backward({x, weight, scale});
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list d_ys) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    at::Tensor d_y = d_ys[0].contiguous(), d_x = at::empty_like(x),
               d_weight = at::zeros_like(weight);
    RmsNormRowsBackward(Data(x), x.size(0), x.size(1), Data(weight), Data(scale), Data(d_y),
                        /*d_besides=*/nullptr, Out(d_x), Out(d_weight));
    return {d_x, d_weight, at::Tensor()};
  }
};

// The gradient of the sum and that of its norm leave in one tensor, to both summands.
class AddRmsNormFunction : public Function<AddRmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& y,
                               const at::Tensor& weight, double epsilon) {
    at::Tensor sum = at::empty_like(x), normalised = at::empty_like(x),
               scale = at::empty({x.size(0)}, x.options());
    AddRmsNormRows(Data(x), Data(y), x.size(0), x.size(1), Data(weight),
                   static_cast<float>(epsilon), Out(sum), Out(normalised), Out(scale));
    context->save_for_backward({sum, weight, scale});
    return {sum, normalised};
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &sum = saved[0], &weight = saved[1], &scale = saved[2];
    at::Tensor d_sum = gradients[0].contiguous(), d_y = gradients[1].contiguous(),
               d_x = at::empty_like(sum), d_weight = at::zeros_like(weight);
    RmsNormRowsBackward(Data(sum), sum.size(0), sum.size(1), Data(weight), Data(scale), Data(d_y),
                        Data(d_sum), Out(d_x), Out(d_weight));
    return {d_x, d_x, d_weight, at::Tensor()};
  }
};

at::Tensor ComposedRmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (x.is_cuda()) return at::rms_norm(x, {x.size(-1)}, weight, epsilon);  // one kernel
  return x * at::rsqrt(at::mean(at::square(x), {-1}, /*keepdim=*/true) + epsilon) * weight;
}

// --- heads ---

// The columns from `first` on as heads for the row kernels.
HeadRows Rows(const at::Tensor& qkv, int64_t heads, int64_t head_dim, const at::Tensor& norm,
              double epsilon) {
  return {
      qkv.size(0), heads, head_dim, qkv.stride(0), DataOrNull(norm), static_cast<float>(epsilon)};
}

// What the fused operator computes; `query_scale` and `key_scale` are for the backward pass.
struct SplitRows {
  Heads heads;
  at::Tensor query_scale, key_scale;

  SplitRows(const at::Tensor& qkv, const HeadShapes& s, const at::Tensor& query_norm,
            const at::Tensor& key_norm, double epsilon, const at::Tensor& positions,
            const RotaryTable& table) {
    const int64_t n = qkv.size(0);
    auto rotated = [&](int64_t first, int64_t count, const at::Tensor& norm, at::Tensor& scale) {
      at::Tensor y = at::empty({n, count, s.head_dim}, qkv.options());
      scale = at::empty({n, norm.defined() ? count : 0}, qkv.options());
      NormRotateRows(Rows(qkv, count, s.head_dim, norm, epsilon), Data(qkv) + first * s.head_dim,
                     positions.const_data_ptr<int64_t>(), table, Out(y), Out(scale));
      return y;
    };
    heads.query = rotated(0, s.queries, query_norm, query_scale);
    heads.key = rotated(s.queries, s.keys, key_norm, key_scale);
    heads.value = qkv.narrow(1, (s.queries + s.keys) * s.head_dim, s.keys * s.head_dim)
                      .view({n, s.keys, s.head_dim});
  }
};

class SplitHeadsFunction : public Function<SplitHeadsFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& qkv,
                               const std::optional<at::Tensor>& query_norm,
                               const std::optional<at::Tensor>& key_norm, const HeadShapes& shapes,
                               double epsilon, const at::Tensor& positions,
                               const RotaryTable* table) {
    const at::Tensor q_norm = query_norm.value_or(at::Tensor()),
                     k_norm = key_norm.value_or(at::Tensor());
    SplitRows rows(qkv, shapes, q_norm, k_norm, epsilon, positions, *table);
    context->save_for_backward({qkv, q_norm, k_norm, positions, rows.query_scale, rows.key_scale});
    context->saved_data["shapes"] =
        std::vector<int64_t>{shapes.queries, shapes.keys, shapes.head_dim};
    context->saved_data["table"] = reinterpret_cast<int64_t>(table);
    return {rows.heads.query, rows.heads.key, rows.heads.value.contiguous()};
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &q_norm = saved[1], &k_norm = saved[2], &positions = saved[3];
    const std::vector<int64_t> shapes = context->saved_data["shapes"].toIntVector();
    const int64_t queries = shapes[0], keys = shapes[1], head_dim = shapes[2];
    const auto* table = reinterpret_cast<const RotaryTable*>(context->saved_data["table"].toInt());
    at::Tensor d_qkv = at::empty_like(qkv);
    auto part = [&](int64_t first, int64_t count, const at::Tensor& norm, const at::Tensor& scale,
                    const at::Tensor& d_heads) {
      const at::Tensor d_y = d_heads.contiguous();
      at::Tensor d_norm = norm.defined() ? at::zeros_like(norm) : at::Tensor();
      NormRotateRowsBackward(Rows(qkv, count, head_dim, norm, 0), Data(qkv) + first * head_dim,
                             positions.const_data_ptr<int64_t>(), *table, Data(scale), Data(d_y),
                             Out(d_qkv) + first * head_dim, norm.defined() ? Out(d_norm) : nullptr);
      return d_norm;
    };
    const at::Tensor d_q_norm = part(0, queries, q_norm, saved[4], gradients[0]);
    const at::Tensor d_k_norm = part(queries, keys, k_norm, saved[5], gradients[1]);
    d_qkv.narrow(1, (queries + keys) * head_dim, keys * head_dim)
        .copy_(gradients[2].reshape({qkv.size(0), keys * head_dim}));
    return {d_qkv, d_q_norm, d_k_norm, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor ComposedNormRotate(at::Tensor x, const at::Tensor& norm, double epsilon,
                              const at::Tensor& angles) {
  const int64_t half = x.size(2) / 2;
  if (norm.defined()) x = ComposedRmsNorm(x, norm, epsilon);
  at::Tensor cos = angles.narrow(2, 0, half), sin = angles.narrow(2, half, half);
  at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1);
}

// --- SwiGLU ---

class SwiGluFunction : public Function<SwiGluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    context->save_for_backward({gate_up});
    const int64_t dim = gate_up.size(1) / 2;
    at::Tensor y = at::empty({gate_up.size(0), dim}, gate_up.options());
    SwiGluRows(Data(gate_up), gate_up.size(0), dim, Out(y));
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list d_ys) {
    at::Tensor gate_up = context->get_saved_variables()[0];
    at::Tensor d_y = d_ys[0].contiguous(), d_gate_up = at::empty_like(gate_up);
    SwiGluRowsBackward(Data(gate_up), gate_up.size(0), gate_up.size(1) / 2, Data(d_y),
                       Out(d_gate_up));
    return {d_gate_up};
  }
};

}  // namespace

ComposedOperatorsGuard::ComposedOperatorsGuard() : before_(composed_operators) {
  composed_operators = true;
}
ComposedOperatorsGuard::~ComposedOperatorsGuard() { composed_operators = before_; }

bool UsesFusedOperators(const at::Tensor& x) {
  return !composed_operators && x.device().is_cpu() && x.scalar_type() == at::kFloat;
}

void Projection::Pack() {
  if (bf16.defined()) {
    bf16.copy_(weight.detach());
    return;
  }
  if (!weight.device().is_cpu() || weight.scalar_type() != at::kFloat) return;
  if (packed.empty()) packed = PackedMatrix(weight.size(0), weight.size(1));
  packed.Pack(Data(weight));
}

void Projection::MultiplyIn(c10::ScalarType dtype) {
  const bool in_bf16 = dtype == at::kBFloat16;
  if (in_bf16 == bf16.defined()) return Pack();
  bf16 = in_bf16 ? at::empty(weight.sizes(), weight.options().dtype(dtype)) : at::Tensor();
  packed = PackedMatrix();
  Pack();
}

Rotary::Rotary(const std::vector<float>& inverse_frequencies, int64_t max_positions)
    : table_(inverse_frequencies, max_positions),
      head_dim_(2 * static_cast<int64_t>(inverse_frequencies.size())),
      max_positions_(max_positions) {}

at::Tensor Rotary::Rows(const at::Tensor& positions, c10::ScalarType dtype) const {
  std::call_once(once_, [&] {
    // Computed on the host: the same angles on every device.
    at::Tensor rows = at::empty({max_positions_, 1, head_dim_}, at::kFloat);
    for (int64_t i = 0; i < max_positions_; ++i) {
      const float* row = table_.Row(i);
      std::copy(row, row + head_dim_, Out(rows) + i * head_dim_);
    }
    rows_ = rows.to(positions.device());
  });
  return at::index_select(rows_, 0, positions).to(dtype);
}

at::Tensor Linear(const at::Tensor& x, const Projection& p) {
  if (!UsesFusedOperators(x) && !p.bf16.defined()) {
    return at::linear(x, p.weight, p.bias.defined() ? std::optional(p.bias) : std::nullopt);
  }
  if (!NeedsGradient(x, p.weight)) return Multiply(x, p);
  return LinearFunction::apply(x.contiguous(), p.weight, &p);
}

at::Tensor LinearInputGradient(const at::Tensor& d_y, const Projection& p) {
  if (p.bf16.defined()) return MultiplyBf16(d_y.to(at::kBFloat16), p.bf16);
  if (!UsesFusedOperators(d_y)) return d_y.mm(p.weight);
  at::Tensor d_x = at::empty({d_y.size(0), p.weight.size(1)}, d_y.options());
  ProductInputGradient(Data(d_y), d_y.size(0), Data(p.weight), p.weight.size(0), p.weight.size(1),
                       Out(d_x));
  return d_x;
}

void AddLinearWeightGradient(const at::Tensor& x, const at::Tensor& d_y, const Projection& p) {
  at::Tensor& gradient = GradientOf(p.weight);
  if (p.bf16.defined()) {
    gradient.add_(MultiplyBf16(d_y.to(at::kBFloat16).t(), x.to(at::kBFloat16)));
    return;
  }
  if (!UsesFusedOperators(x)) {
    gradient.addmm_(d_y.t(), x);
    return;
  }
  AddProductWeightGradient(Data(d_y), Data(x), x.size(0), p.weight.size(0), p.weight.size(1),
                           Out(gradient));
}

at::Tensor Embedding(const at::Tensor& weight, const at::Tensor& token_ids) {
  if (!UsesFusedOperators(weight) || !NeedsGradient(weight, weight))
    return at::embedding(weight, token_ids);
  return EmbeddingFunction::apply(weight, token_ids);
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (!UsesFusedOperators(x)) return ComposedRmsNorm(x, weight, epsilon);
  at::Tensor in = x.contiguous();
  if (NeedsGradient(x, weight)) return RmsNormFunction::apply(in, weight, epsilon);
  at::Tensor y = at::empty_like(in);
  RmsNormRows(Data(in), in.size(0), in.size(1), Data(weight), static_cast<float>(epsilon), Out(y),
              nullptr);
  return y;
}

SumAndNorm AddRmsNorm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                      double epsilon) {
  if (!UsesFusedOperators(x)) {
    at::Tensor sum = x + y;
    return {sum, ComposedRmsNorm(sum, weight, epsilon)};
  }
  const at::Tensor a = x.contiguous(), b = y.contiguous();
  if (NeedsGradient(a, weight) || NeedsGradient(b, weight)) {
    variable_list both = AddRmsNormFunction::apply(a, b, weight, epsilon);
    return {both[0], both[1]};
  }
  SumAndNorm result{at::empty_like(a), at::empty_like(a)};
  AddRmsNormRows(Data(a), Data(b), a.size(0), a.size(1), Data(weight), static_cast<float>(epsilon),
                 Out(result.sum), Out(result.normalised), nullptr);
  return result;
}

Heads SplitHeads(const at::Tensor& qkv, const HeadShapes& shapes, const at::Tensor& query_norm,
                 const at::Tensor& key_norm, double epsilon, const at::Tensor& positions,
                 const Rotary& rotary) {
  if (!UsesFusedOperators(qkv)) {
    const at::Tensor angles = rotary.Rows(positions, qkv.scalar_type());
    auto columns = [&](int64_t first, int64_t heads) {
      return qkv.narrow(1, first * shapes.head_dim, heads * shapes.head_dim)
          .view({qkv.size(0), heads, shapes.head_dim});
    };
    return {ComposedNormRotate(columns(0, shapes.queries), query_norm, epsilon, angles),
            ComposedNormRotate(columns(shapes.queries, shapes.keys), key_norm, epsilon, angles),
            columns(shapes.queries + shapes.keys, shapes.keys)};
  }
  const at::Tensor in = qkv.contiguous();
  const RotaryTable& table = rotary.table();
  if (!NeedsGradient(qkv, query_norm))
    return SplitRows(in, shapes, query_norm, key_norm, epsilon, positions, table).heads;
  auto optional = [](const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  variable_list heads = SplitHeadsFunction::apply(in, optional(query_norm), optional(key_norm),
                                                  shapes, epsilon, positions, &table);
  return {heads[0], heads[1], heads[2]};
}

at::Tensor SwiGlu(const at::Tensor& gate_up) {
  const int64_t dim = gate_up.size(1) / 2;
  if (!UsesFusedOperators(gate_up))
    return at::silu(gate_up.narrow(1, 0, dim)) * gate_up.narrow(1, dim, dim);
  if (NeedsGradient(gate_up, at::Tensor())) return SwiGluFunction::apply(gate_up.contiguous());
  at::Tensor y = at::empty({gate_up.size(0), dim}, gate_up.options());
  SwiGluRows(Data(gate_up), gate_up.size(0), dim, Out(y));
  return y;
}

}  // namespace e3
