// What a wider expert group buys at a given time per token.
#include <algorithm>

#include "plan/decide.h"

namespace moebius::plan {
namespace {

constexpr int kWidths[] = {8, 16, 32, 64};
constexpr double kUsualTpotMs[] = {25, 33, 50, 100};
constexpr int64_t kMostRequests = 4096;  // a GPU

// The largest n in [0, kMostRequests] for which `holds` is true; it is true up to there and false
// beyond.
template <typename Holds>
int64_t Largest(const Holds& holds) {
  int64_t low = 0;
  int64_t high = 1;
  while (high <= kMostRequests && holds(high)) {
    low = high;
    high *= 2;
  }
  high = std::min(high, kMostRequests + 1);
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (holds(middle) ? low : high) = middle;
  }
  return low;
}

// One width: its layout, and its steps by requests a GPU.
class Width {
 public:
  Width(const PlanInput& input, int ep) : input_(input) {
    layout::ParallelConfig config = input.parallel;
    config.data_parallel_size = ep;
    config.enable_expert_parallel = true;
    // 64 requests a GPU: where the choices matter.
    legal_ = layout::IsLegal(CheckRules(config, input.model.numbers));
    if (legal_) layout_ = SettleLayout(input, config, 64L * ep);
  }
  bool legal() const { return legal_; }

  WidthPoint At(double tpot_ms) const {
    WidthPoint point;
    point.ep = layout_.config.data_parallel_size;
    point.experts_per_gpu_layer = ExpertsPerGpuLayer(layout_);
    point.experts_per_gpu = ExpertsPerGpu(input_.model, layout_);
    const int64_t in_time = Largest([&](int64_t n) { return Step(n).total_us <= tpot_ms * 1e3; });
    const int64_t in_memory = Largest([&](int64_t n) { return Fits(n); });
    point.requests_per_gpu = std::min(in_time, in_memory);
    point.bound_by_memory = in_memory < in_time;
    if (point.requests_per_gpu == 0) return point;
    const StepTime step = Step(point.requests_per_gpu);
    point.step_ms = step.total_us / 1e3;
    point.tokens_per_s_gpu = static_cast<double>(point.requests_per_gpu) / step.total_us * 1e6;
    point.basis = WeakestBasis(step);
    return point;
  }

 private:
  StepTime Step(int64_t requests) const {
    StepInput step;
    step.requests_per_rank = requests;
    step.context = input_.isl + input_.osl / 2;
    step.imbalance = input_.imbalance;
    step.imbalance.balanced |= layout_.config.enable_eplb;
    step.kv_element_bytes = input_.kv_element_bytes;
    step.two_batch_overlap = layout_.config.enable_dbo;
    StepTime time = EstimateStep(input_.model, layout_, input_.device, step);
    if (!step.two_batch_overlap) return time;
    step.two_batch_overlap = false;  // small batches are not cut
    StepTime whole = EstimateStep(input_.model, layout_, input_.device, step);
    return whole.total_us < time.total_us ? whole : time;
  }
  bool Fits(int64_t requests) const {
    MemoryInput memory;
    memory.hbm_bytes = input_.device.hbm_bytes;
    memory.utilization = input_.gpu_memory_utilization;
    memory.kv_element_bytes = input_.kv_element_bytes;
    memory.max_batched_tokens = input_.max_batched_tokens;
    memory.context = input_.isl + input_.osl;
    memory.max_decode_tokens = std::max<int64_t>(64, requests);
    return PlanMemory(input_.model, layout_, memory).kv_tokens_per_rank >=
           requests * (input_.isl + input_.osl);
  }

  const PlanInput& input_;
  bool legal_ = false;
  layout::ParallelLayout layout_;
};

}  // namespace

std::vector<WidthRow> WhatWidthBuys(const PlanInput& input, std::optional<double> tpot_ms) {
  if (input.parallel.own_ranks) return {};
  std::vector<Width> widths;
  for (const int ep : kWidths) {
    if (ep > input.model.numbers.num_experts) break;
    Width width(input, ep);
    if (width.legal()) widths.push_back(std::move(width));
  }
  std::vector<WidthRow> rows;
  if (widths.empty()) return rows;
  std::vector<double> limits(std::begin(kUsualTpotMs), std::end(kUsualTpotMs));
  if (tpot_ms) limits = {*tpot_ms};
  for (const double limit : limits) {
    WidthRow row;
    row.tpot_ms = limit;
    double narrow = 0;
    double wide = 0;
    for (const Width& width : widths) {
      row.points.push_back(width.At(limit));
      if (row.points.back().ep == 8) narrow = row.points.back().tokens_per_s_gpu;
      if (row.points.back().ep == 32) wide = row.points.back().tokens_per_s_gpu;
    }
    if (narrow > 0 && wide > 0) row.gain = wide / narrow;
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace moebius::plan
