// Products of few rows at the shapes of a decode step of DeepSeek-V3 and Qwen3-30B-A3B: by graph
// replay over weights larger than the L2, beside the copy rate and the way that more rows take (the
// library for bfloat16, rows quantised for the grouped product for fp8 and experts; of gated
// products without the activation). Every output of one launch is checked in float64.
#include <cuda_fp8.h>

#include <cstdio>

#include "kernels/cuda/benches.h"
#include "kernels/cuda/gemm/few_rows.h"
#include "kernels/cuda/gemm/grouped_gemm.h"
#include "kernels/cuda/gemm/quantize.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;
using RunLibrary = std::function<void(const DenseProduct&, CUstream_st*)>;

constexpr double kRotateBytes = 300e6;  // several times the L2
constexpr double kMostError = 5e-3;     // outputs are bfloat16

struct Product {
  bool fp8 = false;
  bool gated = false;
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;  // heads
  int slots = 0;      // 0: rows of one weight; else each row is a place of its own slot of so many
  int64_t rows = 1;

  __host__ __device__ int64_t weight_rows() const { return gated ? 2 * n : n; }
  __host__ __device__ int64_t elements() const { return weight_rows() * k; }  // of a head or slot
  int64_t parts() const { return slots > 0 ? rows : batch; }
  double bytes() const { return static_cast<double>(parts() * elements()) * (fp8 ? 1 : 2); }
};

// All 254 codes that are numbers, the same number of times.
__global__ void FillCodes(uint8_t* out, size_t count) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    const uint64_t x = (i + 1) * 0x9e3779b97f4a7c15;
    const auto code = static_cast<uint32_t>((x ^ (x >> 29)) * 0xbf58476d1ce4e5b9 >> 40) % 254;
    out[i] = static_cast<uint8_t>(code < 127 ? code : code + 1);
  }
}

// Sets of inputs: no launch finds its weights in the L2.
struct Sets {
  explicit Sets(const Product& p)
      : count(static_cast<int>(kRotateBytes / p.bytes()) + 2),
        a(testing::DeviceNormal(p.rows * p.batch * p.k, 3)),
        bf16(p.fp8 ? Device<Bf16>(size_t{0})
                   : testing::DeviceNormal(count * p.parts() * p.elements(), 4)),
        codes(p.fp8 ? count * p.parts() * p.elements() : 0),
        scales(p.fp8 ? count * p.parts() * p.elements() / 16384 : 0),
        offsets(std::max<size_t>(1, size_t(count) * (p.slots + 1))),
        out(p.rows * p.batch * p.weight_rows()),
        quantised(p.rows * p.k),
        row_scales((p.rows + 3) / 4 * 4 * (p.k / 128 + 1)) {
    if (p.fp8) {
      FillCodes<<<1024, 256>>>(codes.get(), codes.size());
      std::vector<float> values(scales.size());
      for (size_t i = 0; i < values.size(); ++i) values[i] = 1e-4f * (1 + i % 7);
      scales.Upload(values);
    }
    if (p.slots > 0) offsets.Upload(Offsets(p, count));
    CUDA_OK(cudaDeviceSynchronize());
  }
  // Set i has the slots from i * rows on, modulo their number, one place each.
  static std::vector<int32_t> Offsets(const Product& p, int count) {
    std::vector<int32_t> offsets;
    for (int i = 0; i < count; ++i) {
      const int64_t first = i * p.rows % p.slots;
      for (int64_t s = 0; s <= p.slots; ++s) {
        offsets.push_back(static_cast<int32_t>(std::clamp<int64_t>(s - first, 0, p.rows)));
      }
    }
    return offsets;
  }
  // Where set i's weights begin, in heads or slots; pools of slots follow each other.
  int64_t First(const Product& p, int i) const {
    return p.slots > 0 ? i * p.rows / p.slots * p.slots : i * p.batch;
  }
  const void* Weights(const Product& p, int i) const {
    const int64_t at = First(p, i) * p.elements();
    return p.fp8 ? static_cast<const void*>(codes.get() + at) : bf16.get() + at;
  }
  const float* Scales(const Product& p, int i) const {
    return p.fp8 ? scales.get() + First(p, i) * p.elements() / 16384 : nullptr;
  }
  const int32_t* SlotOffsets(const Product& p, int i) const {
    return offsets.get() + i * (p.slots + 1);
  }

  int count;
  Device<Bf16> a, bf16;
  Device<uint8_t> codes;
  Device<float> scales;
  Device<int32_t> offsets;
  Device<Bf16> out;
  Device<uint8_t> quantised;
  Device<float> row_scales;
};

// Heads side by side in the rows of a and out.
FewRowsLaunch RowsLaunch(const Product& p, const Sets& sets, int i) {
  FewRowsLaunch few;
  few.a = {sets.a.get(), DType::kBF16, p.batch * p.k};
  few.a_batch = p.batch > 1 ? p.k : 0;
  few.w = sets.Weights(p, i);
  few.w_batch = p.batch > 1 ? p.elements() : 0;
  few.scales = sets.Scales(p, i);
  few.out = {sets.out.get(), DType::kBF16, p.batch * p.n};
  few.out_batch = p.batch > 1 ? p.n : 0;
  few.rows = p.rows;
  few.n = p.n;
  few.k = p.k;
  few.batch = p.batch;
  few.gated = p.gated;
  return few;
}
FewPlacesLaunch PlacesLaunch(const Product& p, const Sets& sets, int i) {
  FewPlacesLaunch few;
  few.a = {sets.a.get(), DType::kBF16, p.k};
  few.offsets = sets.SlotOffsets(p, i);
  few.num_slots = p.slots;
  few.w = sets.Weights(p, i);
  few.scales = sets.Scales(p, i);
  few.out = {sets.out.get(), DType::kBF16, p.n};
  few.places = p.rows;
  few.n = p.n;
  few.k = p.k;
  few.gated = p.gated;
  few.places_known = true;
  return few;
}
void LaunchFew(const Product& p, const Sets& sets, int i, cudaStream_t stream) {
  CUDA_OK(p.slots > 0 ? LaunchFewPlaces(PlacesLaunch(p, sets, i), stream)
                      : LaunchFewRows(RowsLaunch(p, sets, i), stream));
}

int64_t ScaleStride(const Product& p) { return (p.rows + 3) / 4 * 4; }
// Rows as fp8 products take them.
void Quantise(const Product& p, const Sets& sets, cudaStream_t stream) {
  const char* error = moebius::cuda::LaunchQuantizeRows(
      {sets.a.get(), nullptr, p.rows, static_cast<int>(p.k)},
      {sets.quantised.get(), sets.row_scales.get(), ScaleStride(p)}, stream);
  testing::Expect(error == nullptr, "rows are quantised");
}

void LaunchGrouped(const Product& p, const Sets& sets, int i, int num_sms, cudaStream_t stream) {
  using tuning::GemmFormat;
  const auto refused = [](const char* text) {
    testing::Expect(text == nullptr, "grouped product");
  };
  if (p.fp8) Quantise(p, sets, stream);
  moebius::cuda::GroupedGemmArgs args = {};
  args.format = p.fp8 ? GemmFormat::kFp8Block : GemmFormat::kBf16;
  args.rows = p.fp8 ? static_cast<const void*>(sets.quantised.get()) : sets.a.get();
  args.row_scales = sets.row_scales.get();
  args.scale_stride = ScaleStride(p);
  args.weights = sets.Weights(p, i);
  args.weight_scales = sets.Scales(p, i);
  args.out = sets.out.get();
  args.offsets = p.slots > 0 ? sets.SlotOffsets(p, i) : nullptr;
  args.capacity = p.rows;
  args.num_groups = args.num_slots = std::max(1, p.slots);
  args.n = static_cast<int>(p.weight_rows());
  args.k = static_cast<int>(p.k);
  const int expected = p.slots > 0 ? 1 : static_cast<int>(p.rows);
  refused(moebius::cuda::LaunchGroupedGemm(
      args,
      tuning::ChooseGroupedGemm({args.format, args.n, args.k, args.num_slots, expected, num_sms}),
      stream));
}
DenseProduct LibraryProduct(const Product& p, const Sets& sets, int i) {
  DenseProduct dense;
  dense.a = sets.a.get();
  dense.a_stride = p.batch * p.k;
  dense.a_batch = p.k;
  dense.w = sets.Weights(p, i);
  dense.w_batch = p.elements();
  dense.out = sets.out.get();
  dense.out_stride = p.batch * p.weight_rows();
  dense.out_batch = p.weight_rows();
  dense.rows = p.rows;
  dense.n = p.weight_rows();
  dense.k = p.k;
  dense.batch = p.batch;
  return dense;
}

struct Sums {
  double difference;
  double want;
};
struct Operands {
  const Bf16* a;
  const uint8_t* a_codes;  // of fp8 products
  const float* a_scales;
  int64_t a_scale_stride;
  const Bf16* w;
  const uint8_t* codes;
  const float* scales;
};
__device__ double Value(uint8_t code) {
  __nv_fp8_e4m3 e4m3;
  e4m3.__x = code;
  return double{static_cast<float>(e4m3)};
}
// A warp an output of set 0: row r of head b, or place r; the first `rows` slots have a place each.
__global__ void CompareOutputs(const Product p, const Operands in, const Bf16* out, Sums* sums) {
  const int lane = threadIdx.x % 32;
  const int64_t all = p.rows * p.batch * p.n;
  for (int64_t at = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32; at < all;
       at += int64_t{gridDim.x} * blockDim.x / 32) {
    const int64_t row = at / (p.batch * p.n);
    const int64_t head = at / p.n % p.batch;
    const int64_t part = p.slots > 0 ? row : head;
    double both[2] = {};
    for (int half = 0; half < (p.gated ? 2 : 1); ++half) {
      const int64_t w_row = at % p.n + half * p.n;
      for (int64_t i = lane; i < p.k; i += 32) {
        const int64_t element = part * p.elements() + w_row * p.k + i;
        const int64_t input = (row * p.batch + head) * p.k + i;
        if (p.fp8) {
          const int64_t block = (part * p.weight_rows() + w_row) / 128 * (p.k / 128) + i / 128;
          both[half] += Value(in.codes[element]) * in.scales[block] * Value(in.a_codes[input]) *
                        in.a_scales[i / 128 * in.a_scale_stride + row];
        } else {
          both[half] += double{__bfloat162float(in.w[element])} * __bfloat162float(in.a[input]);
        }
      }
      for (int step = 16; step > 0; step /= 2) {
        both[half] += __shfl_xor_sync(~0u, both[half], step);
      }
    }
    if (lane != 0) continue;
    const double want = p.gated ? both[0] / (1 + exp(-both[0])) * both[1] : both[0];
    const double difference = __bfloat162float(out[at]) - want;
    atomicAdd(&sums->difference, difference * difference);
    atomicAdd(&sums->want, want * want);
  }
}
double ErrorOf(const Product& p, Sets& sets) {
  sets.out.Poison();
  LaunchFew(p, sets, 0, nullptr);
  const Device<Sums> sums(std::vector<Sums>(1));
  if (p.fp8) Quantise(p, sets, nullptr);
  const Operands in = {sets.a.get(),    sets.quantised.get(), sets.row_scales.get(), ScaleStride(p),
                       sets.bf16.get(), sets.codes.get(),     sets.scales.get()};
  CompareOutputs<<<1024, 256>>>(p, in, sets.out.get(), sums.get());
  CUDA_OK(cudaDeviceSynchronize());
  const Sums s = sums.Download()[0];
  return std::sqrt(s.difference / s.want);
}

bool Row(const Product& p, double copy_rate, int num_sms, const RunLibrary& library,
         std::FILE* json) {
  Sets sets(p);
  const int launches = std::max(sets.count, 20);
  const double error = ErrorOf(p, sets);
  const double us = testing::TimeGraph(
      launches, 9, [&](int i, cudaStream_t stream) { LaunchFew(p, sets, i % sets.count, stream); });
  const bool grouped = p.fp8 || p.slots > 0;
  const double other = testing::TimeGraph(launches, 9, [&](int i, cudaStream_t stream) {
    if (grouped) {
      LaunchGrouped(p, sets, i % sets.count, num_sms, stream);
    } else {
      library(LibraryProduct(p, sets, i % sets.count), stream);
    }
  });
  const bool right = error <= kMostError;  // NaN is not
  const double gbs = p.bytes() / us * 1e-3;
  char shape[64];
  std::snprintf(shape, sizeof(shape), "%s%lldx%lld", p.gated ? "2x" : "",
                static_cast<long long>(p.n), static_cast<long long>(p.k));
  char parts[32] = "";
  if (p.slots > 0) std::snprintf(parts, sizeof(parts), " of %d experts", p.slots);
  if (p.batch > 1) std::snprintf(parts, sizeof(parts), ", %d heads", static_cast<int>(p.batch));
  std::printf("| %s %s%s | %lld | %.1f | %.2f | %.0f | %.0f %% | %.2f | %.1e %s |\n",
              p.fp8 ? "fp8" : "bf16", shape, parts, static_cast<long long>(p.rows),
              p.bytes() * 1e-6, us, gbs, 100e9 * gbs / copy_rate, other, error,
              right ? "ok" : "WRONG");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"section\":\"few\",\"format\":\"%s\",\"shape\":\"%s\",\"parts\":\"%s\","
                 "\"rows\":%lld,\"us\":%.2f,\"gbs\":%.0f,\"copy_gbs\":%.0f,\"other_us\":%.2f,"
                 "\"error\":%.1e}\n",
                 p.fp8 ? "fp8" : "bf16", shape, parts, static_cast<long long>(p.rows), us, gbs,
                 copy_rate * 1e-9, other, error);
  }
  return right;
}

constexpr bool kFp8 = true;
constexpr bool kGated = true;
constexpr Product kDense[] = {
    {false, false, 2112, 7168},    {false, false, 24576, 1536},   {false, false, 7168, 16384},
    {false, false, 256, 7168},     {false, false, 2048, 2048},    {false, false, 5120, 2048},
    {false, false, 512, 128, 128}, {false, false, 128, 512, 128}, {kFp8, false, 7168, 16384},
    {kFp8, kGated, 2048, 7168},    {kFp8, false, 7168, 2048},     {kFp8, false, 24576, 1536},
    {false, false, 129280, 7168},
};
constexpr Product kPlaces[] = {
    {kFp8, kGated, 2048, 7168, 1, 8, 8},    {kFp8, false, 7168, 2048, 1, 8, 8},
    {kFp8, kGated, 768, 2048, 1, 128, 8},   {kFp8, false, 2048, 768, 1, 128, 8},
    {false, kGated, 768, 2048, 1, 128, 8},  {false, false, 2048, 768, 1, 128, 8},
    {kFp8, kGated, 2048, 7168, 1, 256, 16}, {kFp8, false, 7168, 2048, 1, 256, 16},
    {false, kGated, 768, 2048, 1, 128, 16}, {false, false, 2048, 768, 1, 128, 16},
};

}  // namespace

bool BenchFewRows(const std::function<void(const DenseProduct&, CUstream_st*)>& library,
                  std::FILE* json) {
  const double copy_rate = testing::CopyRate();
  int device = 0;
  int num_sms = 0;
  CUDA_OK(cudaGetDevice(&device));
  CUDA_OK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  std::printf("copy %.2f TB/s (read + written)\n", copy_rate * 1e-12);
  std::printf("| weights | rows | MB | us | GB/s | of copy | us of many rows' way | error |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  bool right = true;
  for (Product p : kDense) {
    for (const int rows : {1, 2, 4, 8}) {
      p.rows = rows;
      right = Row(p, copy_rate, num_sms, library, json) && right;
    }
  }
  for (const Product& p : kPlaces) right = Row(p, copy_rate, num_sms, library, json) && right;
  return right && testing::Failures() == 0;
}

}  // namespace moebius::kernels::cuda
