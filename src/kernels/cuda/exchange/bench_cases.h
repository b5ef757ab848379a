// The rows of the exchange benchmark, with what was measured of the peers on two cards of this kind
// and what is aimed at (microseconds; 0: none).
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/exchange/exchange.h"

namespace moebius::cuda::exchange {

struct BenchCase {
  std::string name;
  Mode mode = Mode::kLatency;
  RowFormat format = RowFormat::kFp8;
  int tokens = 0;           // a rank
  int top_k = 8;            // of 256 experts, drawn evenly
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

inline std::vector<BenchCase> BenchCases() {
  std::vector<BenchCase> cases;
  // Peer: DeepEP V1 low-latency kernels, rows already quantised; at 128 the pair as called is 72.
  struct Small {
    int tokens;
    double dispatch, combine, both, target;
  };
  for (const Small& s :
       {Small{1, 0, 0, 0, 0}, Small{8, 15.4, 13.8, 0, 20}, Small{32, 17.9, 17.4, 0, 22},
        Small{128, 31.1, 40.3, 72, 30}, Small{512, 0, 0, 0, 0}}) {
    for (const bool early : {false, true}) {
      BenchCase c;
      c.name = early ? "latency, early launch" : "latency";
      c.tokens = s.tokens;
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
  // Peer: DeepEP V1 normal, 24 SMs, rows already quantised, no permutation.
  for (const RowFormat format : {RowFormat::kFp8, RowFormat::kBf16}) {
    BenchCase large;
    const bool fp8 = format == RowFormat::kFp8;
    large.mode = Mode::kThroughput;
    large.format = format;
    large.tokens = 4096;
    large.peer_dispatch = fp8 ? 245 : 344;
    large.peer_combine = 406;
    large.target_dispatch = fp8 ? 110 : 200;
    large.target_combine = 200;
    large.early_launch = true;
    large.name = "throughput, no fan-out, send 24 SMs, receive the rest";
    large.one_a_rank = true;
    large.send_blocks = 24;
    large.receive_blocks = 108;
    cases.push_back(large);
    large.one_a_rank = false;
    large.target_dispatch *= 1.5;
    large.target_combine *= 1.5;
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
  int rows;
  double peer;  // NCCL 2.28, graph replay
  double target;
};
inline std::vector<ReduceCase> ReduceCases() {
  return {{1, 11.4, 6}, {8, 10.5, 6}, {32, 13.0, 7}, {128, 29.2, 14}};
}

}  // namespace moebius::cuda::exchange
