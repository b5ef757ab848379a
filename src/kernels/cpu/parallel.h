// When to use the pool: waking it and waiting for it costs one or two microseconds, so work below
// kMinParallelNs stays on the caller. Costs are rough estimates for one core.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "kernels/ops.h"

namespace moebius::kernels {

constexpr double kMinParallelNs = 6000;
constexpr double kTaskNs = 4000;  // aim of one task: long enough to hide its hand-out

// task(task_idx, thread_idx) for each task; total_ns is the cost of all.
template <typename Task>
void ForTasks(ExecContext& ctx, int64_t num_tasks, double total_ns, const Task& task) {
  if (total_ns < kMinParallelNs || ctx.pool == nullptr) {
    for (int64_t i = 0; i < num_tasks; ++i) task(i, 0);
  } else {
    ctx.pool->Run(num_tasks, task);
  }
}

// body(row) for each row.
template <typename Body>
void ForRows(ExecContext& ctx, int64_t rows, double ns_per_row, const Body& body) {
  const auto grain = static_cast<int64_t>(std::max(1.0, kTaskNs / ns_per_row));
  const int64_t num_tasks = (rows + grain - 1) / grain;
  ForTasks(ctx, num_tasks, ns_per_row * static_cast<double>(rows), [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * grain);
    for (int64_t row = task * grain; row < end; ++row) body(row);
  });
}

inline int NumThreads(const ExecContext& ctx) {
  return ctx.pool == nullptr ? 1 : ctx.pool->num_threads();
}

// Element `col` of a row, as the inner kernels take it.
inline Run RunAt(const Mat& m, int64_t row, int64_t col = 0) {
  return {m.RowBytes(row) + col * static_cast<int64_t>(SizeOf(m.dtype)), m.dtype};
}

}  // namespace moebius::kernels
