// What the CUDA test and benchmark programs share. They run on GPU hosts that have nothing but a
// driver, so there is no test library here: a failed check prints and makes Finish() non-zero.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/each_once.h"

namespace moebius::kernels::cuda::testing {

inline void Check(cudaError_t error, const char* what, int line) {
  if (error == cudaSuccess) return;
  std::printf("FAILED line %d: %s: %s\n", line, what, cudaGetErrorString(error));
  std::exit(1);
}
#define CUDA_OK(call) \
  ::moebius::kernels::cuda::testing::Check(static_cast<cudaError_t>(call), #call, __LINE__)

// Device memory filled with bytes that read as NaN in every float format until written.
template <typename T>
class Device {
 public:
  explicit Device(size_t count) : count_(count) {
    CUDA_OK(cudaMalloc(&data_, std::max<size_t>(bytes(), 16)));
    Poison();
  }
  explicit Device(const std::vector<T>& values) : Device(values.size()) { Upload(values); }
  Device(Device&& other) noexcept : data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
  }
  ~Device() { cudaFree(data_); }

  void Poison() { CUDA_OK(cudaMemset(data_, 0xff, bytes())); }
  void Upload(const std::vector<T>& values) {
    CUDA_OK(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    CUDA_OK(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }
  T* get() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

inline float ToFloat(float x) { return x; }
inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
T FromFloat(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return __float2bfloat16(x);
  }
}

using Rng = std::mt19937_64;

template <typename T>
std::vector<T> RandomNormal(Rng& rng, size_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<T> values(count);
  for (T& v : values) v = FromFloat<T>(normal(rng));
  return values;
}

// Random bfloat16 values on the device, for inputs too large to draw on the host: sums of four
// uniform bytes of a hash, nearly normal with deviation 1.
static __global__ void FillNormal(__nv_bfloat16* out, size_t count, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < count;
       i += size_t{gridDim.x} * blockDim.x) {
    uint64_t x = (i + seed * 0x100000001b3) * 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
    float sum = 0;
    for (int b = 0; b < 8; ++b) sum += static_cast<float>((x >> (8 * b)) & 255);
    out[i] = __float2bfloat16((sum - 8 * 127.5f) / 209.0f);
  }
}
inline Device<__nv_bfloat16> DeviceNormal(size_t count, uint64_t seed) {
  Device<__nv_bfloat16> out(count);
  FillNormal<<<1024, 256>>>(out.get(), count, seed);
  CUDA_OK(cudaDeviceSynchronize());
  return out;
}

inline int& Failures() {
  static int failures = 0;
  return failures;
}
inline void Expect(bool good, const std::string& what) {
  if (good) return;
  ++Failures();
  if (Failures() <= 40) std::printf("FAILED: %s\n", what.c_str());
}

// |got - want| / |want| over all elements, and the largest difference over the largest element.
struct Error {
  double relative = 0;
  double worst = 0;
};
template <typename T, typename W>
Error Compare(const std::vector<T>& got, const std::vector<W>& want) {
  double difference = 0;
  double norm = 0;
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = static_cast<double>(want[i]);
    const double g = static_cast<double>(ToFloat(got[i]));
    if (std::isnan(g) || std::isnan(w)) return {NAN, NAN};
    difference += (g - w) * (g - w);
    norm += w * w;
    worst = std::max(worst, std::fabs(g - w));
    largest = std::max(largest, std::fabs(w));
  }
  if (norm == 0) return {std::sqrt(difference), worst};
  return {std::sqrt(difference / norm), worst / largest};
}
inline void ExpectClose(const Error& error, double limit, const std::string& what) {
  // NaN compares false.
  Expect(error.relative <= limit && error.worst <= 4 * limit,
         what + ": relative error " + std::to_string(error.relative) + ", worst " +
             std::to_string(error.worst) + ", limit " + std::to_string(limit));
}

inline int Finish(const char* name) {
  CUDA_OK(cudaDeviceSynchronize());
  if (Failures() == 0) {
    std::printf("%s: all checks passed\n", name);
    return 0;
  }
  std::printf("%s: %d checks FAILED\n", name, Failures());
  return 1;
}

// Microseconds of launch(0), launched one time.
inline double TimeOnce(cudaStream_t stream,
                       const std::function<void(int i, cudaStream_t stream)>& launch) {
  cudaEvent_t start;
  cudaEvent_t stop;
  CUDA_OK(cudaEventCreate(&start));
  CUDA_OK(cudaEventCreate(&stop));
  CUDA_OK(cudaEventRecord(start, stream));
  launch(0, stream);
  CUDA_OK(cudaEventRecord(stop, stream));
  CUDA_OK(cudaEventSynchronize(stop));
  float ms = 0;
  CUDA_OK(cudaEventElapsedTime(&ms, start, stop));
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  return 1e3 * ms;
}

// Microseconds of one launch: `launches` calls with different i captured in a graph, the graph
// replayed `replays` times after two warm replays; the median of the replays.
inline double TimeGraph(int launches, int replays,
                        const std::function<void(int i, cudaStream_t stream)>& launch) {
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  if (EachOnce()) {
    const double us = TimeOnce(stream, launch);
    cudaStreamDestroy(stream);
    return us;
  }
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  cudaGraph_t graph;
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec;
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t start;
  cudaEvent_t stop;
  CUDA_OK(cudaEventCreate(&start));
  CUDA_OK(cudaEventCreate(&stop));
  std::vector<double> times;
  for (int r = -2; r < replays; ++r) {
    CUDA_OK(cudaEventRecord(start, stream));
    CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaEventRecord(stop, stream));
    CUDA_OK(cudaEventSynchronize(stop));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, start, stop));
    if (r >= 0) times.push_back(1e3 * ms / launches);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Bytes read plus written a second by a device-to-device copy of 4 GiB, the best of 5.
inline double CopyRate() {
  const size_t bytes = size_t{4} << 30;
  Device<uint8_t> from(bytes);
  Device<uint8_t> to(bytes);
  FillNormal<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16*>(from.get()), bytes / 2, 1);
  cudaEvent_t start;
  cudaEvent_t stop;
  CUDA_OK(cudaEventCreate(&start));
  CUDA_OK(cudaEventCreate(&stop));
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    CUDA_OK(cudaEventRecord(start));
    CUDA_OK(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice));
    CUDA_OK(cudaEventRecord(stop));
    CUDA_OK(cudaEventSynchronize(stop));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, start, stop));
    best = std::max(best, 2.0 * static_cast<double>(bytes) / (ms * 1e-3));
  }
  return best;
}

}  // namespace moebius::kernels::cuda::testing
