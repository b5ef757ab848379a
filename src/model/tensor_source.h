// Where weights come from: a checkpoint's mapped files, or random numbers of the right shapes.
// Finding a tensor checks its name, shape and dtype; nothing is read until the bytes are used. Safe
// from any thread once opened.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/weight.h"
#include "model/checkpoint.h"
#include "model/model_config.h"

namespace moebius::model {

// A tensor that is there and has the shape asked for.
struct SourceTensor {
  // The whole as a matrix: all dimensions but the last are rows. Random weights have no data to
  // read
  // (`file` is null), only shape and dtype.
  kernels::WeightSource matrix;
  const SafetensorsFile* file = nullptr;  // null for random weights
  size_t num_bytes = 0;                   // in the file, scales included
  uint64_t seed = 0;                      // of random weights
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // `quantizable`: fp8 with block scales is allowed (and random weights of an fp8 model take it).
  // Errors name file and tensor, found and expected: kNotFound, kCorrupt (wrong shape),
  // kUnsupported (wrong dtype).
  virtual Result<SourceTensor> Find(const std::string& name, const std::vector<int64_t>& shape,
                                    bool quantizable) const = 0;
  // Whether an optional tensor is there (random weights: never).
  virtual bool Has(const std::string& name) const = 0;
};

// Both keep a reference to nothing but the checkpoint, which must outlive its source.
std::unique_ptr<TensorSource> CheckpointSource(const Checkpoint& checkpoint, bool fp8_blocks);
std::unique_ptr<TensorSource> RandomSource(const ModelConfig& config);

// Fills `out` (row-major [rows, cols], dtype float32, bfloat16, float16 or fp8) with uniform
// numbers of the given standard deviation; the numbers of a row depend on seed and row alone. For
// fp8, values are out * RandomF8Scale(deviation).
void FillRandom(uint64_t seed, int64_t first_row, int64_t rows, int64_t cols, DType dtype,
                float deviation, void* out);
float RandomF8Scale(float deviation);

}  // namespace moebius::model
