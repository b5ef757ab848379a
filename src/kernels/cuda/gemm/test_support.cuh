// For the GPU test and benchmark programs of this folder: device memory, random data, and a slow
// reference that computes single outputs in float64. Faults end the program.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "kernels/cuda/gemm/grouped_gemm.h"

namespace moebius::cuda::testing {

inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
  }
}
inline void Check(const char* error) {
  if (error != nullptr) {
    std::fprintf(stderr, "launch refused: %s\n", error);
    std::exit(1);
  }
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size = 0) : size_(size) {
    if (size > 0) {
      Check(cudaMalloc(&data_, size * sizeof(T)), "cudaMalloc");
    }
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    Check(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "copy in");
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }
  T* get() const { return data_; }
  size_t size() const { return size_; }
  std::vector<T> Host() const {
    std::vector<T> values(size_);
    Check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "copy out");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

__host__ __device__ inline uint32_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(x >> 32);
}
__host__ __device__ inline float Uniform(uint64_t x) { return Mix(x) * (1.0f / 4294967296.0f); }
// Four uniforms: close enough to a normal of variance 1.
__device__ inline float Normal(uint64_t x) {
  float sum = -2.0f;
  for (int i = 0; i < 4; ++i) {
    sum += Uniform(x * 4 + i);
  }
  return sum * 1.7320508f;
}

__global__ void FillBf16Kernel(__nv_bfloat16* to, size_t size, uint64_t seed, float deviation) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size;
       i += size_t{gridDim.x} * blockDim.x) {
    to[i] = __float2bfloat16(Normal(seed + i) * deviation);
  }
}
__global__ void FillE4m3Kernel(uint8_t* to, size_t size, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size;
       i += size_t{gridDim.x} * blockDim.x) {
    to[i] = __nv_cvt_float_to_fp8(Normal(seed + i) * 150.0f, __NV_SATFINITE, __NV_E4M3);
  }
}
__global__ void FillUniformKernel(float* to, size_t size, uint64_t seed, float low, float high) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size;
       i += size_t{gridDim.x} * blockDim.x) {
    to[i] = low + (high - low) * Uniform(seed + i);
  }
}

// Operands of one format: e4m3 like quantised normals, bf16 normals.
inline void FillOperand(void* to, tuning::GemmFormat format, size_t size, uint64_t seed) {
  if (format == tuning::GemmFormat::kFp8Block) {
    FillE4m3Kernel<<<1024, 256>>>(static_cast<uint8_t*>(to), size, seed << 40);
  } else {
    FillBf16Kernel<<<1024, 256>>>(static_cast<__nv_bfloat16*>(to), size, seed << 40, 0.5f);
  }
  Check(cudaGetLastError(), "fill");
}
inline void FillScales(float* to, size_t size, uint64_t seed) {
  FillUniformKernel<<<256, 256>>>(to, size, seed << 40, 0.002f, 0.01f);
  Check(cudaGetLastError(), "fill scales");
}

struct Errors {
  double difference;       // sum of squares of (out - reference)
  double reference;        // sum of squares of the reference
  double largest;          // largest |out - reference|
  unsigned long long bad;  // outputs that are not finite
  unsigned long long compared;
};

__device__ inline float Operand(const GroupedGemmArgs& a, const void* base, int64_t at) {
  if (a.format == tuning::GemmFormat::kFp8Block) {
    __nv_fp8_e4m3 value;
    value.__x = static_cast<const uint8_t*>(base)[at];
    return static_cast<float>(value);
  }
  return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[at]);
}

// A warp an output. `samples` of the rows' outputs, spread by hashing; every output when samples
// covers them.
__global__ void CompareKernel(const GroupedGemmArgs a, int64_t samples, uint64_t seed,
                              Errors* errors) {
  const int lane = threadIdx.x % 32;
  const int first = a.offsets[0];
  const int64_t total = static_cast<int64_t>(a.offsets[a.num_groups] - first) * a.n;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  const int64_t count = samples < total ? samples : total;
  for (int64_t i = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32; i < count; i += warps) {
    const int64_t hashed = (static_cast<int64_t>(Mix(seed + 2 * i)) << 31 ^ Mix(seed + 2 * i + 1));
    const int64_t output = samples < total ? (hashed & INT64_MAX) % total : i;
    const int64_t row = first + output / a.n;
    const int column = static_cast<int>(output % a.n);
    int group = 0;
    while (a.offsets[group + 1] <= row) {
      ++group;
    }
    const int slot = a.slots == nullptr ? group : a.slots[group];
    double sum = 0;
    for (int k = lane; k < a.k; k += 32) {
      double scale = 1;
      if (a.format == tuning::GemmFormat::kFp8Block) {
        const int64_t block =
            (static_cast<int64_t>(slot) * (a.n / 128) + column / 128) * (a.k / 128);
        scale = static_cast<double>(a.row_scales[k / 128 * a.scale_stride + row]) *
                a.weight_scales[block + k / 128];
      }
      sum += scale * Operand(a, a.rows, row * a.k + k) *
             Operand(a, a.weights, (static_cast<int64_t>(slot) * a.n + column) * a.k + k);
    }
    for (int step = 16; step > 0; step /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    if (lane == 0) {
      const double out =
          __bfloat162float(static_cast<const __nv_bfloat16*>(a.out)[row * a.n + column]);
      const double difference = out - sum;
      atomicAdd(&errors->difference, difference * difference);
      atomicAdd(&errors->reference, sum * sum);
      atomicAdd(&errors->compared, 1ull);
      if (!isfinite(out)) {
        atomicAdd(&errors->bad, 1ull);
      }
      // Bits of non-negative doubles order like the numbers.
      atomicMax(reinterpret_cast<unsigned long long*>(&errors->largest),
                static_cast<unsigned long long>(__double_as_longlong(fabs(difference))));
    }
  }
}

// Poison is a bf16 NaN. Counts rows' outputs that still hold it, and other rows' that no longer do.
constexpr uint8_t kPoison = 0xff;
__global__ void PoisonKernel(const GroupedGemmArgs a, unsigned long long* unwritten,
                             unsigned long long* trespassed) {
  const int64_t begin = static_cast<int64_t>(a.offsets[0]) * a.n;
  const int64_t end = static_cast<int64_t>(a.offsets[a.num_groups]) * a.n;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < a.capacity * a.n;
       i += int64_t{gridDim.x} * blockDim.x) {
    const bool poison = static_cast<const uint16_t*>(a.out)[i] == 0xffff;
    const bool belongs = i >= begin && i < end;
    if (belongs && poison) {
      atomicAdd(unwritten, 1ull);
    } else if (!belongs && !poison) {
      atomicAdd(trespassed, 1ull);
    }
  }
}

struct Verdict {
  double error = 0;    // |out - reference| / |reference|
  double largest = 0;  // largest difference over the reference's root mean square
  unsigned long long unwritten = 0;
  unsigned long long trespassed = 0;
  unsigned long long bad = 0;
  // bf16 rounds to 2^-9 and the tensor core's fp8 sums keep about 14 bits.
  bool Passes() const {
    return error < 5e-3 && largest < 0.1 && unwritten == 0 && trespassed == 0 && bad == 0;
  }
};

inline void Poison(const GroupedGemmArgs& args) {
  Check(cudaMemset(args.out, kPoison, static_cast<size_t>(args.capacity) * args.n * 2), "poison");
}

inline Verdict Judge(const GroupedGemmArgs& args, int64_t samples, uint64_t seed) {
  DeviceArray<Errors> errors(std::vector<Errors>(1));
  DeviceArray<unsigned long long> counts(std::vector<unsigned long long>(2));
  CompareKernel<<<1024, 256>>>(args, samples, seed << 34, errors.get());
  PoisonKernel<<<1024, 256>>>(args, counts.get(), counts.get() + 1);
  Check(cudaGetLastError(), "judge");
  Check(cudaDeviceSynchronize(), "judge");
  const Errors e = errors.Host()[0];
  const std::vector<unsigned long long> c = counts.Host();
  Verdict verdict;
  verdict.unwritten = c[0];
  verdict.trespassed = c[1];
  verdict.bad = e.bad;
  if (e.compared > 0) {
    verdict.error = sqrt(e.difference / e.reference);
    verdict.largest = e.largest / sqrt(e.reference / e.compared);
  }
  return verdict;
}

}  // namespace moebius::cuda::testing
