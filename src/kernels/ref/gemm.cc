// Matrix products. A weight's row is unpacked once and used for every row of activations.
#include <cmath>
#include <vector>

#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

void UnpackRow(const PackedWeight& w, int64_t i, bool up, std::vector<double>& out) {
  out.resize(w.k);
  for (int64_t j = 0; j < w.k; ++j) out[j] = PackedAt(w, i, j, up);
}

std::vector<double> ReadRow(const Mat& m, int64_t row, int64_t begin, int64_t count) {
  std::vector<double> out(count);
  for (int64_t j = 0; j < count; ++j) out[j] = Get(m, row, begin + j);
  return out;
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

double Silu(double x) { return x / (1.0 + std::exp(-x)); }

// Calls emit(row, output, sum) for rows x outputs of a w^T.
template <typename Emit>
void Product(const std::vector<std::vector<double>>& rows, const PackedWeight& w,
             const Emit& emit) {
  std::vector<double> weights;
  for (int64_t i = 0; i < w.n; ++i) {
    UnpackRow(w, i, false, weights);
    for (size_t r = 0; r < rows.size(); ++r) emit(r, i, Dot(rows[r], weights));
  }
}

template <typename Emit>
void GatedProduct(const std::vector<std::vector<double>>& rows, const PackedWeight& w,
                  const Emit& emit) {
  std::vector<double> gate;
  std::vector<double> up;
  for (int64_t i = 0; i < w.n; ++i) {
    UnpackRow(w, i, false, gate);
    UnpackRow(w, i, true, up);
    for (size_t r = 0; r < rows.size(); ++r) {
      emit(r, i, Silu(Dot(rows[r], gate)) * Dot(rows[r], up));
    }
  }
}

std::vector<std::vector<double>> ReadRows(const Mat& m, int64_t begin, int64_t count) {
  std::vector<std::vector<double>> rows;
  for (int64_t t = 0; t < count; ++t) rows.push_back(ReadRow(m, begin + t, 0, m.cols));
  return rows;
}

}  // namespace

void Gemm(ExecContext& /*ctx*/, const GemmArgs& args) {
  Product(ReadRows(args.a, 0, args.a.rows), *args.w, [&](int64_t t, int64_t i, double sum) {
    if (args.bias.data != nullptr) sum += Get(args.bias, 0, i);
    if (args.accumulate) sum += Get(args.out, t, i);
    Put(args.out, t, i, sum);
  });
}

void HeadGemm(ExecContext& /*ctx*/, const HeadGemmArgs& args) {
  for (size_t h = 0; h < args.weights.size(); ++h) {
    const auto head = static_cast<int64_t>(h);
    const PackedWeight& w = args.weights[h];
    const Mat a = args.a.Cols(head * args.a_head_stride, w.k);
    const Mat out = args.out.Cols(head * args.out_head_stride, w.n);
    Product(ReadRows(a, 0, a.rows), w,
            [&](int64_t t, int64_t i, double sum) { Put(out, t, i, sum); });
  }
}

void SwiGlu(ExecContext& /*ctx*/, const SwiGluArgs& args) {
  GatedProduct(ReadRows(args.a, 0, args.a.rows), *args.w,
               [&](int64_t t, int64_t i, double value) { Put(args.out, t, i, value); });
}

void GroupedSwiGlu(ExecContext& /*ctx*/, const GroupedSwiGluArgs& args) {
  for (size_t s = 0; s < args.weights.size(); ++s) {
    const int32_t begin = args.offsets[s];
    std::vector<std::vector<double>> rows;
    for (int32_t p = begin; p < args.offsets[s + 1]; ++p) {
      const int32_t pair = args.pairs.empty() ? p : args.pairs[p];
      rows.push_back(
          ReadRow(args.a, args.pairs.empty() ? p : pair / args.rows_per_pair, 0, args.a.cols));
      if (args.row_scale.empty()) continue;
      // The scaled row is an activation: rounded like one.
      for (double& value : rows.back()) {
        const auto scaled = static_cast<float>(value * args.row_scale[pair]);
        value = args.a.dtype == DType::kBF16 ? ToFloat(ToBFloat16(scaled)) : scaled;
      }
    }
    if (rows.empty()) continue;
    GatedProduct(rows, args.weights[s],
                 [&](int64_t r, int64_t i, double value) { Put(args.out, begin + r, i, value); });
  }
}

void GroupedGemm(ExecContext& /*ctx*/, const GroupedGemmArgs& args) {
  for (size_t s = 0; s < args.weights.size(); ++s) {
    const int32_t begin = args.offsets[s];
    const int32_t count = args.offsets[s + 1] - begin;
    if (count == 0) continue;
    Product(ReadRows(args.a, begin, count), args.weights[s],
            [&](int64_t r, int64_t i, double sum) { Put(args.out, begin + r, i, sum); });
  }
}

}  // namespace moebius::kernels::ref
