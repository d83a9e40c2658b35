#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/attention_kernel.h"
#include "rollout_server/paged_attention.h"

namespace e3 {
namespace {

// Queries that attend together: B sequences with r rows each, over C slots of each.
struct Group {
  at::Tensor rows;   // int64 [B * r] of the batch
  at::Tensor slots;  // int64 [B * C]; 0 where a sequence is shorter
  at::Tensor mask;   // bool [B, 1, r, C]: what a row may not see
  int64_t sequences, rows_each, context;
};

Group MakeGroup(const Batch& batch, const std::vector<int64_t>& first_rows, int64_t rows_each,
                c10::Device device) {
  Group g;
  g.sequences = static_cast<int64_t>(first_rows.size());
  g.rows_each = rows_each;
  g.context = 0;
  auto position = [&](int64_t row) { return batch.positions[static_cast<size_t>(row)]; };
  for (int64_t first : first_rows)
    g.context = std::max(g.context, position(first + rows_each - 1) + 1);
  g.rows = at::empty({g.sequences * rows_each}, at::kLong);
  g.slots = at::zeros({g.sequences * g.context}, at::kLong);
  g.mask = at::empty({g.sequences, 1, rows_each, g.context}, at::kBool);
  int64_t* rows = g.rows.mutable_data_ptr<int64_t>();
  int64_t* slots = g.slots.mutable_data_ptr<int64_t>();
  bool* mask = g.mask.mutable_data_ptr<bool>();
  for (int64_t first : first_rows) {
    const int32_t* table = batch.block_tables[static_cast<size_t>(first)];
    const int64_t context = position(first + rows_each - 1) + 1;
    for (int64_t c = 0; c < context; ++c)
      slots[c] = table[c / kKvBlockRows] * kKvBlockRows + c % kKvBlockRows;
    slots += g.context;
    for (int64_t r = first; r < first + rows_each; ++r) {
      *rows++ = r;
      for (int64_t c = 0; c < g.context; ++c) *mask++ = c > position(r);
    }
  }
  g.rows = g.rows.to(device);
  g.slots = g.slots.to(device);
  g.mask = g.mask.to(device);
  return g;
}

class ComposedAttention final : public Attention {
 public:
  ComposedAttention(const Batch& batch, at::Tensor keys, at::Tensor values)
      : keys_(std::move(keys)), values_(std::move(values)) {
    const int64_t n = static_cast<int64_t>(batch.token_ids.size());
    const c10::Device device = keys_.device();
    slots_ = at::empty({n}, at::kLong);
    std::copy(batch.slots.begin(), batch.slots.end(), slots_.mutable_data_ptr<int64_t>());
    slots_ = slots_.to(device);
    // Sequences with one row attend together; one with more rows by itself.
    std::vector<int64_t> singles;
    for (int64_t begin = 0; begin < n;) {
      int64_t end = begin + 1;
      while (end < n && batch.block_tables[static_cast<size_t>(end)] ==
                            batch.block_tables[static_cast<size_t>(begin)]) {
        ++end;
      }
      if (end - begin == 1) {
        singles.push_back(begin);
      } else {
        groups_.push_back(MakeGroup(batch, {begin}, end - begin, device));
      }
      begin = end;
    }
    if (!singles.empty()) groups_.push_back(MakeGroup(batch, singles, 1, device));
  }

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    at::Tensor keys = keys_.select(0, layer), values = values_.select(0, layer);  // [slots, kv, d]
    keys.index_copy_(0, slots_, key);
    values.index_copy_(0, slots_, value);
    const int64_t heads = query.size(1), dim = query.size(2), kv = key.size(1);
    at::Tensor out = at::empty_like(query);
    for (const Group& g : groups_) {
      // [B, kv, group * r, d] against [B, kv, C, d].
      at::Tensor q = query.index_select(0, g.rows)
                         .view({g.sequences, g.rows_each, kv, heads / kv, dim})
                         .permute({0, 2, 3, 1, 4})
                         .reshape({g.sequences, kv, heads / kv * g.rows_each, dim});
      auto gather = [&](const at::Tensor& cache) {
        return cache.index_select(0, g.slots)
            .view({g.sequences, g.context, kv, dim})
            .permute({0, 2, 1, 3});
      };
      at::Tensor scores =
          at::matmul(q, gather(keys).transpose(2, 3)) * (1.0 / std::sqrt(static_cast<double>(dim)));
      scores = scores.view({g.sequences, kv * (heads / kv), g.rows_each, g.context})
                   .masked_fill(g.mask, -std::numeric_limits<float>::infinity());
      at::Tensor p =
          at::softmax(scores, -1).view({g.sequences, kv, heads / kv * g.rows_each, g.context});
      at::Tensor attended = at::matmul(p, gather(values))
                                .view({g.sequences, kv, heads / kv, g.rows_each, dim})
                                .permute({0, 3, 1, 2, 4})
                                .reshape({g.sequences * g.rows_each, heads, dim});
      out.index_copy_(0, g.rows, attended);
    }
    return out;
  }

 private:
  at::Tensor keys_, values_;
  at::Tensor slots_;
  std::vector<Group> groups_;
};

// [layers, blocks * 16, num_kv_heads, head_dim].
class ComposedKvCache final : public KvCache {
 public:
  ComposedKvCache(const ModelConfig& c, int32_t num_blocks, c10::Device device) {
    // Slot 0 stands in where a sequence is shorter: it must be finite.
    keys_ = at::zeros({c.num_layers, num_blocks * kKvBlockRows, c.num_kv_heads, c.head_dim},
                      at::TensorOptions(device).dtype(at::kFloat));
    values_ = at::zeros_like(keys_);
  }
  void Copy(const std::vector<BlockCopy>& copies) override {
    for (const BlockCopy& copy : copies) {
      for (at::Tensor* tensor : {&keys_, &values_}) {
        tensor->narrow(1, copy.to * kKvBlockRows, kKvBlockRows)
            .copy_(tensor->narrow(1, copy.from * kKvBlockRows, kKvBlockRows));
      }
    }
  }
  std::unique_ptr<Attention> ForBatch(const Batch& batch) override {
    return std::make_unique<ComposedAttention>(batch, keys_, values_);
  }

 private:
  at::Tensor keys_, values_;
};

}  // namespace

std::unique_ptr<KvCache> MakeComposedKvCache(const ModelConfig& config, int32_t num_blocks,
                                             c10::Device device) {
  return std::make_unique<ComposedKvCache>(config, num_blocks, device);
}

}  // namespace e3
