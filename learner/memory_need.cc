#include "learner/memory_need.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/flops.h"
#include "model/log_softmax.h"
#include "model/parameters.h"

namespace e3 {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

// A number in a file of the kernel; `absent` where there is none ("max").
int64_t NumberIn(const std::string& path, int64_t absent) {
  std::ifstream file(path);
  std::string word;
  int64_t value;
  return file >> word && absl::SimpleAtoi(word, &value) ? value : absent;
}

// A field of a file with lines of names and numbers.
int64_t FieldIn(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string field; file >> field;) {
    int64_t value;
    if (field == name && file >> value) return value;
  }
  return 0;
}

constexpr int64_t kKiB = 1024;

}  // namespace

std::string MemoryNeed::Describe() const {
  auto gib = [](int64_t bytes) { return static_cast<double>(bytes) / kGiB; };
  return absl::StrFormat(
      "%.2f GiB of %s: weights %.2f, gradients %.2f, optimizer %.2f, reference %.2f, copies %.2f, "
      "activations %.2f, logits and buffers %.2f",
      gib(total()), memory == MemoryOf::kGpu ? "GPU memory" : "memory", gib(weights),
      gib(gradients), gib(optimizer), gib(reference), gib(copies), gib(activations), gib(logits));
}

namespace {

constexpr int64_t kFloat = sizeof(float);

// What lies on the host wherever is computed: the reference, and copies, for a checkpoint also of
// an optimizer that is on a GPU.
MemoryNeed OfHost(int64_t parameters, const v1::Training& training, bool optimizer_on_gpu) {
  MemoryNeed need;
  need.reference = kFloat * parameters;
  need.copies = kFloat * parameters *
                ((training.background_checkpoints() ? 3
                  : optimizer_on_gpu                ? 2
                                                    : 0) +
                 (training.max_staleness() > 0 ? 3 : 0));  // two before are in use yet
  return need;
}

// Of all layers, in floats a token: `input` is kept of each, `kept` of each whose backward pass is
// to come without computing it again.
int64_t LayersFloats(const ModelConfig& c, const v1::Training& training, int64_t kept) {
  const int64_t input = c.hidden_size;
  return training.recompute_activations() ? c.num_layers * input + kept
                                          : c.num_layers * (input + kept);
}

}  // namespace

MemoryNeed ComputeMemoryNeed(MemoryOf memory, const ModelConfig& c, const v1::Training& training,
                             int64_t longest, int shards) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim, qkv = q + 2 * kv,
                hidden = c.hidden_size, inner = c.intermediate_size;
  const int64_t parameters = ParameterLayout(c).size();
  const int64_t factors = c.num_layers * LayerProductWeights(c) + c.vocab_size * hidden;
  const int64_t tokens = std::max(longest, training.micro_batch_tokens());
  const int64_t chunk = std::min(tokens, LogitChunkRows(c.vocab_size));
  const bool bf16 = training.compute_dtype() == v1::COMPUTE_DTYPE_BF16;
  const int64_t operand = bf16 ? 2 : kFloat;

  const bool optimizer_on_gpu = memory != MemoryOf::kHost && !training.offload_optimizer();
  MemoryNeed need;
  if (memory != MemoryOf::kGpu) need = OfHost(parameters, training, optimizer_on_gpu);
  if (optimizer_on_gpu == (memory == MemoryOf::kGpu))
    need.optimizer = kFloat * 2 * parameters / shards;
  need.memory = memory;
  need.weights = kFloat * parameters;
  need.gradients = kFloat * parameters;
  if (memory == MemoryOf::kHostOfGpu) {
    // Memory that a GPU can reach comes in powers of two.
    const auto pinned = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(need.weights)));
    need.weights = pinned;
    need.gradients = optimizer_on_gpu ? 0 : pinned;
    if (training.kl_coef() != 0) need.reference += pinned;
    return need;
  }

  // The copies that products are made with: packed on the CPU, rounded in bf16.
  const int64_t copy = bf16                        ? 2 * factors
                       : memory == MemoryOf::kHost ? kFloat * factors
                                                   : int64_t{0};
  need.weights += copy;
  if (training.kl_coef() != 0) need.reference += kFloat * parameters + copy;
  if (memory == MemoryOf::kHost) {
    // Floats a token: what a layer keeps for its gradients, and what its backward pass has besides.
    const int64_t kept = 3 * hidden + qkv + 2 * q + 2 * kv + 3 * inner + 2 * c.num_heads + 2;
    const int64_t passing = 2 * hidden + std::max(3 * qkv + q, 3 * inner);
    const int64_t head = 4 * hidden + 8;
    const int64_t widest = std::max({c.vocab_size, 2 * inner, qkv});
    need.activations = kFloat * tokens * (LayersFloats(c, training, kept) + passing + head);
    need.logits = kFloat * (chunk * c.vocab_size + (int64_t{4} << 20) +
                            std::min<int64_t>(tokens, 1024) * (widest + inner));
    // Operands, results and a weight's gradient before they are fp32.
    if (bf16) need.logits += 4 * tokens * 2 * inner + 6 * 2 * inner * hidden;
    return need;
  }
  // LibTorch's operators keep more: the normalised rows before their weights, the gate's sigmoid
  // unit, keys and values of every query head.
  const int64_t norms = 3 * hidden + (c.qk_norm ? q + kv : 0);
  const int64_t products = 2 * hidden + 5 * q + inner;  // operands
  const int64_t kept = norms + qkv + 3 * inner + products * operand / kFloat;
  const int64_t passing = 2 * hidden + std::max(4 * qkv + 2 * q, 5 * inner);
  need.activations = kFloat * tokens * (LayersFloats(c, training, kept) + passing + 6 * hidden);
  // Logits, their logarithms, probabilities, products of both, and gradients; and the gradient of
  // the largest weight before it is added.
  need.logits = kFloat * (6 * chunk * c.vocab_size + c.vocab_size * hidden);
  return need;
}

int64_t LongestSequence(const ModelConfig& model, const v1::JobSpec& job, int64_t budget) {
  return std::min(job.prompting().max_prompt_tokens() + budget, model.context_length);
}

int64_t AvailableMemory(int processes) {
  const int64_t available = kKiB * FieldIn("/proc/meminfo", "MemAvailable:");
  // Pages of files are given back when they are wanted.
  const std::string group = "/sys/fs/cgroup/";
  const int64_t used = NumberIn(group + "memory.current", 0) -
                       FieldIn(group + "memory.stat", "active_file") -
                       FieldIn(group + "memory.stat", "inactive_file");
  const int64_t limit = NumberIn(group + "memory.max", available + used);
  return std::min(available, limit - used) / std::max(1, processes) +
         kKiB * FieldIn("/proc/self/status", "VmRSS:");
}

absl::Status CheckMemory(MemoryOf memory, const ModelConfig& model, const v1::Training& training,
                         int64_t longest, int64_t available, int shards) {
  const MemoryNeed need = ComputeMemoryNeed(memory, model, training, longest, shards);
  if (need.total() <= available) return absl::OkStatus();
  std::string advice;
  auto would = [&](const v1::Training& changed, const std::string& how) {
    const int64_t total = ComputeMemoryNeed(memory, model, changed, longest, shards).total();
    if (total >= need.total()) return;
    absl::StrAppend(&advice, advice.empty() ? "" : "; ", how, " needs ",
                    absl::StrFormat("%.2f GiB", static_cast<double>(total) / kGiB));
  };
  v1::Training changed = training;
  changed.set_recompute_activations(true);
  would(changed, "training.recompute_activations: true");
  changed = training;
  changed.set_micro_batch_tokens(std::min(longest, training.micro_batch_tokens()));
  would(changed, absl::StrCat("training.micro_batch_tokens: ", changed.micro_batch_tokens()));
  changed.set_recompute_activations(true);
  would(changed, "both of these");
  changed.set_background_checkpoints(false);
  would(changed, "and training.background_checkpoints: false");
  changed.set_offload_optimizer(memory == MemoryOf::kGpu);
  if (changed.offload_optimizer() != training.offload_optimizer())
    would(changed, absl::StrCat("and training.offload_optimizer: ",
                                changed.offload_optimizer() ? "true" : "false"));
  changed.set_kl_coef(0);
  if (training.kl_coef() != 0) would(changed, "and training.kl_coef: 0");
  return absl::OutOfRangeError(absl::StrFormat(
      "an update on sequences of up to %d tokens, in micro-batches of %d, needs %s; %.2f GiB are "
      "available. %s",
      longest, training.micro_batch_tokens(), need.Describe(),
      static_cast<double>(available) / kGiB,
      advice.empty() ? "A smaller budget or model is what is left." : advice));
}

}  // namespace e3
