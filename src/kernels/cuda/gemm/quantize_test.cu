// The row kernels against the host, outputs poisoned first. Needs a GPU. Exit 0 only if all pass.
#include <cmath>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/cuda/gemm/quantize.h"
#include "kernels/cuda/gemm/test_support.cuh"

namespace moebius::cuda::testing {
namespace {

float FromBf16(__nv_bfloat16 value) { return __bfloat162float(value); }
float FromE4m3(uint8_t bits) {
  __nv_fp8_e4m3 value;
  value.__x = bits;
  return static_cast<float>(value);
}

struct Input {
  int rows;
  int capacity;
  int columns;
  DeviceArray<__nv_bfloat16> data;
  DeviceArray<int32_t> num_rows;
  std::vector<__nv_bfloat16> host;

  Input(int rows_in, int columns_in, uint64_t seed)
      : rows(rows_in),
        capacity(rows_in + 5),
        columns(columns_in),
        data(static_cast<size_t>(capacity) * columns),
        num_rows(std::vector<int32_t>{rows_in}) {
    FillBf16Kernel<<<256, 256>>>(data.get(), data.size(), seed << 40, 3.0f);
    if (rows > 2) {  // one row of zeros, one of tiny numbers
      Check(cudaMemset(data.get(), 0, columns * 2), "zeros");
      FillBf16Kernel<<<8, 256>>>(data.get() + columns, columns, seed << 41, 1e-30f);
    }
    host = data.Host();
  }
  RowsIn View() const { return {data.get(), num_rows.get(), capacity, columns}; }
  double At(int row, int column) const {
    return FromBf16(host[static_cast<size_t>(row) * columns + column]);
  }
  // silu(gate) * up
  double Product(int row, int column) const {
    const double gate = At(row, column);
    return gate / (1 + std::exp(-gate)) * At(row, column + columns / 2);
  }
};

// The true value of an output, before quantisation.
double Expected(const Input& in, bool swiglu, int row, int column) {
  return swiglu ? in.Product(row, column) : in.At(row, column);
}

int CheckQuantized(int rows, int columns, bool swiglu, uint64_t seed, double* worst) {
  const Input in(rows, swiglu ? 2 * columns : columns, seed);
  const int64_t stride = in.capacity + 3;
  DeviceArray<uint8_t> out(static_cast<size_t>(in.capacity) * columns);
  DeviceArray<float> scales(static_cast<size_t>(stride) * (columns / 128));
  Check(cudaMemset(out.get(), 0xff, out.size()), "poison");
  Check(cudaMemset(scales.get(), 0xff, scales.size() * 4), "poison");
  const QuantizedRowsOut to = {out.get(), scales.get(), stride};
  Check(swiglu ? LaunchSwiGluQuantize(in.View(), to, nullptr)
               : LaunchQuantizeRows(in.View(), to, nullptr));
  Check(cudaDeviceSynchronize(), "quantize");
  const std::vector<uint8_t> bytes = out.Host();
  const std::vector<float> factors = scales.Host();
  int failures = 0;
  for (int row = 0; row < in.capacity; ++row) {
    for (int block = 0; block < columns / 128; ++block) {
      const float scale = factors[block * stride + row];
      double largest = 0;
      for (int c = block * 128; c < block * 128 + 128; ++c) {
        const uint8_t byte = bytes[static_cast<size_t>(row) * columns + c];
        if (row >= rows) {
          failures += byte != 0xff;
          continue;
        }
        const double x = static_cast<float>(Expected(in, swiglu, row, c));
        largest = std::fmax(largest, std::fabs(x));
        // Half a unit in the last of 3 bits, or of the smallest subnormal; the product's own
        // rounding beside it.
        const double bound = std::fmax(std::fabs(x) * 0.0626, scale * 0.00098) + 1e-37;
        const double error = std::fabs(FromE4m3(byte) * static_cast<double>(scale) - x);
        *worst = std::fmax(*worst, error / (448.0 * scale));
        failures += !(error <= bound);
      }
      const double ideal = largest > 0 ? std::fmax(largest / 448, 1.2e-38) : 1;
      failures += row < rows ? !(std::fabs(scale - ideal) <= 1e-5 * ideal) : !std::isnan(scale);
    }
  }
  if (failures > 0) {
    std::printf("FAIL %s %d x %d: %d faults\n", swiglu ? "swiglu_quantize" : "quantize", rows,
                columns, failures);
  }
  return failures;
}

int CheckSwiGlu(int rows, int columns, uint64_t seed, double* worst) {
  const Input in(rows, 2 * columns, seed);
  DeviceArray<__nv_bfloat16> out(static_cast<size_t>(in.capacity) * columns);
  Check(cudaMemset(out.get(), 0xff, out.size() * 2), "poison");
  Check(LaunchSwiGlu(in.View(), out.get(), nullptr));
  Check(cudaDeviceSynchronize(), "swiglu");
  const std::vector<__nv_bfloat16> values = out.Host();
  int failures = 0;
  for (int row = 0; row < in.capacity; ++row) {
    for (int c = 0; c < columns; ++c) {
      const float y = FromBf16(values[static_cast<size_t>(row) * columns + c]);
      if (row >= rows) {
        failures += !std::isnan(y);
        continue;
      }
      const double x = in.Product(row, c);
      const double error = std::fabs(y - x) / std::fmax(std::fabs(x), 1e-30);
      *worst = std::fmax(*worst, error);
      failures += !(error <= 0.004);
    }
  }
  if (failures > 0) {
    std::printf("FAIL swiglu %d x %d: %d faults\n", rows, columns, failures);
  }
  return failures;
}

int RunAll(uint64_t seed) {
  int failures = 0;
  double worst_fp8 = 0;
  double worst_bf16 = 0;
  for (const int rows : {0, 1, 3, 8, 77, 300}) {
    for (const int columns : {128, 384, 2048}) {
      failures += CheckQuantized(rows, columns, false, ++seed, &worst_fp8);
      failures += CheckQuantized(rows, columns, true, ++seed, &worst_fp8);
      failures += CheckSwiGlu(rows, columns, ++seed, &worst_bf16);
    }
  }
  const Input odd(4, 128, seed);
  DeviceArray<uint8_t> out(2048);
  DeviceArray<float> scales(64);
  RowsIn bad = odd.View();
  bad.columns = 200;
  failures += LaunchQuantizeRows(bad, {out.get(), scales.get(), 64}, nullptr) == nullptr;
  failures += LaunchQuantizeRows(odd.View(), {out.get(), scales.get(), 2}, nullptr) == nullptr;
  std::printf("row kernels: worst relative error fp8 %.2e of a block's largest, bf16 %.2e: %s\n",
              worst_fp8, worst_bf16, failures == 0 ? "passed" : "FAILED");
  return failures;
}

}  // namespace
}  // namespace moebius::cuda::testing

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::stoull(argv[1]) : std::time(nullptr) % 100000;
  return moebius::cuda::testing::RunAll(seed) == 0 ? 0 : 1;
}
