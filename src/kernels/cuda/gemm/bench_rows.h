// The rows of the grouped GEMM benchmark: sizes, and the peers' figures on the same kind of card
// where one was measured.
#pragma once

#include <string>
#include <vector>

#include "kernels/tuning/grouped_gemm_tiles.h"

namespace moebius::cuda {

struct BenchRow {
  std::string section;
  tuning::GemmFormat format;
  int groups;
  int rows;     // expected a group
  bool ragged;  // rows drawn from 0.7 to 1.3 times that, as the peer's test does; 1 group: all rows
  int n;
  int k;
  double peer_us;      // 0: none
  double peer_tflops;  // 0: none
};

inline std::vector<BenchRow> BenchRows() {
  using tuning::GemmFormat;
  constexpr GemmFormat kFp8 = GemmFormat::kFp8Block;
  constexpr int kShapes[4][2] = {{6144, 7168}, {7168, 3072}, {4096, 4096}, {4096, 2048}};
  struct PeerSection {
    const char* name;
    int groups;
    int rows;
    double us[4];
    double tflops[4];
  };
  // DeepGEMM, June 2026, on one H200; its times include a small kernel that transposes scales.
  constexpr PeerSection kPeer[] = {
      {"32 x ~20", 32, 20, {378, 208, 159, 89}, {}},
      {"6 x ~20", 6, 20, {84, 50, 43, 27}, {}},
      {"32 x ~192", 32, 192, {}, {976, 890, 860, 769}},
      {"6 x ~1024", 6, 1024, {}, {1323, 1234, 1208, 1090}},
      {"4 x ~8192", 4, 8192, {}, {1454, 1361, 1399, 1338}},
  };
  std::vector<BenchRow> rows;
  for (const PeerSection& peer : kPeer) {
    for (int i = 0; i < 4; ++i) {
      rows.push_back({peer.name, kFp8, peer.groups, peer.rows, true, kShapes[i][0], kShapes[i][1],
                      peer.us[i], peer.tflops[i]});
    }
  }
  for (const auto& [n, k] : {std::pair{4096, 7168}, std::pair{7168, 2048}}) {
    for (const int groups : {4, 8, 32}) {
      for (const int count : {1, 4, 16, 64, 256}) {
        rows.push_back({"DeepSeek-V3", kFp8, groups, count, false, n, k, 0, 0});
      }
    }
  }
  // One group of all rows: DeepSeek-V3's dense products. Output, shared expert, queries.
  for (const auto& [n, k] : {std::pair{7168, 16384}, std::pair{4096, 7168}, std::pair{7168, 2048},
                             std::pair{24576, 1536}}) {
    for (const int count : {96, 128, 192, 256, 512, 1024}) {
      rows.push_back({"dense", kFp8, 1, count, false, n, k, 0, 0});
    }
  }
  // Prompts of 8192 tokens a step: Qwen3-30B-A3B's experts, and a quarter of DeepSeek-V3's with all
  // their rows.
  rows.push_back({"prefill", GemmFormat::kBf16, 128, 512, true, 1536, 2048, 0, 0});
  rows.push_back({"prefill", GemmFormat::kBf16, 128, 512, true, 2048, 768, 0, 0});
  rows.push_back({"prefill", kFp8, 64, 1024, true, 4096, 7168, 0, 0});
  rows.push_back({"prefill", kFp8, 64, 1024, true, 7168, 2048, 0, 0});
  // torch 2.11 _grouped_mm.
  constexpr int kCounts[5] = {1, 16, 64, 256, 1024};
  constexpr double kTorch[5] = {654, 626, 606, 692, 2572};
  for (int i = 0; i < 5; ++i) {
    rows.push_back({"bf16", GemmFormat::kBf16, 32, kCounts[i], false, 4096, 7168, kTorch[i], 0});
  }
  return rows;
}

}  // namespace moebius::cuda
