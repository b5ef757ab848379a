#include "model/tensor_source.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace moebius::model {
namespace {

constexpr const char* kScaleSuffix = "_scale_inv";

kernels::WeightSource AsMatrix(const void* data, DType dtype, const std::vector<int64_t>& shape) {
  kernels::WeightSource source;
  source.data = data;
  source.dtype = dtype;
  source.k = shape.back();
  source.n = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) source.n *= shape[i];
  source.n_stride = source.k;
  source.k_stride = 1;
  return source;
}

int64_t NumBlocks(int64_t size) { return (size + kernels::kScaleBlock - 1) / kernels::kScaleBlock; }

class FromCheckpoint : public TensorSource {
 public:
  FromCheckpoint(const Checkpoint& checkpoint, bool fp8_blocks)
      : checkpoint_(checkpoint), fp8_blocks_(fp8_blocks) {}

  Result<SourceTensor> Find(const std::string& name, const std::vector<int64_t>& shape,
                            bool quantizable) const override {
    MOEBIUS_ASSIGN(const Checkpoint::Tensor tensor, FindShaped(name, shape));
    const TensorInfo& info = *tensor.info;
    SourceTensor found;
    found.file = tensor.file;
    found.num_bytes = info.num_bytes;
    const bool is_float =
        info.dtype == DType::kF32 || info.dtype == DType::kBF16 || info.dtype == DType::kF16;
    if (!is_float && info.dtype != DType::kF8E4M3) {
      return MakeError(ErrorCode::kUnsupported,
                       "{}: tensor '{}' is {}, expected BF16, F16, F32 or F8_E4M3",
                       tensor.file->path(), name, info.dtype_name);
    }
    found.matrix = AsMatrix(tensor.data(), *info.dtype, shape);
    if (is_float) return found;
    if (!fp8_blocks_ || !quantizable || shape.size() != 2) {
      return MakeError(
          ErrorCode::kUnsupported, "{}: tensor '{}' is {}, expected BF16, F16 or F32{}",
          tensor.file->path(), name, info.dtype_name,
          fp8_blocks_ ? " for this tensor" : " (config.json has no fp8 quantization_config)");
    }
    MOEBIUS_TRY(AddScales(name, shape, found));
    return found;
  }

  bool Has(const std::string& name) const override { return checkpoint_.Find(name) != nullptr; }

 private:
  Result<Checkpoint::Tensor> FindShaped(const std::string& name,
                                        const std::vector<int64_t>& shape) const {
    const Checkpoint::Tensor* tensor = checkpoint_.Find(name);
    if (tensor == nullptr) {
      return MakeError(ErrorCode::kNotFound, "{}: tensor '{}' is missing, expected shape {}",
                       checkpoint_.folder(), name, ShapeText(shape));
    }
    if (tensor->info->shape != shape) {
      return MakeError(ErrorCode::kCorrupt, "{}: tensor '{}' has shape {}, expected {}",
                       tensor->file->path(), name, ShapeText(tensor->info->shape),
                       ShapeText(shape));
    }
    return *tensor;
  }

  Status AddScales(const std::string& name, const std::vector<int64_t>& shape,
                   SourceTensor& found) const {
    const std::string scale_name = name + kScaleSuffix;
    const std::vector<int64_t> scale_shape = {NumBlocks(shape[0]), NumBlocks(shape[1])};
    MOEBIUS_ASSIGN(const Checkpoint::Tensor scales, FindShaped(scale_name, scale_shape));
    const std::optional<DType> dtype = scales.info->dtype;
    if (dtype != DType::kF32 && dtype != DType::kBF16) {
      return MakeError(ErrorCode::kUnsupported, "{}: tensor '{}' is {}, expected F32 or BF16",
                       scales.file->path(), scale_name, scales.info->dtype_name);
    }
    found.matrix.scales =
        Mat(const_cast<std::byte*>(scales.data()), *dtype, scale_shape[0], scale_shape[1]);
    found.num_bytes += scales.info->num_bytes;
    return {};
  }

  const Checkpoint& checkpoint_;
  bool fp8_blocks_;
};

// Never 0 for the states below: xorshift would stay there.
uint64_t Mix(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Random weights have no bytes yet, but parts are selected by pointer arithmetic, which null
// forbids.
void* Nowhere() { return reinterpret_cast<void*>(uintptr_t{1} << 20); }

class FromRandom : public TensorSource {
 public:
  FromRandom(DType dtype, bool fp8_blocks) : dtype_(dtype), fp8_blocks_(fp8_blocks) {}

  Result<SourceTensor> Find(const std::string& name, const std::vector<int64_t>& shape,
                            bool quantizable) const override {
    const bool fp8 = fp8_blocks_ && quantizable && shape.size() == 2;
    SourceTensor found;
    found.matrix = AsMatrix(Nowhere(), fp8 ? DType::kF8E4M3 : dtype_, shape);
    uint64_t seed = 0xcbf29ce484222325ull;
    for (const char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
    found.seed = Mix(seed);
    found.num_bytes =
        static_cast<size_t>(found.matrix.n * found.matrix.k) * SizeOf(found.matrix.dtype);
    if (fp8) {
      // Marks the weight as block-scaled; FillRandom's caller brings the scales.
      found.matrix.scales = Mat(Nowhere(), DType::kF32, NumBlocks(shape[0]), NumBlocks(shape[1]));
      found.num_bytes +=
          static_cast<size_t>(NumBlocks(shape[0]) * NumBlocks(shape[1])) * sizeof(float);
    }
    return found;
  }

  bool Has(const std::string& /*name*/) const override { return false; }

 private:
  DType dtype_;
  bool fp8_blocks_;
};

constexpr float kF8Range = 240.0f;  // half of e4m3's: no value saturates

// 256 evenly spread fp8 values in (-kF8Range, kF8Range).
const std::array<uint8_t, 256>& F8Values() {
  static const std::array<uint8_t, 256> values = [] {
    std::array<uint8_t, 256> table;
    for (int i = 0; i < 256; ++i) {
      table[static_cast<size_t>(i)] =
          FloatToF8E4M3((static_cast<float>(i) - 127.5f) / 127.5f * kF8Range);
    }
    return table;
  }();
  return values;
}

// Eight xorshift32 generators side by side, sixteen values of 16 bits a draw: simple enough for the
// compiler to vectorise, because random weights come by the billion.
class Draws {
 public:
  static constexpr int kCount = 16;
  explicit Draws(uint64_t seed) {
    for (uint64_t lane = 0; lane < kLanes; ++lane) {
      states_[lane] = static_cast<uint32_t>(Mix(seed + lane)) | 1;  // never 0
    }
  }
  void Next(uint16_t* out) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t x = states_[lane];
      x ^= x << 13;
      x ^= x >> 17;
      x ^= x << 5;
      states_[lane] = x;
      out[lane] = static_cast<uint16_t>(x);
      out[kLanes + lane] = static_cast<uint16_t>(x >> 16);
    }
  }

 private:
  static constexpr int kLanes = kCount / 2;
  uint32_t states_[kLanes];
};

// store(index of the first, drawn, count) for up to 16 elements of a row at a time.
template <typename Store>
void FillRows(uint64_t seed, int64_t first_row, int64_t rows, int64_t cols, const Store& store) {
  uint16_t drawn[Draws::kCount];
  for (int64_t row = 0; row < rows; ++row) {
    Draws draws(Mix(seed + 0x9e3779b97f4a7c15ull * static_cast<uint64_t>(first_row + row + 1)));
    int64_t col = 0;
    for (; col + Draws::kCount <= cols; col += Draws::kCount) {
      draws.Next(drawn);
      store(row * cols + col, drawn, Draws::kCount);
    }
    if (col < cols) {
      draws.Next(drawn);
      store(row * cols + col, drawn, static_cast<int>(cols - col));
    }
  }
}

constexpr float kSqrt3 = 1.7320508f;  // uniform in (-a, a) has deviation a / sqrt(3)

}  // namespace

std::unique_ptr<TensorSource> CheckpointSource(const Checkpoint& checkpoint, bool fp8_blocks) {
  return std::make_unique<FromCheckpoint>(checkpoint, fp8_blocks);
}

std::unique_ptr<TensorSource> RandomSource(const ModelConfig& config) {
  return std::make_unique<FromRandom>(config.dtype, config.fp8_blocks);
}

float RandomF8Scale(float deviation) { return deviation * kSqrt3 / kF8Range; }

void FillRandom(uint64_t seed, int64_t first_row, int64_t rows, int64_t cols, DType dtype,
                float deviation, void* out) {
  const float step = deviation * kSqrt3 / 32768.0f;
  const auto value = [step](uint16_t drawn) {
    return (static_cast<float>(static_cast<int16_t>(drawn)) + 0.5f) * step;
  };
  switch (dtype) {
    case DType::kBF16:
      return FillRows(seed, first_row, rows, cols, [&](int64_t i, const uint16_t* drawn, int n) {
        uint16_t bits[Draws::kCount];
        for (int j = 0; j < Draws::kCount; ++j) {  // finite: rounding needs no care for NaN
          bits[j] =
              static_cast<uint16_t>((std::bit_cast<uint32_t>(value(drawn[j])) + 0x8000u) >> 16);
        }
        std::memcpy(static_cast<BFloat16*>(out) + i, bits, static_cast<size_t>(n) * 2);
      });
    case DType::kF8E4M3: {
      const std::array<uint8_t, 256>& f8 = F8Values();
      return FillRows(seed, first_row, rows, cols, [&](int64_t i, const uint16_t* drawn, int n) {
        for (int j = 0; j < n; ++j) static_cast<uint8_t*>(out)[i + j] = f8[drawn[j] >> 8];
      });
    }
    default:
      return FillRows(seed, first_row, rows, cols, [&](int64_t i, const uint16_t* drawn, int n) {
        for (int j = 0; j < n; ++j) StoreFloat(out, dtype, i + j, value(drawn[j]));
      });
  }
}

}  // namespace moebius::model
