// The exchange on the host, one value at a time: what every rank must hold after each half. For
// tests and the benchmark.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/exchange/protocol.h"

namespace moebius::cuda::exchange::testing {

using Bf16 = __nv_bfloat16;
using Rng = std::mt19937_64;

// What one rank puts into one call.
struct Tokens {
  int count = 0;
  std::vector<Bf16> rows;      // [max_tokens, hidden]
  std::vector<int32_t> slots;  // [max_tokens, k]
  std::vector<float> weights;  // [max_tokens, k]
};

enum class Routing { kUniform, kOneRank, kAllRanks, kHotExpert, kSomeNone, kAllNone };

inline Tokens DrawTokens(Rng& rng, const Shape& s, int count, Routing routing) {
  Tokens t;
  t.count = count;
  t.rows.resize(size_t{static_cast<size_t>(s.max_tokens)} * s.hidden);
  t.slots.assign(size_t{static_cast<size_t>(s.max_tokens)} * s.top_k, -1);
  t.weights.resize(t.slots.size());
  for (int64_t i = 0; i < int64_t{count} * s.hidden; ++i) {
    // Blocks of zeros now and then: their scale is 1.
    const uint64_t bits = rng();
    const bool zero = i / kScaleBlock % 37 == 5;
    const float sum =
        static_cast<float>(bits & 0xffff) + static_cast<float>(bits >> 16 & 0xffff) - 65535.0f;
    t.rows[i] = __float2bfloat16(zero ? 0.0f : sum * 3e-5f);
  }
  const int top_rank = static_cast<int>(rng() % s.num_ranks);
  for (int token = 0; token < count; ++token) {
    int32_t* slots = &t.slots[size_t{static_cast<size_t>(token)} * s.top_k];
    for (int j = 0; j < s.top_k; ++j) {
      t.weights[size_t{static_cast<size_t>(token)} * s.top_k + j] =
          static_cast<float>(rng() % 1024 + 1) / 3000.0f;
      for (int attempt = 0; attempt < 64; ++attempt) {
        int slot = static_cast<int>(rng() % s.num_slots());
        const int there = slot % s.slots_per_rank;
        if (routing == Routing::kOneRank) slot = top_rank * s.slots_per_rank + there;
        if (routing == Routing::kAllRanks) slot = j % s.num_ranks * s.slots_per_rank + there;
        if (routing == Routing::kHotExpert && j == s.top_k / 2) slot = s.num_slots() / 3;
        if (routing == Routing::kSomeNone && rng() % 3 == 0) break;
        if (routing == Routing::kAllNone) break;
        if (std::find(slots, slots + j, slot) == slots + j) {
          slots[j] = slot;
          break;
        }
      }
    }
  }
  return t;
}

// A row as it travels: e4m3 bytes and scales, or bf16.
struct WireRow {
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
};

inline WireRow ToWire(const Shape& s, const Bf16* row) {
  WireRow wire;
  if (s.format == RowFormat::kBf16) {
    wire.bytes.resize(size_t{2} * s.hidden);
    std::memcpy(wire.bytes.data(), row, wire.bytes.size());
    return wire;
  }
  for (int block = 0; block < s.hidden / kScaleBlock; ++block) {
    float largest = 0;
    for (int c = 0; c < kScaleBlock; ++c) {
      largest = std::max(largest, std::fabs(__bfloat162float(row[block * kScaleBlock + c])));
    }
    const float scale = largest > 0 ? std::max(largest / 448.0f, 1.2e-38f) : 1.0f;
    const float inverse = 1.0f / scale;
    for (int c = 0; c < kScaleBlock; ++c) {
      const float x = __bfloat162float(row[block * kScaleBlock + c]) * inverse;
      wire.bytes.push_back(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
    }
    wire.scales.push_back(scale);
  }
  return wire;
}

// What the tests' experts compute: the row times a factor of the slot.
__host__ __device__ inline float ExpertFactor(int slot) {
  return 0.5f + 0.25f * static_cast<float>(slot % 7);
}
inline float WireValue(const Shape& s, const WireRow& row, int column) {
  if (s.format == RowFormat::kBf16) {
    Bf16 value;
    std::memcpy(&value, &row.bytes[size_t{2} * column], 2);
    return __bfloat162float(value);
  }
  __nv_fp8_e4m3 value;
  value.__x = row.bytes[column];
  return static_cast<float>(value) * row.scales[column / kScaleBlock];
}

// The pairs of one receiving rank in the order of its rows.
struct Place {
  int source;
  int token;
  int choice;
};
struct Grouped {
  std::vector<int32_t> offsets;
  std::vector<Place> places;
};

inline Grouped GroupFor(const Shape& s, int rank, const std::vector<const Tokens*>& sources) {
  std::vector<std::vector<Place>> by_slot(s.slots_per_rank);
  for (int source = 0; source < s.num_ranks; ++source) {
    const Tokens& t = *sources[source];
    for (int token = 0; token < t.count; ++token) {
      for (int j = 0; j < s.top_k; ++j) {
        const int slot = t.slots[size_t{static_cast<size_t>(token)} * s.top_k + j];
        if (slot >= 0 && slot / s.slots_per_rank == rank) {
          by_slot[slot % s.slots_per_rank].push_back({source, token, j});
        }
      }
    }
  }
  Grouped grouped;
  grouped.offsets.push_back(0);
  for (const auto& places : by_slot) {
    grouped.places.insert(grouped.places.end(), places.begin(), places.end());
    grouped.offsets.push_back(static_cast<int32_t>(grouped.places.size()));
  }
  return grouped;
}

// One column of a token's result; expert(slot, choice) gives its experts' bf16 values.
template <class Expert>
float CombineColumn(const Shape& s, const int32_t* slots, const float* weights, float shared,
                    const Expert& expert) {
  float sum = 0;
  if (s.deterministic) {
    for (int j = 0; j < s.top_k; ++j) {
      if (slots[j] >= 0) sum = std::fmaf(weights[j], expert(slots[j], j), sum);
    }
  } else {
    for (int r = 0; r < s.num_ranks; ++r) {
      float partial = 0;
      bool any = false;
      for (int j = 0; j < s.top_k; ++j) {
        if (slots[j] < 0 || slots[j] / s.slots_per_rank != r) continue;
        partial = std::fmaf(weights[j], expert(slots[j], j), partial);
        any = true;
      }
      if (any) sum += __bfloat162float(__float2bfloat16(partial));
    }
  }
  return sum + shared;
}

}  // namespace moebius::cuda::exchange::testing
