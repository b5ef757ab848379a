// Operations that work on one row at a time.
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/latent_row.h"

namespace moebius::kernels::cpu {
namespace {

// Rough cost of touching one element once, one core.
constexpr double kNsPerElement = 0.15;

double RowNs(int64_t elements, double passes = 1) {
  return 20 + kNsPerElement * passes * static_cast<double>(elements);
}

}  // namespace

void Embed(ExecContext& ctx, const EmbedArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  ForRows(ctx, args.out.rows, RowNs(args.out.cols), [&](int64_t t) {
    if (args.table.dtype != DType::kF16) {
      cpu.convert(RunAt(args.table, args.tokens[t]), args.out.cols, RunAt(args.out, t));
      return;
    }
    const auto* row = args.table.Row<uint16_t>(args.tokens[t]);
    for (int64_t c = 0; c < args.out.cols; ++c) {
      StoreFloat(args.out.RowBytes(t), args.out.dtype, c, HalfToFloat(row[c]));
    }
  });
}

void RmsNorm(ExecContext& ctx, const RmsNormArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  const int64_t cols = args.out.cols;
  const int64_t group = args.group == 0 ? cols : args.group;
  ForRows(ctx, args.out.rows, RowNs(cols, 3), [&](int64_t t) {
    const Run x = args.x.data == nullptr ? Run{} : RunAt(args.x, t);
    float* residual = args.residual.data == nullptr ? nullptr : args.residual.Row<float>(t);
    cpu.rms_norm(x, residual, static_cast<const float*>(args.weight.data), args.eps, cols, group,
                 RunAt(args.out, t));
  });
}

void Add(ExecContext& ctx, const AddArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  ForRows(ctx, args.x.rows, RowNs(args.x.cols, 2),
          [&](int64_t t) { cpu.add(args.x.Row<float>(t), RunAt(args.y, t), args.x.cols); });
}

void Rope(ExecContext& ctx, const RopeArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  ForRows(ctx, args.x.rows, RowNs(args.num_heads * args.dim, 4), [&](int64_t t) {
    const float* cosines = args.table.Row<float>(args.positions[t]);
    for (int64_t h = 0; h < args.num_heads; ++h) {
      Run x = RunAt(args.x, t, h * args.head_stride + args.offset);
      if (args.out.data != nullptr) {
        const Run out = RunAt(args.out, t, h * args.out_head_stride + args.out_offset);
        cpu.convert(x, args.dim, out);
        x = out;
      }
      if (!args.interleaved) {
        cpu.rope_halves(x, cosines, args.dim / 2);
      } else {
        cpu.rope_pairs(x, cosines, args.dim / 2, args.deinterleave);
      }
    }
  });
}

void KvWrite(ExecContext& ctx, const KvWriteArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  if (args.cache.dtype == DType::kF8E4M3) {
    constexpr double kRoundings = 20;  // an element's, in passes over it
    ForRows(ctx, args.x.rows, RowNs(args.x.cols, kRoundings), [&](int64_t t) {
      if (args.rows[t] < 0) return;
      StoreLatentRow({args.latent_dim, args.x.cols - args.latent_dim}, args.x.RowBytes(t),
                     args.x.dtype, args.cache.RowBytes(args.rows[t]));
    });
    return;
  }
  ForRows(ctx, args.x.rows, RowNs(args.x.cols), [&](int64_t t) {
    if (args.rows[t] < 0) return;
    cpu.convert(RunAt(args.x, t), args.x.cols, RunAt(args.cache, args.rows[t]));
  });
}

void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  ForRows(ctx, args.out.rows, RowNs(args.out.cols, static_cast<double>(args.k) + 1),
          [&](int64_t t) {
            WeightedSumArgs sum;
            sum.rows = {args.rows.data, args.rows.dtype};
            sum.stride = args.rows.stride;
            sum.places = args.places.data() + t * args.k;
            sum.weights = args.weights.empty() ? nullptr : args.weights.data() + t * args.k;
            sum.count = args.k;
            if (args.shared.data != nullptr) sum.shared = RunAt(args.shared, t);
            cpu.weighted_sum(sum, args.out.cols, RunAt(args.out, t));
          });
}

}  // namespace moebius::kernels::cpu
