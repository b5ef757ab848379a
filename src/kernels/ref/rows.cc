// Operations that work on one row at a time.
#include <cmath>
#include <vector>

#include "kernels/latent_row.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {

void Embed(ExecContext& /*ctx*/, const EmbedArgs& args) {
  for (int64_t t = 0; t < args.out.rows; ++t) {
    for (int64_t c = 0; c < args.out.cols; ++c) {
      Put(args.out, t, c, Get(args.table, args.tokens[t], c));
    }
  }
}

void RmsNorm(ExecContext& /*ctx*/, const RmsNormArgs& args) {
  const int64_t cols = args.out.cols;
  const int64_t group = args.group == 0 ? cols : args.group;
  std::vector<double> row(cols);
  for (int64_t t = 0; t < args.out.rows; ++t) {
    for (int64_t c = 0; c < cols; ++c) {
      row[c] = args.x.data != nullptr ? Get(args.x, t, c) : 0.0;
      if (args.residual.data == nullptr) continue;
      Put(args.residual, t, c, Get(args.residual, t, c) + row[c]);
      row[c] = Get(args.residual, t, c);
    }
    for (int64_t begin = 0; begin < cols; begin += group) {
      double squares = 0;
      for (int64_t c = 0; c < group; ++c) squares += row[begin + c] * row[begin + c];
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(group) + args.eps);
      for (int64_t c = 0; c < group; ++c) {
        const double weight = args.weight.data != nullptr ? Get(args.weight, 0, c) : 1.0;
        Put(args.out, t, begin + c, row[begin + c] * factor * weight);
      }
    }
  }
}

void Add(ExecContext& /*ctx*/, const AddArgs& args) {
  for (int64_t t = 0; t < args.x.rows; ++t) {
    for (int64_t c = 0; c < args.x.cols; ++c) {
      Put(args.x, t, c, Get(args.x, t, c) + Get(args.y, t, c));
    }
  }
}

void Rope(ExecContext& /*ctx*/, const RopeArgs& args) {
  const int64_t half = args.dim / 2;
  const bool in_place = args.out.data == nullptr;
  const Mat& out = in_place ? args.x : args.out;
  std::vector<double> rotated(args.dim);
  for (int64_t t = 0; t < args.x.rows; ++t) {
    for (int64_t h = 0; h < args.num_heads; ++h) {
      const int64_t begin = h * args.head_stride + args.offset;
      for (int64_t i = 0; i < half; ++i) {
        const int64_t from_x = args.interleaved ? 2 * i : i;
        const int64_t from_y = args.interleaved ? 2 * i + 1 : i + half;
        const bool halves = !args.interleaved || args.deinterleave;
        const double x = Get(args.x, t, begin + from_x);
        const double y = Get(args.x, t, begin + from_y);
        const double cosine = Get(args.table, args.positions[t], i);
        const double sine = Get(args.table, args.positions[t], i + half);
        rotated[halves ? i : from_x] = x * cosine - y * sine;
        rotated[halves ? i + half : from_y] = y * cosine + x * sine;
      }
      const int64_t to = in_place ? begin : h * args.out_head_stride + args.out_offset;
      for (int64_t i = 0; i < args.dim; ++i) Put(out, t, to + i, rotated[i]);
    }
  }
}

void KvWrite(ExecContext& /*ctx*/, const KvWriteArgs& args) {
  for (int64_t t = 0; t < args.x.rows; ++t) {
    if (args.rows[t] < 0) continue;
    if (args.cache.dtype == DType::kF8E4M3) {
      StoreLatentRow({args.latent_dim, args.x.cols - args.latent_dim}, args.x.RowBytes(t),
                     args.x.dtype, args.cache.RowBytes(args.rows[t]));
      continue;
    }
    for (int64_t c = 0; c < args.x.cols; ++c) Put(args.cache, args.rows[t], c, Get(args.x, t, c));
  }
}

}  // namespace moebius::kernels::ref
