// Times that were read on real devices, as data: the reference for op_cost and exchange_cost. Each
// row says where it comes from. Plain values, any thread.
#pragma once

#include <cstdint>
#include <span>

namespace moebius::plan {

// Router's skew of DeepSeek-V3/R1 as Zipf's exponent: the most loaded of 256 experts then gets 11
// times the mean, as TensorRT-LLM reports of R1 (10.9). AIConfigurator's tables were read at a
// comparable skew (power law 1.01), on the busiest rank.
constexpr double kDeepSeekZipf = 0.57;

// A matrix product, out[m, n] = in[m, k] weights[n, k].
struct GemmRow {
  const char* device;
  int64_t m, n, k;
  double weight_bytes;
  double tflops;
  const char* source;
};
std::span<const GemmRow> MeasuredGemms();

// All routed experts of one layer on the busiest rank: permutation, both products, activation and
// sum, for DeepSeek-V3's experts (256, top-8, hidden 7168, width 2048).
struct ExpertsRow {
  const char* device;
  int ep;
  int64_t tokens_per_rank;
  double weight_bytes;
  double us;
  const char* source;
};
std::span<const ExpertsRow> MeasuredExperts();

// One grouped product (one of an expert's two), `groups` experts of `rows` rows each.
struct GroupedGemmRow {
  const char* device;
  int64_t groups, rows, n, k;
  double weight_bytes;
  double us;
  const char* source;
};
std::span<const GroupedGemmRow> MeasuredGroupedGemms();

// Dispatch and combine, 256 or 288 experts, top-8, hidden 7168. by_node: the throughput kernels,
// which send a token once to a node and pass it on there.
struct ExchangeRow {
  const char* device;
  int ep;
  int gpus_per_node;
  int64_t tokens_per_rank;
  bool by_node;
  double dispatch_bytes;  // of an element
  double dispatch_us;
  double combine_us;
  const char* source;
};
std::span<const ExchangeRow> MeasuredExchanges();

struct AllReduceRow {
  const char* device;
  int ranks;
  double bytes;
  double us;
  const char* source;
};
std::span<const AllReduceRow> MeasuredAllReduces();

}  // namespace moebius::plan
