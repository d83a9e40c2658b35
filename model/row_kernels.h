// What a transformer layer does between its products, one token at a time, fused; fp32 on the CPU,
// parallel over tokens with OpenMP. A row's bits depend neither on the other rows nor on the number
// of threads. Dimensions are multiples of 8. Knows nothing of LibTorch.
#ifndef E3_MODEL_ROW_KERNELS_H_
#define E3_MODEL_ROW_KERNELS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace e3 {

// y = x / rms(x) * weight, with rms(x) = sqrt(mean(x²) + epsilon). x and y [rows, dim]; scale
// [rows] takes 1 / rms(x) for the backward pass, or is null.
void RmsNormRows(const float* x, int64_t rows, int64_t dim, const float* weight, float epsilon,
                 float* y, float* scale);
// The same of x + y, which `sum` takes.
void AddRmsNormRows(const float* x, const float* y, int64_t rows, int64_t dim, const float* weight,
                    float epsilon, float* sum, float* normalised, float* scale);
// Of both, whose x is the sum: d_x is overwritten, with what is passed on of y and of
// `d_besides`, the gradient that x has elsewhere (null: none); d_weight [dim] is added to.
void RmsNormRowsBackward(const float* x, int64_t rows, int64_t dim, const float* weight,
                         const float* scale, const float* d_y, const float* d_besides, float* d_x,
                         float* d_weight);

// Cosines and sines of the rotary embedding by position, computed when a position is first seen.
// Thread-safe.
class RotaryTable {
 public:
  // `inverse_frequencies`: head_dim / 2; positions below `max_positions`.
  RotaryTable(std::vector<float> inverse_frequencies, int64_t max_positions);
  // head_dim / 2 cosines, then as many sines.
  const float* Row(int64_t position) const;

 private:
  static constexpr int64_t kSegment = 1024;  // positions computed together
  struct Segment {
    std::once_flag once;
    std::vector<float> values;
  };
  std::vector<float> inverse_frequencies_;
  std::vector<std::unique_ptr<Segment>> segments_;
};

// The heads of a query or key: where they lie, and how they are normalised before the rotation.
struct HeadRows {
  int64_t rows;
  int64_t heads;
  int64_t head_dim;
  int64_t stride;       // floats between rows of x; heads of a row follow each other
  const float* weight;  // [head_dim] of the heads' RMS norm, or null: they have none
  float epsilon;
};

// y [rows, heads, head_dim] = the heads of x, normalised and rotated by their position: pairs
// (i, i + head_dim / 2). scale [rows, heads] takes 1 / rms, or is null.
void NormRotateRows(const HeadRows& shape, const float* x, const int64_t* positions,
                    const RotaryTable& table, float* y, float* scale);
// d_x (with the stride of x) is overwritten; d_weight [head_dim] is added to when there is a
// weight.
void NormRotateRowsBackward(const HeadRows& shape, const float* x, const int64_t* positions,
                            const RotaryTable& table, const float* scale, const float* d_y,
                            float* d_x, float* d_weight);

// y [rows, dim] = silu(gate) * up, where gate_up [rows, 2 dim] has the gates of a row first.
void SwiGluRows(const float* gate_up, int64_t rows, int64_t dim, float* y);
void SwiGluRowsBackward(const float* gate_up, int64_t rows, int64_t dim, const float* d_y,
                        float* d_gate_up);

}  // namespace e3

#endif  // E3_MODEL_ROW_KERNELS_H_
