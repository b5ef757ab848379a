// What an instruction set has to bring: inner kernels over plain pointers, without views, pools or
// checks. The operations around them (cpu/*.cc) are written once and know no instruction set; each
// folder avx2/, avx512/ fills a table. Nothing here is inline: those folders are compiled with
// their own flags, and a shared inline function could reach the linker in a version that other
// machines cannot run. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace moebius::kernels {

// sums[rows][panels * 16] += a w^T over k inputs. Order of every sum, whatever the shape: k in
// blocks of 32; within one, even inputs and odd inputs in two chains of fused multiply-adds from
// zero; even + odd is added to the running sum. (AMX's TDPBF16PS does exactly this.) With scales,
// the running sum covers 128 inputs, then is multiplied and added to `sums` in one rounding.
struct MultiplyArgs {
  enum class Kind : uint8_t { kF32, kBF16, kFp8 };
  Kind kind = Kind::kF32;
  const float* a = nullptr;
  int64_t a_stride = 0;  // floats
  int64_t rows = 0;
  const std::byte* w = nullptr;  // the first panel, at the first input
  int64_t panel_bytes = 0;       // from one panel to the next
  int64_t panels = 0;
  int64_t k = 0;                  // multiple of 32; starts at a multiple of 128
  const float* scales = nullptr;  // kFp8: of the first panel's first block of 128
  int64_t scale_stride = 0;       // from one panel's to the next's
  float* sums = nullptr;
  int64_t sums_stride = 0;
  std::byte* scratch = nullptr;  // kMultiplyScratch bytes, 64-byte aligned
};
constexpr int64_t kMultiplyScratch = 2 * 128 * 16 * 4;  // 2 panels x 128 inputs in float32

// A run of elements in memory, float32 or bfloat16.
struct Run {
  void* data = nullptr;
  DType dtype = DType::kF32;
};

struct WeightedSumArgs {
  Run rows;  // row p at element p * stride
  int64_t stride = 0;
  const int32_t* places = nullptr;  // [count]; negative: none
  const float* weights = nullptr;   // [count]
  int64_t count = 0;
  Run shared;
};

// One tile of attention: `rows` pairs of query and head against up to kAttentionBlock cached
// positions that begin at a multiple of kAttentionBlock, so that a row's sums do not depend on its
// neighbours.
constexpr int64_t kAttentionBlock = 64;
constexpr int64_t kAttentionRows = 16;
struct AttentionTile {
  int64_t rows = 0;
  const float* q = nullptr;  // [rows][q_stride], scaled; padded with zeros to a multiple of 16
  int64_t q_stride = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  DType cache_dtype = DType::kF32;
  const void* const* k_rows = nullptr;  // of positions begin, ...
  const void* const* v_rows = nullptr;
  const void* const* next_k_rows = nullptr;  // of the next block, for prefetching
  int64_t next_count = 0;
  int64_t begin = 0;               // position of k_rows[0]
  int64_t count = 0;               // positions, at most kAttentionBlock
  const int64_t* first = nullptr;  // [rows] positions that a row sees: [first, last]
  const int64_t* last = nullptr;
  float* scores = nullptr;  // [kAttentionRows][kAttentionBlock] scratch
  float* top = nullptr;     // [rows] running maximum, -inf at the start
  float* sum = nullptr;     // [rows] running sum of exponentials, 0 at the start
  float* out = nullptr;     // [rows][out_stride] unnormalised, 0 at the start
  int64_t out_stride = 0;   // multiple of 16, >= v_head_dim
};

struct CpuKernels {
  void (*multiply)(const MultiplyArgs& args);

  // out[0, n) = in * scale, rounded to in's dtype when scale != 1; then zeros up to padded_n, a
  // multiple of 16.
  void (*to_f32)(Run in, int64_t n, float scale, float* out, int64_t padded_n);
  // out = sums (+ bias) (+ out).
  void (*finish)(const float* sums, int64_t n, const float* bias, bool accumulate, Run out);
  // out = silu(gate) * up; sums hold 16 gates, 16 ups, 16 gates, ...
  void (*finish_gated)(const float* sums, int64_t n, Run out);

  // Operations on a row, as RmsNormArgs, RopeArgs and WeightedReduceArgs define them. Null: absent.
  void (*rms_norm)(Run x, float* residual, const float* weight, float eps, int64_t cols,
                   int64_t group, Run out);
  void (*add)(float* x, Run y, int64_t n);
  void (*convert)(Run in, int64_t n, Run out);
  void (*weighted_sum)(const WeightedSumArgs& args, int64_t n, Run out);
  // table: half cosines, then half sines.
  void (*rope_halves)(Run x, const float* table, int64_t half);
  void (*rope_pairs)(Run x, const float* table, int64_t half, bool deinterleave);

  float (*max)(const float* x, int64_t n);  // NaN counts as -inf
  // out = exp((x - shift) * factor); returns the sum.
  float (*exp_sum)(const float* x, int64_t n, float shift, float factor, float* out);
  void (*sigmoid)(const float* x, int64_t n, float* out);

  // out = in * scale, of e4m3 codes.
  void (*widen_e4m3)(const std::byte* in, int64_t n, float scale, float* out);
  void (*attention_tile)(const AttentionTile& tile);
  // out = in / sum.
  void (*attention_finish)(const float* in, float sum, int64_t n, Run out);
};

}  // namespace moebius::kernels
