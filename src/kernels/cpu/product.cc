#include "kernels/cpu/product.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/parallel.h"

namespace moebius::kernels {
namespace {

constexpr int64_t kMaxRowBlock = 96;
constexpr int64_t kMaxSums = kMaxRowBlock * 8 * kPanelRows;  // floats of a task's sums
constexpr int64_t kMaxInputs = 48 * 1024;                    // floats of a task's activations
constexpr double kBytesPerNs = 12;                           // streaming weights, one core
constexpr double kMacsPerNs = 50;

struct ProductScratch {
  float* inputs;
  float* sums;
  std::byte* half;
};

int64_t WeightBytes(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : format == WeightFormat::kBF16 ? 2 : 1;
}

MultiplyArgs::Kind KindOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return MultiplyArgs::Kind::kF32;
    case WeightFormat::kBF16:
      return MultiplyArgs::Kind::kBF16;
    case WeightFormat::kFp8Block:
      break;
  }
  return MultiplyArgs::Kind::kFp8;
}

int64_t PanelBytes(const PackedWeight& w) {
  return kPanelRows * w.padded_k() * WeightBytes(w.format);
}

// Rows and panels of a task. Few rows: streaming weights is the cost, so a task is a stretch of
// panels of up to half a megabyte, small enough that every thread gets several. Many rows: blocks
// whose sums and activations fit the second-level cache.
void CutJob(ProductJob& job, int64_t total_bytes, int num_threads) {
  const PackedWeight& w = *job.w;
  const int64_t row_blocks = (job.out.rows + kMaxRowBlock - 1) / kMaxRowBlock;
  job.row_block = (job.out.rows + row_blocks - 1) / row_blocks;
  const int64_t bytes = std::clamp<int64_t>(total_bytes / (num_threads * 8), 32 << 10, 512 << 10);
  const int64_t unit = w.gated ? 2 : w.num_panels() >= 4 * num_threads ? 4 : 1;
  int64_t panels = std::max<int64_t>(bytes / PanelBytes(w) / unit, 1) * unit;
  panels = std::min(panels, kMaxSums / (job.row_block * kPanelRows) / unit * unit);
  job.panel_block = std::min(panels, w.num_panels());
}

int64_t NumTasks(const ProductJob& job) {
  return ((job.out.rows + job.row_block - 1) / job.row_block) *
         ((job.w->num_panels() + job.panel_block - 1) / job.panel_block);
}

// Activations of `count` rows, inputs [k0, k0 + k), as float32 padded with zeros.
void GatherInputs(const CpuKernels& cpu, const ProductJob& job, const ProductOptions& options,
                  int64_t row0, int64_t count, int64_t k0, int64_t k, float* inputs) {
  const int64_t valid = std::min(k, job.w->k - k0);
  for (int64_t r = 0; r < count; ++r) {
    int64_t row = row0 + r;
    float scale = 1.0f;
    if (!options.pairs.empty()) {
      const int32_t pair = options.pairs[job.place + row];
      row = pair / options.rows_per_pair;
      if (!options.row_scale.empty()) scale = options.row_scale[pair];
    }
    cpu.to_f32(RunAt(job.a, row, k0), valid, scale, inputs + r * k, k);
  }
}

void RunTask(const CpuKernels& cpu, const ProductJob& job, const ProductOptions& options,
             int64_t task, const ProductScratch& scratch) {
  const PackedWeight& w = *job.w;
  const int64_t row_blocks = (job.out.rows + job.row_block - 1) / job.row_block;
  const int64_t row0 = task % row_blocks * job.row_block;
  const int64_t rows = std::min(job.row_block, job.out.rows - row0);
  const int64_t panel0 = task / row_blocks * job.panel_block;
  const int64_t panels = std::min(job.panel_block, w.num_panels() - panel0);
  const int64_t k_block = std::max<int64_t>(kMaxInputs / rows / kScaleBlock, 1) * kScaleBlock;

  MultiplyArgs args;
  args.kind = KindOf(w.format);
  args.a = scratch.inputs;
  args.rows = rows;
  args.panel_bytes = PanelBytes(w);
  args.panels = panels;
  args.scale_stride = w.num_scale_blocks();
  args.sums = scratch.sums;
  args.sums_stride = panels * kPanelRows;
  args.scratch = scratch.half;
  std::fill_n(scratch.sums, rows * args.sums_stride, 0.0f);
  for (int64_t k0 = 0; k0 < w.padded_k(); k0 += k_block) {
    args.k = std::min(k_block, w.padded_k() - k0);
    args.a_stride = args.k;
    args.w = static_cast<const std::byte*>(w.data) + panel0 * args.panel_bytes +
             k0 * kPanelRows * WeightBytes(w.format);
    if (w.scales != nullptr) {
      args.scales = w.scales + panel0 * args.scale_stride + k0 / kScaleBlock;
    }
    GatherInputs(cpu, job, options, row0, rows, k0, args.k, scratch.inputs);
    cpu.multiply(args);
  }

  const int64_t col0 = panel0 / (w.gated ? 2 : 1) * kPanelRows;
  const int64_t cols = std::min(panels / (w.gated ? 2 : 1) * kPanelRows, w.n - col0);
  for (int64_t r = 0; r < rows; ++r) {
    const float* sums = scratch.sums + r * args.sums_stride;
    const Run out = RunAt(job.out, row0 + r, col0);
    if (w.gated) {
      cpu.finish_gated(sums, cols, out);
    } else {
      cpu.finish(sums, cols, options.bias == nullptr ? nullptr : options.bias + col0,
                 options.accumulate, out);
    }
  }
}

}  // namespace

void RunProduct(ExecContext& ctx, std::span<ProductJob> jobs, const ProductOptions& options) {
  if (jobs.empty()) return;
  const CpuKernels& cpu = *ctx.backend->cpu;
  const int num_threads = NumThreads(ctx);
  const PackedWeight& w = *jobs[0].w;
  const int64_t weight_bytes = w.num_panels() * PanelBytes(w);
  const int64_t total_bytes = weight_bytes * static_cast<int64_t>(jobs.size());
  int64_t num_tasks = 0;
  int64_t rows = 0;
  for (ProductJob& job : jobs) {
    CutJob(job, total_bytes, num_threads);
    job.first_task = num_tasks;
    num_tasks += NumTasks(job);
    rows += job.out.rows;
  }
  const double macs = static_cast<double>(rows * w.num_panels() * kPanelRows * w.padded_k());
  const double ns = std::max(static_cast<double>(total_bytes) / kBytesPerNs, macs / kMacsPerNs);

  ArenaScope scope(*ctx.workspace);
  auto* scratch =
      static_cast<ProductScratch*>(ctx.workspace->Alloc(sizeof(ProductScratch) * num_threads));
  for (int t = 0; t < num_threads; ++t) {
    scratch[t].inputs = ctx.workspace->Alloc<float>(kMaxInputs);
    scratch[t].sums = ctx.workspace->Alloc<float>(kMaxSums);
    scratch[t].half = static_cast<std::byte*>(ctx.workspace->Alloc(kMultiplyScratch));
  }
  ForTasks(ctx, num_tasks, ns, [&](int64_t task, int thread_idx) {
    const auto next = std::upper_bound(
        jobs.begin(), jobs.end(), task,
        [](int64_t value, const ProductJob& job) { return value < job.first_task; });
    const ProductJob& job = *(next - 1);
    RunTask(cpu, job, options, task - job.first_task, scratch[thread_idx]);
  });
}

}  // namespace moebius::kernels
