#include "plan/op_cost.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "plan/imbalance.h"
#include "plan/measured.h"
#include "plan/share_table.h"

namespace moebius::plan {
namespace {

constexpr int64_t kExpertProducts = 2;
constexpr int64_t kExpertMoves = 3;  // permutation, activation, weighted sum

double ModelUs(const Device& device, double peak, double flops, double bytes, int64_t launches) {
  return static_cast<double>(launches) * device.launch_us +
         kMicro * std::max(flops / peak, bytes / device.hbm_bandwidth);
}

OpCost Finish(const Device& device, OpCost cost, double peak,
              const std::optional<ShareTable::Share>& share, double compute_efficiency,
              Basis assumed = Basis::kRoofline) {
  if (share) {
    cost.us = ModelUs(device, peak, cost.flops, cost.bytes, cost.count) / share->share;
    cost.basis = share->exact_on == device.name ? Basis::kMeasured : Basis::kInterpolated;
    return cost;
  }
  cost.us = static_cast<double>(cost.count) * device.launch_us +
            kMicro * std::max(cost.flops / (peak * compute_efficiency),
                              cost.bytes / (device.hbm_bandwidth * device.memory_efficiency));
  cost.basis = assumed;
  return cost;
}

OpCost GemmWork(const Device& device, double m, double n, double k, double weight_bytes) {
  OpCost cost;
  cost.flops = 2 * m * n * k;
  cost.bytes = weight_bytes * n * k + ActivationBytes(device, weight_bytes) * m * k + 2 * m * n;
  return cost;
}

ShareTable::Shape GemmShape(double m, double n, double k, double weight_bytes) {
  // Rows matter most; the type of the weights is a kind of its own, hence the square.
  return {m, std::sqrt(n), std::sqrt(k), weight_bytes * weight_bytes};
}

const ShareTable& GemmTable(const Device& device) {
  static const ShareTable none;
  static const ShareTable hopper = [] {
    ShareTable table;
    for (const GemmRow& row : MeasuredGemms()) {
      const Device on = KnownDevice(row.device);
      const auto m = static_cast<double>(row.m);
      const auto n = static_cast<double>(row.n);
      const auto k = static_cast<double>(row.k);
      const OpCost work = GemmWork(on, m, n, k, row.weight_bytes);
      const double model = ModelUs(on, PeakFlops(on, row.weight_bytes), work.flops, work.bytes, 1);
      table.Add(GemmShape(m, n, k, row.weight_bytes),
                std::min(1.0, model / (work.flops / row.tflops / 1e6)), row.device);
    }
    return table;
  }();
  return device.measured_as == "h200" ? hopper : none;
}

ShareTable::Shape ExpertsAt(double slots, double rows, double expert_bytes, double weight_bytes) {
  return {slots, std::max(rows / slots, 0.1), std::sqrt(expert_bytes), weight_bytes * weight_bytes};
}

// The two products. What moves rows about is apart: it is bound by memory at every size.
OpCost ExpertsWork(const Device& device, const ExpertsShape& e) {
  const auto hidden = static_cast<double>(e.hidden);
  const auto width = static_cast<double>(e.width);
  const double act = ActivationBytes(device, e.weight_bytes);
  OpCost cost;
  cost.count = kExpertProducts;
  cost.flops = 6 * e.rows * hidden * width;
  cost.bytes = 3 * hidden * width * e.weight_bytes * e.slots_hit +
               e.rows * (hidden * act + 4 * width + width * act + 2 * hidden);
  return cost;
}

OpCost ExpertsMoves(const Device& device, const ExpertsShape& e) {
  const auto hidden = static_cast<double>(e.hidden);
  const auto width = static_cast<double>(e.width);
  const double act = ActivationBytes(device, e.weight_bytes);
  return Elementwise(device, e.rows * (2 * hidden * act + 4 * width + width * act + 4 * hidden),
                     kExpertMoves);
}

void AddExpertsRow(const ExpertsRow& row, ShareTable& table) {
  constexpr int64_t kExperts = 256;
  constexpr int64_t kTopK = 8;
  const Device on = KnownDevice(row.device);
  Imbalance imbalance;
  imbalance.zipf = kDeepSeekZipf;
  imbalance.balanced = true;
  const ExpertLoads loads(imbalance, kExperts, kTopK,
                          std::vector<int64_t>(static_cast<size_t>(row.ep), kExperts / row.ep));
  const int64_t tokens = row.tokens_per_rank * row.ep;
  const double busiest = loads.BusiestRank(tokens);
  ExpertsShape e;
  e.slots = static_cast<double>(kExperts) / row.ep;
  e.slots_hit = loads.SlotsHit(tokens, busiest);
  e.rows = static_cast<double>(row.tokens_per_rank * kTopK) * busiest;
  e.hidden = 7168;
  e.width = 2048;
  e.weight_bytes = row.weight_bytes;
  const OpCost work = ExpertsWork(on, e);
  const double model =
      ModelUs(on, PeakFlops(on, e.weight_bytes), work.flops, work.bytes, work.count);
  table.Add(ExpertsAt(e.slots, e.rows, 3 * 7168 * 2048 * e.weight_bytes, e.weight_bytes),
            std::min(1.0, model / (row.us - ExpertsMoves(on, e).us)), row.device);
}

void AddGroupedRow(const GroupedGemmRow& row, ShareTable& table) {
  const Device on = KnownDevice(row.device);
  const auto groups = static_cast<double>(row.groups);
  const auto rows = static_cast<double>(row.rows);
  const double nk = static_cast<double>(row.n) * static_cast<double>(row.k);
  const double flops = 2 * groups * rows * nk;
  const double bytes =
      groups * (row.weight_bytes * nk +
                rows * (ActivationBytes(on, row.weight_bytes) * static_cast<double>(row.k) +
                        2 * static_cast<double>(row.n)));
  const double model = ModelUs(on, PeakFlops(on, row.weight_bytes), flops, bytes, 1);
  table.Add(ExpertsAt(groups, groups * rows, 1.5 * nk * row.weight_bytes, row.weight_bytes),
            std::min(1.0, model / row.us), row.device);
}

const ShareTable& ExpertsTable(const Device& device) {
  static const ShareTable none;
  const auto fill = [](const std::string& family) {
    ShareTable table;
    for (const ExpertsRow& row : MeasuredExperts()) {
      if (row.device == family) AddExpertsRow(row, table);
    }
    for (const GroupedGemmRow& row : MeasuredGroupedGemms()) {
      if (row.device == family) AddGroupedRow(row, table);
    }
    return table;
  };
  static const ShareTable hopper = fill("h200");
  static const ShareTable blackwell = fill("gb200");
  if (device.measured_as == "h200") return hopper;
  return device.measured_as == "gb200" ? blackwell : none;
}

// Decoding attention reads its cache in fp8 products where the device is new enough for fp4 too:
// Hopper's kernels widen an fp8 cache to bf16 first.
double DecodePeak(const Device& device, double kv_element_bytes) {
  const bool fp8 = kv_element_bytes < 2 && device.fp4_flops > 0;
  return fp8 ? device.fp8_flops : device.bf16_flops;
}

double SeenBy(const AttentionShape& a) {  // cached tokens that a decode step reads of a request
  const int64_t all = a.cached + a.new_tokens;
  return static_cast<double>(a.window > 0 ? std::min(all, a.window) : all);
}

}  // namespace

OpCost& OpCost::operator+=(const OpCost& other) {
  us += other.us;
  flops += other.flops;
  bytes += other.bytes;
  count += other.count;
  basis = std::max(basis, other.basis);
  return *this;
}

double PeakFlops(const Device& device, double weight_bytes) {
  if (weight_bytes >= 2) return device.bf16_flops;
  if (weight_bytes >= 1 || device.fp4_flops == 0) {
    return device.fp8_flops > 0 ? device.fp8_flops : device.bf16_flops;
  }
  return device.fp4_flops;
}

double ActivationBytes(const Device& device, double weight_bytes) {
  if (weight_bytes >= 2) return 2;
  if (weight_bytes >= 1 || device.fp4_flops == 0) return 1 + 4.0 / 128;
  return weight_bytes;
}

OpCost Gemm(const Device& device, int64_t m, int64_t n, int64_t k, double weight_bytes) {
  const auto rows = static_cast<double>(m);
  const auto columns = static_cast<double>(n);
  const auto depth = static_cast<double>(k);
  return Finish(
      device, GemmWork(device, rows, columns, depth, weight_bytes), PeakFlops(device, weight_bytes),
      GemmTable(device).At(GemmShape(rows, columns, depth, weight_bytes)), device.gemm_efficiency);
}

OpCost Elementwise(const Device& device, double bytes, int64_t launches) {
  OpCost cost;
  cost.bytes = bytes;
  cost.count = launches;
  return Finish(device, cost, device.bf16_flops, std::nullopt, 1, device.basis);
}

OpCost MlaDecode(const Device& device, const AttentionShape& a) {
  const auto latent = static_cast<double>(a.kv_lora_rank + a.rope_dim);
  const double both = latent + static_cast<double>(a.kv_lora_rank);
  const auto queries = static_cast<double>(a.requests * a.new_tokens * a.heads);
  const double seen = SeenBy(a);
  OpCost cost;
  cost.count = 2;  // split over the cache, then joined
  cost.flops = 2 * queries * both * seen;
  cost.bytes =
      static_cast<double>(a.requests) * seen * latent * a.kv_element_bytes + queries * both * 2;
  return Finish(device, cost, DecodePeak(device, a.kv_element_bytes), std::nullopt,
                device.attention_efficiency);
}

OpCost MlaAbsorb(const Device& device, const AttentionShape& a, int64_t tokens,
                 int64_t qk_nope_head_dim) {
  const auto heads = static_cast<double>(a.heads);
  const auto rank = static_cast<double>(a.kv_lora_rank);
  const auto rows = static_cast<double>(tokens);
  const auto dims = static_cast<double>(qk_nope_head_dim + a.v_head_dim);
  OpCost cost;
  cost.count = 2;
  cost.flops = 2 * rows * heads * dims * rank;
  cost.bytes = 2 * heads * dims * rank + 2 * rows * heads * (dims + 2 * rank);
  return Finish(device, cost, device.bf16_flops, std::nullopt, device.gemm_efficiency);
}

OpCost ContextAttention(const Device& device, const AttentionShape& a) {
  const auto fresh = static_cast<double>(a.new_tokens);
  const auto all = static_cast<double>(a.new_tokens + a.cached);
  const double before = all - fresh;
  double pairs = (all * all - before * before) / 2;
  if (a.window > 0) pairs = std::min(pairs, fresh * static_cast<double>(a.window));
  const auto requests = static_cast<double>(a.requests);
  const auto dims = static_cast<double>(a.head_dim + a.v_head_dim);
  OpCost cost;
  cost.flops = 2 * requests * static_cast<double>(a.heads) * dims * pairs;
  cost.bytes =
      2 * requests *
      (static_cast<double>(a.heads) * dims * fresh + static_cast<double>(a.kv_heads) * dims * all);
  return Finish(device, cost, device.bf16_flops, std::nullopt, device.attention_efficiency);
}

OpCost GqaDecode(const Device& device, const AttentionShape& a) {
  const auto dims = static_cast<double>(a.head_dim + a.v_head_dim);
  const auto queries = static_cast<double>(a.requests * a.new_tokens * a.heads);
  const double seen = SeenBy(a);
  OpCost cost;
  cost.count = 2;
  cost.flops = 2 * queries * dims * seen;
  cost.bytes = static_cast<double>(a.requests * a.kv_heads) * seen * dims * a.kv_element_bytes +
               queries * dims * 2;
  return Finish(device, cost, DecodePeak(device, a.kv_element_bytes), std::nullopt,
                device.attention_efficiency);
}

OpCost Experts(const Device& device, const ExpertsShape& e) {
  const double expert_bytes = 3.0 * static_cast<double>(e.hidden * e.width) * e.weight_bytes;
  OpCost cost =
      Finish(device, ExpertsWork(device, e), PeakFlops(device, e.weight_bytes),
             ExpertsTable(device).At(ExpertsAt(e.slots, e.rows, expert_bytes, e.weight_bytes)),
             device.gemm_efficiency);
  const OpCost moves = ExpertsMoves(device, e);
  cost.us += moves.us;
  cost.bytes += moves.bytes;
  cost.count += moves.count;
  return cost;
}

}  // namespace moebius::plan
