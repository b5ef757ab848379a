// The rows of the exchange benchmark, with what was measured of the peers on two and on four cards
// of this kind and what is aimed at (microseconds; 0: none).
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/exchange/exchange.h"

namespace moebius::cuda::exchange {

struct BenchCase {
  std::string name;
  Mode mode = Mode::kLatency;
  RowFormat format = RowFormat::kFp8;
  int tokens = 0;     // a rank
  int experts = 256;  // drawn evenly
  int top_k = 8;
  bool one_a_rank = false;  // top_k = ranks: each token to one slot of every rank (no fan-out)
  int send_blocks = 0;      // dispatch's; 0: the mode's default
  int receive_blocks = 0;
  int combine_blocks = 0;  // combine's send; 0: send_blocks
  bool early_launch = false;
  bool deterministic = false;
  double peer_dispatch = 0;
  double peer_combine = 0;
  double peer_both = 0;
  double target_dispatch = 0;
  double target_combine = 0;
  double target_both = 0;
};

// Peer: DeepEP V1 low-latency kernels, rows already quantised; `both` of two ranks is the pair as
// it is called.
struct SmallFigures {
  int tokens;
  double dispatch, combine, both, target;
};
inline std::vector<SmallFigures> SmallFiguresOf(int num_ranks) {
  if (num_ranks == 2) {
    return {{1, 0, 0, 0, 0},
            {8, 15.4, 13.8, 0, 20},
            {32, 17.9, 17.4, 0, 22},
            {128, 31.1, 40.3, 72, 30},
            {512, 0, 0, 0, 0}};
  }
  const bool known = num_ranks == 4;
  return {{1, 0, 0, 0, known ? 16.0 : 0},
          {8, 0, 0, 0, 0},
          {32, 0, 0, 0, 0},
          {128, known ? 37.0 : 0, known ? 57.0 : 0, known ? 94.7 : 0, known ? 45.0 : 0},
          {512, 0, 0, 0, 0}};
}

// Peer: DeepEP V1 normal, 24 SMs, rows already quantised, no permutation. Targets of that scope;
// with the whole contract `factor` times as much.
struct LargeFigures {
  double peer_fp8 = 0, peer_bf16 = 0, peer_combine = 0;
  double target_fp8 = 0, target_bf16 = 0, target_combine = 0;
  double factor = 1;
};
inline LargeFigures LargeFiguresOf(int num_ranks) {
  if (num_ranks == 2) return {245, 344, 406, 110, 200, 200, 1.5};
  if (num_ranks == 4) return {428, 811, 600, 290, 540, 520, 1.25};
  return {};
}

inline std::vector<BenchCase> BenchCases(int num_ranks) {
  std::vector<BenchCase> cases;
  const int experts = num_ranks == 4 ? 288 : 256;  // of the small batches, as the peer's tests have
  for (const SmallFigures& s : SmallFiguresOf(num_ranks)) {
    for (const bool early : {false, true}) {
      BenchCase c;
      c.name = early ? "latency, early launch" : "latency";
      c.tokens = s.tokens;
      c.experts = experts;
      c.early_launch = early;
      c.peer_dispatch = s.dispatch;
      c.peer_combine = s.combine;
      c.peer_both = s.both;
      c.target_both = s.target;
      cases.push_back(c);
    }
  }
  BenchCase c;
  c.name = "latency, early, deterministic";
  c.tokens = 128;
  c.experts = experts;
  c.early_launch = true;
  c.deterministic = true;
  cases.push_back(c);
  c.deterministic = false;
  c.mode = Mode::kThroughput;
  c.name = "throughput, all SMs";
  c.send_blocks = c.receive_blocks = 132;
  for (const int tokens : {128, 512}) {
    c.tokens = tokens;
    cases.push_back(c);
  }
  const LargeFigures figures = LargeFiguresOf(num_ranks);
  for (const RowFormat format : {RowFormat::kFp8, RowFormat::kBf16}) {
    BenchCase large;
    const bool fp8 = format == RowFormat::kFp8;
    large.mode = Mode::kThroughput;
    large.format = format;
    large.tokens = 4096;
    large.peer_dispatch = fp8 ? figures.peer_fp8 : figures.peer_bf16;
    large.peer_combine = figures.peer_combine;
    large.target_dispatch = fp8 ? figures.target_fp8 : figures.target_bf16;
    large.target_combine = figures.target_combine;
    large.early_launch = true;
    large.name = "throughput, no fan-out, send 24 SMs, receive the rest";
    large.one_a_rank = true;
    large.send_blocks = 24;
    large.receive_blocks = 108;
    cases.push_back(large);
    large.one_a_rank = false;
    large.target_dispatch *= figures.factor;
    large.target_combine *= figures.factor;
    large.name = "throughput, send 24 SMs, receive the rest";
    cases.push_back(large);
    large.name = "throughput, 24 SMs";
    large.receive_blocks = 24;
    cases.push_back(large);
    large.name = "throughput, dispatch sends 43 SMs, all";
    large.send_blocks = 43;
    large.receive_blocks = large.combine_blocks = 132;
    cases.push_back(large);
    large.name = "throughput, all SMs";
    large.send_blocks = 132;
    cases.push_back(large);
  }
  return cases;
}

struct ReduceCase {
  int rows = 0;
  double peer = 0;  // NCCL 2.28, graph replay
  double target = 0;
};
inline std::vector<ReduceCase> ReduceCases(int num_ranks) {
  std::vector<ReduceCase> cases = {{1, 11.4, 6},    {8, 10.5, 6},   {32, 13.0, 7},
                                   {128, 29.2, 14}, {512, 44.2, 0}, {2048, 126.5, 126.5},
                                   {8192, 0, 0}};
  for (ReduceCase& c : cases) {
    if (num_ranks != 2) c.peer = c.target = 0;
  }
  return cases;
}

// Of all_reduce_bench.cu: prints its rows; true when all sums were right.
namespace testing {

bool BenchAllReduce(const std::vector<int>& devices, std::FILE* json);

constexpr int kHidden = 7168;
constexpr double kLinkGbs = 356;           // all-to-all stores, measured on such cards
constexpr int64_t kColdBytes = 160 << 20;  // of inputs that take turns

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

// A figure, and ours over it.
inline std::string Ratio(double ours, double other) {
  if (other <= 0) return "-";
  char text[48];
  std::snprintf(text, sizeof(text), "%.1f (%.2f)", other, ours / other);
  return text;
}

}  // namespace testing
}  // namespace moebius::cuda::exchange
