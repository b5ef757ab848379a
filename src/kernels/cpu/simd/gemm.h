// The matrix product's inner kernels over Vec: register tiles of R rows x P panels. The order of
// sums is the contract of MultiplyArgs; tile shapes do not enter it.
#pragma once

#include <type_traits>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/vec.h"

namespace moebius::kernels {
namespace {

// A weight line of 16 outputs x 2 inputs, by format.
struct LineF32 {
  static constexpr int64_t kBytes = 128;
  static void Split(const std::byte* line, Vec& even, Vec& odd) {
    even = Load(reinterpret_cast<const float*>(line));
    odd = Load(reinterpret_cast<const float*>(line) + kLanes);
  }
};
struct LineBf16 {
  static constexpr int64_t kBytes = 64;
  static void Split(const std::byte* line, Vec& even, Vec& odd) { SplitBf16(line, even, odd); }
};
// e4m3: a block of 32 inputs becomes half precision first (Fp8ToHalf), kHalfBlock bytes a panel.
struct LineFp8 {
  static constexpr int64_t kBytes = 64;
  static constexpr int64_t kPackedBlock = 32 * kLanes;
  static constexpr int64_t kHalfBlock = 2 * kPackedBlock;
  static void Split(const std::byte* line, Vec& even, Vec& odd) {
    even = LoadHalf(reinterpret_cast<const uint16_t*>(line));
    odd = LoadHalf(reinterpret_cast<const uint16_t*>(line) + kLanes);
  }
};

struct Tile {
  const float* a;
  int64_t a_stride;
  const std::byte* w;
  int64_t panel_bytes;
  int64_t k;            // multiple of 32
  const float* scales;  // null: add to sums as they are
  int64_t scale_stride;
  float* sums;
  int64_t sums_stride;
  // How many bytes ahead of the line in use to ask for: the first tile of rows, and those after it,
  // which find their own lines in the cache. 0: nothing.
  int64_t prefetch;
  int64_t later_prefetch;
};

// Where the hardware's prefetchers stop (at every page, and at every jump from panel to panel) the
// next lines would be late; asking 2 KB ahead is worth 10 to 40 % of bandwidth.
constexpr int64_t kPrefetch = 2048;
inline void Prefetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

#if defined(__AVX512F__)
constexpr int kMaxTileRows = 6;
constexpr int TilePanels(int rows) { return rows <= 3 ? 4 : 2; }
#else
constexpr int kMaxTileRows = 3;
constexpr int TilePanels(int rows) { return rows == 1 ? 2 : 1; }
#endif

template <typename Line, int R, int P>
void MultiplyTile(const Tile& t) {
  Vec sum[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      sum[r][p] = t.scales != nullptr ? Zero() : Load(t.sums + r * t.sums_stride + p * kLanes);
    }
  }
  constexpr bool kFp8 = std::is_same_v<Line, LineFp8>;
  alignas(64) std::byte halves[kFp8 ? P * LineFp8::kHalfBlock : 64];
  const float* a = t.a;
  const std::byte* next = t.w;
  for (int64_t k = 0; k < t.k; k += 32) {
    const std::byte* w = next;
    int64_t panel_bytes = t.panel_bytes;
    if constexpr (kFp8) {
      for (int64_t p = 0; p < P; ++p) {
        for (int64_t i = 0; i < LineFp8::kPackedBlock; i += 64) {
          const std::byte* in = w + p * panel_bytes + i;
          Prefetch(in + t.prefetch);
          Fp8ToHalf(in, reinterpret_cast<uint16_t*>(halves + p * LineFp8::kHalfBlock + 2 * i));
        }
      }
      w = halves;
      panel_bytes = LineFp8::kHalfBlock;
      next += LineFp8::kPackedBlock;
    } else {
      next += 16 * Line::kBytes;
    }
    Vec even[R][P];
    Vec odd[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) even[r][p] = odd[r][p] = Zero();
    }
    for (int pair = 0; pair < 16; ++pair, a += 2, w += Line::kBytes) {
      Vec w_even[P];
      Vec w_odd[P];
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        if constexpr (!kFp8) Prefetch(w + p * panel_bytes + t.prefetch);
        Line::Split(w + p * panel_bytes, w_even[p], w_odd[p]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec a_even = Set(a[r * t.a_stride]);
        const Vec a_odd = Set(a[r * t.a_stride + 1]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
          even[r][p] = Fma(a_even, w_even[p], even[r][p]);
          odd[r][p] = Fma(a_odd, w_odd[p], odd[r][p]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[r][p] = Add(sum[r][p], Add(even[r][p], odd[r][p]));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      float* out = t.sums + r * t.sums_stride + p * kLanes;
      Store(out, t.scales != nullptr ? Fma(sum[r][p], Set(t.scales[p * t.scale_stride]), Load(out))
                                     : sum[r][p]);
    }
  }
}

// R rows, all panels of the tile's group.
template <typename Line, int R>
void MultiplyPanels(Tile t, int64_t panels) {
  constexpr int kPanels = TilePanels(R);
  const auto advance = [&](int64_t count) {
    t.w += count * t.panel_bytes;
    t.sums += count * kLanes;
    if (t.scales != nullptr) t.scales += count * t.scale_stride;
  };
  for (; panels >= kPanels; panels -= kPanels, advance(kPanels)) {
    MultiplyTile<Line, R, kPanels>(t);
  }
  for (; panels > 0; --panels, advance(1)) MultiplyTile<Line, R, 1>(t);
}

template <typename Line>
void MultiplyTileRows(const Tile& t, int64_t rows, int64_t panels) {
  if (rows == 1) return MultiplyPanels<Line, 1>(t, panels);
  if (rows == 2) return MultiplyPanels<Line, 2>(t, panels);
  if (rows == 3) return MultiplyPanels<Line, 3>(t, panels);
  if constexpr (kMaxTileRows > 3 && !std::is_same_v<Line, LineFp8>) {
    if (rows == 4) return MultiplyPanels<Line, 4>(t, panels);
    if (rows == 5) return MultiplyPanels<Line, 5>(t, panels);
    if (rows == 6) return MultiplyPanels<Line, 6>(t, panels);
  }
}

// All rows against one group of panels, whose weights stay in the first-level cache meanwhile.
template <typename Line>
void MultiplyRows(Tile t, int64_t rows, int64_t panels) {
  const int64_t num_tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t begin = rows * tile / num_tiles;  // even tiles: no lone last row
    const int64_t count = rows * (tile + 1) / num_tiles - begin;
    Tile part = t;
    part.a += begin * t.a_stride;
    part.sums += begin * t.sums_stride;
    if (tile > 0) part.prefetch = t.later_prefetch;
    MultiplyTileRows<Line>(part, count, panels);
  }
}

constexpr int64_t ElementBytes(MultiplyArgs::Kind kind) {
  return kind == MultiplyArgs::Kind::kF32 ? 4 : kind == MultiplyArgs::Kind::kBF16 ? 2 : 1;
}

constexpr int64_t kPanelGroup = 4;
constexpr int64_t kMaxFp8Rows = 3;  // that LineFp8 takes
constexpr int64_t kBlock = 128;     // inputs that a scale covers, and of a block in scratch

// One block, many rows: to float32 in scratch, once for all of them.
inline void MultiplyExpanded(const MultiplyArgs& args, Tile t, int64_t panels) {
  constexpr int64_t kPanelBytes = kBlock * kLanes * 4;
  static_assert(kMultiplyScratch == kPanelGroup / 2 * kPanelBytes);
  const bool fp8 = args.kind == MultiplyArgs::Kind::kFp8;
  alignas(64) uint16_t halves[64];
  for (int64_t p = 0; p < panels; ++p) {
    const std::byte* in = t.w + p * t.panel_bytes;
    auto* out = reinterpret_cast<float*>(args.scratch + p * kPanelBytes);
    for (int64_t i = 0; i < t.k * kLanes; i += 64) {
      Prefetch(in + (fp8 ? i : 2 * i) + kPrefetch);
      if (fp8) Fp8ToHalf(in + i, halves);
      for (int64_t j = 0; j < 64; j += 2 * kLanes) {
        Vec even;
        Vec odd;
        if (fp8) {
          even = LoadHalf(halves + j);
          odd = LoadHalf(halves + j + kLanes);
        } else {
          SplitBf16(in + 2 * (i + j), even, odd);
        }
        Store(out + i + j, even);
        Store(out + i + j + kLanes, odd);
      }
    }
  }
  t.w = args.scratch;
  t.panel_bytes = kPanelBytes;
  t.prefetch = t.later_prefetch = 0;
  MultiplyRows<LineF32>(t, args.rows, panels);
}

template <typename Line>
void MultiplyDirect(const MultiplyArgs& args, Tile t, int64_t panels) {
  if (args.rows > kMaxTileRows) t.later_prefetch = t.k / 2 * Line::kBytes;  // the next block
  MultiplyRows<Line>(t, args.rows, panels);
}

inline void MultiplyGroup(const MultiplyArgs& args, const Tile& t, int64_t panels, bool expand) {
  if (expand) return MultiplyExpanded(args, t, panels);
  switch (args.kind) {
    case MultiplyArgs::Kind::kF32:
      return MultiplyDirect<LineF32>(args, t, panels);
    case MultiplyArgs::Kind::kBF16:
      return MultiplyDirect<LineBf16>(args, t, panels);
    case MultiplyArgs::Kind::kFp8:
      return MultiplyRows<LineFp8>(t, args.rows, panels);
  }
}

// A group of panels in blocks of k, each of which stays in the first-level cache for all rows.
inline void MultiplyBlocks(const MultiplyArgs& args, const Tile& group, int64_t panels,
                           bool expand) {
  const int64_t panel_bytes_per_k = kLanes * ElementBytes(args.kind);
  float scales[kPanelGroup];
  for (int64_t k = 0; k < args.k; k += kBlock) {
    Tile t = group;
    t.a += k;
    t.w += k * panel_bytes_per_k;
    t.k = args.k - k < kBlock ? args.k - k : kBlock;
    if (t.scales != nullptr) {
      for (int64_t p = 0; p < panels; ++p) {
        scales[p] = group.scales[p * group.scale_stride + k / kBlock] * 256.0f;  // halves: 2^-8
      }
      t.scales = scales;
      t.scale_stride = 1;
    }
    MultiplyGroup(args, t, panels, expand);
  }
}

inline void Multiply(const MultiplyArgs& args) {
  const bool fp8 = args.kind == MultiplyArgs::Kind::kFp8;
  // Conversion once for all rows pays sooner where it costs more.
  const bool expand = fp8 ? args.rows > kMaxFp8Rows
                          : args.kind == MultiplyArgs::Kind::kBF16 && args.rows > 2 * kMaxTileRows;
  const int64_t group = expand ? kPanelGroup / 2 : kPanelGroup;
  for (int64_t p = 0; p < args.panels; p += group) {
    const int64_t panels = args.panels - p < group ? args.panels - p : group;
    Tile t = {
        args.a,  args.a_stride,     args.w + p * args.panel_bytes, args.panel_bytes, args.k,
        nullptr, args.scale_stride, args.sums + p * kLanes,        args.sums_stride, kPrefetch,
        0};
    if (fp8) t.scales = args.scales + p * args.scale_stride;
    if (fp8 || args.rows > kMaxTileRows) {
      MultiplyBlocks(args, t, panels, expand);
    } else {
      MultiplyGroup(args, t, panels, false);
    }
  }
}

inline void ToF32(Run in, int64_t n, float scale, float* out, int64_t padded_n) {
  WithType(in, [&](auto run) {
    for (int64_t i = 0; i < padded_n; i += kLanes) {
      Vec x = i < n ? run.Get(i, n - i) : Zero();
      if (scale != 1.0f) {
        x = Mul(x, Set(scale));
        if (in.dtype == DType::kBF16) x = RoundToBf16(x);
      }
      Store(out + i, x);
    }
  });
}

inline void Finish(const float* sums, int64_t n, const float* bias, bool accumulate, Run out) {
  WithType(out, [&](auto run) {
    for (int64_t i = 0; i < n; i += kLanes) {
      Vec x = Load(sums + i);
      if (bias != nullptr) x = Add(x, n - i < kLanes ? LoadN(bias + i, n - i) : Load(bias + i));
      if (accumulate) x = Add(x, run.Get(i, n - i));
      run.Put(i, x, n - i);
    }
  });
}

inline void FinishGated(const float* sums, int64_t n, Run out) {
  WithType(out, [&](auto run) {
    for (int64_t i = 0; i < n; i += kLanes) {
      run.Put(i, Mul(Silu(Load(sums + 2 * i)), Load(sums + 2 * i + kLanes)), n - i);
    }
  });
}

inline void FillGemm(CpuKernels& kernels) {
  kernels.multiply = Multiply;
  kernels.to_f32 = ToF32;
  kernels.finish = Finish;
  kernels.finish_gated = FinishGated;
}

}  // namespace
}  // namespace moebius::kernels
