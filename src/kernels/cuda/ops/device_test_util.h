// What the tests of the GPU's operations share: arguments copied to the device and results back.
// For tests; one thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/gemm/dense_products.h"
#include "kernels/cuda/ops/device_context.h"
#include "kernels/test_util.h"
#include "platform/cuda/device.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"

namespace moebius::kernels {

// One region on the device: arguments from one arena, the operations' workspace from another.
class DeviceBench {
 public:
  // `library`: dense products by cuBLASLt where it is found; else by our own kernel.
  explicit DeviceBench(const Backend* backend, bool library) {
    memory_ = *platform::cuda::DeviceMemory::Allocate(size_t{512} << 20);
    stream_ = *platform::cuda::Stream::Create();
    Arena all(memory_.data(), memory_.size());
    arena_ = Arena(all.Alloc(size_t{256} << 20), size_t{256} << 20);
    workspace_ = Arena(all.Alloc(size_t{255} << 20), size_t{255} << 20);
    const auto info = platform::cuda::SelectDevice(0);
    given_ = *platform::cuda::Event::Create();
    device_.stream = stream_.get();
    device_.given = given_.get();
    device_.num_sms = info->num_multiprocessors;
    const size_t meeting_bytes = cuda::DeviceContext::MeetingBytes(device_.num_sms);
    void* meeting_room = arena_.Alloc(meeting_bytes);
    EXPECT_TRUE(platform::cuda::FillAsync(meeting_room, 0, meeting_bytes, stream_));
    device_.GiveMeetingRoom(meeting_room);
    kept_ = arena_.Mark();
    if (library) {
      if (auto dense = cuda::DenseProducts::Create()) dense_ = std::move(*dense);
      device_.dense = dense_.get();
    }
    ctx_ = {backend, nullptr, &workspace_, &device_};
  }

  ExecContext& ctx() { return ctx_; }
  int num_sms() const { return device_.num_sms; }
  bool has_library() const { return dense_ != nullptr; }
  void Reset() { arena_.Release(kept_); }

  void* Room(size_t num_bytes) { return arena_.Alloc(num_bytes); }
  template <typename T>
  std::span<T> Put(const std::vector<T>& values) {
    T* at = arena_.Alloc<T>(static_cast<int64_t>(values.size()));
    EXPECT_TRUE(memory().Upload(at, values.data(), values.size() * sizeof(T)));
    return {at, values.size()};
  }
  // With the same gaps, poison and all.
  Mat Put(const TestMat& m) {
    const Mat& host = m.view();
    const size_t bytes = Bytes(host);
    void* at = arena_.Alloc(bytes);
    EXPECT_TRUE(memory().Upload(at, host.data, bytes));
    return Mat(at, host.dtype, host.rows, host.cols, host.stride);
  }
  // Waits, and gives the error of what was queued.
  Status Finish() {
    MOEBIUS_TRY(device_.TakeError());
    return stream_.Synchronize();
  }
  void Get(const Mat& device, TestMat& m) {
    const Status done = Finish();
    ASSERT_TRUE(done) << done.error().message();
    ASSERT_TRUE(memory().Download(m.view().data, device.data, Bytes(device)));
  }
  template <typename T>
  std::vector<T> Get(std::span<T> values) {
    const Status done = Finish();
    EXPECT_TRUE(done) << done.error().message();
    std::vector<T> host(values.size());
    EXPECT_TRUE(memory().Download(host.data(), values.data(), values.size_bytes()));
    return host;
  }

 private:
  static size_t Bytes(const Mat& m) {
    if (m.rows == 0) return 0;
    return static_cast<size_t>((m.rows - 1) * m.stride + m.cols) * SizeOf(m.dtype);
  }
  platform::MemorySpace& memory() { return *ctx_.backend->memory; }

  platform::cuda::DeviceMemory memory_;
  platform::cuda::Stream stream_;
  platform::cuda::Event given_;
  std::unique_ptr<cuda::DenseProducts> dense_;
  Arena arena_;
  size_t kept_ = 0;  // of it, by the bench itself
  Arena workspace_;
  cuda::DeviceContext device_;
  ExecContext ctx_;
};

// |got - want| / |want| over all elements; NaN never passes.
inline void ExpectClose(const TestMat& got, const TestMat& want, double limit,
                        const std::string& what) {
  double difference = 0;
  double norm = 0;
  for (int64_t r = 0; r < want.view().rows; ++r) {
    for (int64_t c = 0; c < want.view().cols; ++c) {
      const double g = got.At(r, c);
      const double w = want.At(r, c);
      difference += (g - w) * (g - w);
      norm += w * w;
    }
  }
  EXPECT_LE(std::sqrt(difference), limit * std::sqrt(norm) + 1e-30) << what;
}
inline double LimitOf(DType dtype) { return dtype == DType::kBF16 ? 5e-3 : 2e-5; }

// Random weights, packed for the reference and in rows for the device: `count` of one shape in one
// pool, as a plan lays them.
class DeviceWeights {
 public:
  DeviceWeights(DeviceBench& bench, Random& random, WeightFormat format, int64_t count, int64_t n,
                int64_t k, bool gated) {
    const size_t data_bytes = RowsDataBytes(format, n, k, gated);
    const size_t scale_bytes = RowsScaleBytes(format, n, k, gated);
    std::vector<uint8_t> data(static_cast<size_t>(count) * data_bytes);
    std::vector<float> scales(static_cast<size_t>(count) * scale_bytes / sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      Values halves[2];
      for (int h = 0; h < (gated ? 2 : 1); ++h) {
        halves[h] = Draw(format, n, k, random);
        const auto at =
            static_cast<size_t>(i) * data_bytes + h * RowsDataBytes(format, n, k, false);
        const auto scale_at =
            (static_cast<size_t>(i) * scale_bytes + h * RowsScaleBytes(format, n, k, false)) /
            sizeof(float);
        CopyRows(format, halves[h].source, data.data() + at, scales.data() + scale_at);
      }
      memory_.emplace_back(PackedBytes(format, n, k, gated) + 64);
      void* dst = reinterpret_cast<void*>(
          (reinterpret_cast<uintptr_t>(memory_.back().data()) + 63) / 64 * 64);
      packed_.push_back(gated ? PackGated(format, halves[0].source, halves[1].source, dst)
                              : Pack(format, halves[0].source, dst));
    }
    const std::span<uint8_t> device_data = bench.Put(data);
    const std::span<float> device_scales = bench.Put(scales);
    for (int64_t i = 0; i < count; ++i) {
      PackedWeight weight = packed_[static_cast<size_t>(i)];
      weight.data = device_data.data() + static_cast<size_t>(i) * data_bytes;
      weight.scales = scale_bytes == 0 ? nullptr
                                       : device_scales.data() +
                                             static_cast<size_t>(i) * scale_bytes / sizeof(float);
      device_.push_back(weight);
    }
  }
  const std::vector<PackedWeight>& packed() const { return packed_; }
  const std::vector<PackedWeight>& device() const { return device_; }

 private:
  struct Values {
    std::vector<uint8_t> bytes;
    std::vector<float> scales;
    WeightSource source;
  };
  static Values Draw(WeightFormat format, int64_t n, int64_t k, Random& random) {
    const DType dtype = format == WeightFormat::kF32    ? DType::kF32
                        : format == WeightFormat::kBF16 ? DType::kBF16
                                                        : DType::kF8E4M3;
    Values v;
    v.bytes.resize(static_cast<size_t>(n * k) * SizeOf(dtype));
    const float scale = 1.0f / std::sqrt(static_cast<float>(k));
    for (int64_t i = 0; i < n * k; ++i) {
      if (dtype == DType::kF8E4M3) {
        v.bytes[static_cast<size_t>(i)] = FloatToF8E4M3(random.Normal(64.0f));
      } else {
        StoreFloat(v.bytes.data(), dtype, i, random.Normal(scale));
      }
    }
    v.source.dtype = dtype;
    v.source.n = n;
    v.source.k = k;
    v.source.n_stride = k;
    if (dtype == DType::kF8E4M3) {
      const int64_t rows = (n + 127) / 128;
      const int64_t cols = (k + 127) / 128;
      for (int64_t i = 0; i < rows * cols; ++i) {
        v.scales.push_back(scale / 64 * (1 + static_cast<float>(random.Below(100)) / 50));
      }
      v.source.scales = Mat(v.scales.data(), DType::kF32, rows, cols);
    }
    v.source.data = v.bytes.data();
    return v;
  }

  std::vector<std::vector<uint8_t>> memory_;
  std::vector<PackedWeight> packed_;
  std::vector<PackedWeight> device_;
};

// What a test of operations has: the GPU's beside the host's. Without a GPU it is skipped.
class DeviceOps {
 protected:
  void Open(bool library) {
    const auto backend = CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    bench_ = std::make_unique<DeviceBench>(*backend, library);
  }
  DeviceBench& bench() { return *bench_; }
  ExecContext& device() { return bench_->ctx(); }
  ExecContext& host() { return host_.ctx(); }
  std::vector<int32_t> Ints(int64_t count, int64_t below) {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(static_cast<int32_t>(random_.Below(below)));
    }
    return values;
  }

  Random random_{7};
  std::unique_ptr<DeviceBench> bench_;
  TestContext host_{&RefBackend()};
};

// With and without the library's products; ops_cuda_test.cc instantiates it.
class CudaOps : public ::testing::TestWithParam<bool>, protected DeviceOps {
 protected:
  void SetUp() override { Open(GetParam()); }
};

}  // namespace moebius::kernels
