// Products with a weight matrix that was packed once: y = x W^T + b, fp32 on the CPU.
//
// Every element of y is one chain of fused multiply-adds over k = 0, 1, 2, … So a row's bits depend
// neither on how many rows there are, nor on the number of threads, nor on the width of the
// processor's vectors (AVX2 and AVX-512 give the same). That is what makes a token's
// log-probability the same alone, in a batch, when prefilled, when decoded and in training; a
// library's products promise none of it. Packing also makes products of few rows, which decoding
// is made of, run at the speed of memory.
#ifndef E3_MODEL_PACKED_MATRIX_H_
#define E3_MODEL_PACKED_MATRIX_H_

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace e3 {

// Multiply is const and thread-safe; packing is not.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(int64_t outputs, int64_t inputs);

  // Takes the values of `weight`, [outputs, inputs] row-major.
  void Pack(const float* weight);

  // y [rows, outputs] = x [rows, inputs] W^T + bias; bias [outputs] or null. All row-major and
  // contiguous; y may not overlap x. Parallel with OpenMP.
  void Multiply(const float* x, int64_t rows, const float* bias, float* y) const;

  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  bool empty() const { return panels_ == nullptr; }

 private:
  struct Free {
    void operator()(float* p) const { free(p); }
  };
  int64_t outputs_ = 0, inputs_ = 0;
  // [ceil(outputs / 32)][inputs][32]: 32 outputs beside each other, padded with zeros.
  std::unique_ptr<float[], Free> panels_;
};

// The gradients of y = x W^T, row-major and contiguous. Both pack what they need as they go, a few
// MiB at a time, so that no second copy of the weights stays. Their bits do not depend on the
// number of threads; the weight's are summed over the rows in chunks. Parallel with OpenMP;
// thread-safe (each calling thread keeps its own buffers).

// d_x [rows, inputs] = d_y [rows, outputs] W [outputs, inputs].
void ProductInputGradient(const float* d_y, int64_t rows, const float* weight, int64_t outputs,
                          int64_t inputs, float* d_x);
// d_weight [outputs, inputs] += d_y [rows, outputs]^T x [rows, inputs].
void AddProductWeightGradient(const float* d_y, const float* x, int64_t rows, int64_t outputs,
                              int64_t inputs, float* d_weight);

}  // namespace e3

#endif  // E3_MODEL_PACKED_MATRIX_H_
