// Products with weights that no cache holds: experts, dense matrices, the head.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "bench/micro/operations/machine.h"

namespace moebius::bench {
namespace {

using kernels::ExecContext;
using kernels::PackedWeight;
using kernels::WeightFormat;

constexpr WeightFormat kFormats[] = {WeightFormat::kBF16, WeightFormat::kFp8Block,
                                     WeightFormat::kF32};
constexpr int64_t kMostTopK = 8;
constexpr int64_t kCheckedOutputs = 4096;

// Places in the activations' memory.
constexpr size_t kMiddleAt = size_t{64} << 20;
constexpr size_t kOutAt = size_t{256} << 20;
constexpr size_t kWantMiddleAt = size_t{480} << 20;
constexpr size_t kWantAt = size_t{496} << 20;

PackedWeight WeightAt(const platform::Region& region, size_t offset, WeightFormat format, int64_t n,
                      int64_t k, bool gated) {
  PackedWeight w;
  w.format = format;
  w.gated = gated;
  w.n = n;
  w.k = k;
  w.data = region.data() + offset;
  if (format == WeightFormat::kFp8Block) {
    w.scales = reinterpret_cast<const float*>(region.data() + offset +
                                              w.num_panels() * kernels::kPanelRows * w.padded_k());
  }
  return w;
}

// A layer's experts, and what routes give its tokens.
struct MoeCase {
  int64_t k = 1;
  std::vector<PackedWeight> up;
  std::vector<PackedWeight> down;
  std::vector<std::vector<int32_t>> routes;  // by call

  int64_t num_experts() const { return static_cast<int64_t>(up.size()); }
};

struct Grouped {
  std::vector<int32_t> offsets;
  std::vector<int32_t> order;
  std::vector<int32_t> places;
};

void RunMoe(ExecContext& ctx, const MoeCase& moe, std::span<const int32_t> slots, const Mat& a,
            const Mat& middle, const Mat& out, Grouped* grouped) {
  grouped->offsets.resize(moe.up.size() + 1);
  grouped->order.resize(slots.size());
  grouped->places.resize(slots.size());
  GroupBySlot(ctx, {slots, moe.num_experts(), grouped->offsets, grouped->order, grouped->places});
  kernels::GroupedSwiGluArgs first;
  first.a = a;
  first.offsets = grouped->offsets;
  first.pairs = grouped->order;
  first.rows_per_pair = moe.k;
  first.weights = moe.up;
  first.out = middle;
  GroupedSwiGlu(ctx, first);
  GroupedGemm(ctx, {middle, grouped->offsets, moe.down, out});
}

// The first token's results against the scalar back end's.
bool IsFirstTokenRight(OperationMachine& machine, const MoeCase& moe, const Mat& a, const Mat& out,
                       const Grouped& got, int64_t inner) {
  const std::span slots = std::span(moe.routes.back()).first(static_cast<size_t>(moe.k));
  const Mat middle(machine.activations(kWantMiddleAt), out.dtype, moe.k, inner);
  const Mat want(machine.activations(kWantAt), out.dtype, moe.k, out.cols);
  ExecContext reference = machine.reference();
  Grouped expected;
  RunMoe(reference, moe, slots, a.Rows(0, 1), middle, want, &expected);
  bool right = true;
  for (size_t j = 0; j < slots.size(); ++j) {
    right = right && IsClose(out.Rows(got.places[j], 1), want.Rows(expected.places[j], 1));
  }
  return right;
}

}  // namespace

void BenchMoe(OperationMachine& m, WeightFormat format, int64_t hidden, int64_t inner,
              int64_t num_experts, int64_t tokens) {
  const size_t up_bytes = kernels::PackedBytes(format, inner, hidden, true);
  const size_t down_bytes = kernels::PackedBytes(format, hidden, inner, false);
  num_experts = std::min<int64_t>(
      num_experts, static_cast<int64_t>(m.weights().size() / (up_bytes + down_bytes)));
  MoeCase moe;
  moe.k = std::min(kMostTopK, num_experts);
  for (int64_t e = 0; e < num_experts; ++e) {
    const size_t at = static_cast<size_t>(e) * (up_bytes + down_bytes);
    moe.up.push_back(WeightAt(m.weights(), at, format, inner, hidden, true));
    moe.down.push_back(WeightAt(m.weights(), at + up_bytes, format, hidden, inner, false));
  }
  const int64_t pairs = tokens * moe.k;
  const Mat a(m.activations(0), DType::kBF16, tokens, hidden);
  const Mat middle(m.activations(kMiddleAt), DType::kBF16, pairs, inner);
  const Mat out(m.activations(kOutAt), DType::kBF16, pairs, hidden);
  std::mt19937 random(1);
  int64_t touched = 0;
  for (int i = 0; i < OperationMachine::kCalls; ++i) {
    std::vector<int32_t> slots;
    std::vector<int32_t> experts(moe.up.size());
    std::iota(experts.begin(), experts.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(experts.begin(), experts.end(), random);
      slots.insert(slots.end(), experts.begin(), experts.begin() + moe.k);
    }
    moe.routes.push_back(slots);
    std::sort(slots.begin(), slots.end());
    touched += std::unique(slots.begin(), slots.end()) - slots.begin();
  }
  ExecContext ctx = m.context();
  Grouped grouped;
  OperationRow row;
  row.what = fmt::format("MoE {}x{} {} of {} T={} {}", hidden, inner, moe.k, num_experts, tokens,
                         WeightFormatName(format));
  row.seconds = m.Median([&](int i) {
    RunMoe(ctx, moe, moe.routes[static_cast<size_t>(i)], a, middle, out, &grouped);
  });
  row.bytes = static_cast<double>(touched) / OperationMachine::kCalls *
              static_cast<double>(up_bytes + down_bytes);
  row.flops = 6.0 * static_cast<double>(pairs * hidden * inner);
  row.right = IsFirstTokenRight(m, moe, a, out, grouped, inner);
  m.Print(row);
}

void BenchGemm(OperationMachine& m, WeightFormat format, DType act, int64_t tokens, int64_t n,
               int64_t k) {
  const size_t bytes = (kernels::PackedBytes(format, n, k, false) + 4095) / 4096 * 4096;
  const auto copies = static_cast<int64_t>(m.weights().size() / bytes);
  const Mat a(m.activations(0), act, tokens, k);
  const Mat out(m.activations(kOutAt), act, tokens, n);
  ExecContext ctx = m.context();
  PackedWeight w;
  OperationRow row;
  row.what = fmt::format("gemm {}x{} T={} {} x {}", k, n, tokens, WeightFormatName(format),
                         DTypeName(act));
  row.seconds = m.Median([&](int i) {
    w = WeightAt(m.weights(), static_cast<size_t>(i % copies) * bytes, format, n, k, false);
    kernels::GemmArgs args;
    args.a = a;
    args.w = &w;
    args.out = out;
    Gemm(ctx, args);
  });
  row.bytes = static_cast<double>(bytes);
  row.flops = 2.0 * static_cast<double>(tokens * n * k);
  // The last row's first outputs.
  PackedWeight first = w;
  first.n = std::min(n, kCheckedOutputs);
  const Mat want(m.activations(kWantAt), act, 1, first.n);
  kernels::GemmArgs args;
  args.a = a.Rows(tokens - 1, 1);
  args.w = &first;
  args.out = want;
  ExecContext reference = m.reference();
  Gemm(reference, args);
  row.right = IsClose(out.Rows(tokens - 1, 1).Cols(0, first.n), want);
  m.Print(row);
}

void BenchDecode(OperationMachine& m) {
  for (const WeightFormat format : kFormats) {
    for (const int64_t tokens : {1, 2, 4, 8}) BenchMoe(m, format, 2048, 768, 128, tokens);
  }
  for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kFp8Block}) {
    for (const int64_t tokens : {1, 4}) BenchMoe(m, format, 7168, 2048, 256, tokens);
    for (const int64_t tokens : {1, 2, 4, 8}) {
      BenchGemm(m, format, DType::kBF16, tokens, 151936, 2048);
    }
  }
}

void BenchPrefill(OperationMachine& m) {
  for (const WeightFormat format : kFormats) {
    for (const int64_t tokens : {16, 64, 256, 1024}) {
      BenchGemm(m, format, DType::kBF16, tokens, 4096, 2048);
    }
    BenchMoe(m, format, 2048, 768, 128, 1024);
    BenchMoe(m, format, 7168, 2048, 32, 256);
  }
}

}  // namespace moebius::bench
