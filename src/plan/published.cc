#include "plan/published.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "plan/search.h"
#include "plan/throughput.h"

namespace moebius::plan {
namespace {

ModelShape ModelOf(const PublishedRow& row) {
  Result<ModelShape> loaded = LoadModelShape(row.model);
  MOEBIUS_CHECK(loaded.has_value());
  ModelShape model = *std::move(loaded);
  constexpr double kNvfp4 = 0.5625;
  switch (row.weights) {
    case WeightKind::kAsStored:
      break;
    case WeightKind::kFp4:
      model.expert_weight_bytes = kNvfp4;
      model.weight_bytes = 2;
      break;
    case WeightKind::kFp4Fp8:
      model.expert_weight_bytes = kNvfp4;
      model.weight_bytes = 1;
      break;
    case WeightKind::kBf16Fp8:
      model.expert_weight_bytes = 1;
      model.weight_bytes = 2;
      break;
  }
  return model;
}

layout::ParallelLayout LayoutOf(const PublishedRow& row, const ModelShape& model,
                                const Device& device, int dp) {
  layout::ParallelConfig config;
  config.tensor_parallel_size = row.tp;
  config.data_parallel_size = dp;
  config.enable_expert_parallel = row.ep;
  config.enable_eplb = row.eplb && row.redundant > 0;
  config.num_redundant_experts = row.redundant;
  config.enable_dbo = row.two_batch;
  config.gpus_per_node = device.gpus_per_node;
  config.all2all_backend = row.gather ? layout::ExchangeBackend::kAllGatherReduceScatter
                                      : layout::ExchangeBackend::kAllToAll;
  return layout::MakeLayout(config, model.numbers);
}

int64_t ContextOf(const PublishedRow& row) {
  return row.context > 0 ? row.context : row.isl + row.osl / 2;
}

StepInput DecodeInput(const PublishedRow& row) {
  StepInput input;
  input.requests_per_rank = row.batch;
  input.context = ContextOf(row);
  input.imbalance.zipf = row.zipf;
  input.imbalance.balanced = row.eplb;
  input.kv_element_bytes = row.kv_bytes;
  input.two_batch_overlap = row.two_batch;
  input.mtp_tokens = row.mtp;
  input.plain_sum = row.kind == FigureKind::kSummed;
  return input;
}

StepInput PrefillInput(const PublishedRow& row, int64_t tokens) {
  StepInput input = DecodeInput(row);
  input.phase = Phase::kPrefill;
  input.context = 0;
  input.mtp_tokens = 1;
  input.prompt_tokens = std::min(row.isl, tokens);
  input.requests_per_rank = std::max<int64_t>(1, tokens / std::max<int64_t>(1, row.isl));
  if (tokens < row.isl) input.context = (row.isl - tokens) / 2;  // the middle chunk
  return input;
}

// One row's set-up, and its estimates.
class Setup {
 public:
  Setup(const PublishedRow& row, const Device& device)
      : row_(row), device_(device), model_(ModelOf(row)) {}

  layout::ParallelLayout Layout(int dp) const { return LayoutOf(row_, model_, device_, dp); }

  double Estimate(Basis& basis) const {
    const layout::ParallelLayout layout = Layout(row_.dp);
    switch (row_.compared) {
      case Compared::kOutputGain:
      case Compared::kTtftGain:
      case Compared::kPrefillGain:
        return Gain(basis);
      case Compared::kFreeKv:
        basis = Basis::kRoofline;
        return Loaded(Input(), layout).memory.kv_budget / 1e9;
      case Compared::kTpot:
        return DecodeTpotMs(Step(layout, DecodeInput(row_), basis), DecodeInput(row_));
      case Compared::kDecode:
        return Decode(layout, basis);
      case Compared::kUnderTpot:
        return Under(layout, basis);
      case Compared::kPrefill:
        return Prefill(layout, row_.batch, basis);
      case Compared::kServed: {
        Basis other;
        return ServedTokensPerSecPerGpu(
            Decode(layout, basis), Prefill(layout, kPromptTokens, other),
            static_cast<double>(row_.isl), static_cast<double>(row_.osl));
      }
      case Compared::kWidthGain: {
        Basis other;
        return Under(Layout(32), basis) / Under(Layout(8), other);
      }
      case Compared::kNone:
        break;
    }
    return 0;
  }

  static layout::ParallelConfig Config(const OtherLayout& sizes, const Device& device) {
    layout::ParallelConfig config;
    config.tensor_parallel_size = sizes.tp;
    config.data_parallel_size = sizes.dp;
    config.enable_expert_parallel = sizes.ep;
    config.gpus_per_node = device.gpus_per_node;
    return config;
  }

 private:
  PlanInput Input() const {
    PlanInput input;
    input.model = model_;
    input.device = device_;
    input.isl = row_.isl;
    input.osl = row_.osl;
    input.kv_element_bytes = row_.kv_bytes;
    input.imbalance.zipf = row_.zipf;
    input.imbalance.balanced = row_.eplb;
    return input;
  }
  plan::Estimate Loaded(const PlanInput& input, const layout::ParallelLayout& layout) const {
    return EstimateLayout(input, layout, row_.batch);
  }
  double Gain(Basis& basis) const {
    const PlanInput input = Input();
    double figures[2] = {0, 0};
    const OtherLayout sizes[2] = {{row_.tp, row_.dp, row_.ep}, row_.other};
    for (size_t i = 0; i < 2; ++i) {
      const plan::Estimate estimate =
          Loaded(input, SettleLayout(input, Config(sizes[i], device_), row_.batch));
      if (i == 0) basis = estimate.basis;
      switch (row_.compared) {
        case Compared::kOutputGain:
          figures[i] = estimate.output_tokens_per_s;
          break;
        case Compared::kTtftGain:
          figures[i] = estimate.ttft_ms;
          break;
        default:  // answers of one token: prompts a second
          figures[i] = estimate.output_tokens_per_s;
      }
    }
    return figures[0] / figures[1];
  }

  static constexpr int64_t kPromptTokens = 8192;  // of a prefill step where none is given

  StepTime Step(const layout::ParallelLayout& layout, const StepInput& input, Basis& basis) const {
    StepTime step = EstimateStep(model_, layout, device_, input);
    const auto largest =
        std::max_element(step.ops.begin(), step.ops.end(),
                         [](const OpTime& a, const OpTime& b) { return a.us < b.us; });
    basis = largest->basis;
    return step;
  }
  double Decode(const layout::ParallelLayout& layout, Basis& basis) const {
    const StepInput input = DecodeInput(row_);
    return static_cast<double>(row_.batch) * 1e3 / DecodeTpotMs(Step(layout, input, basis), input) /
           row_.tp;
  }
  double Under(const layout::ParallelLayout& layout, Basis& basis) const {
    const BestBatch best =
        TokensPerSecPerGpu(model_, layout, device_, DecodeInput(row_), row_.tpot_ms);
    basis = best.basis;
    return best.tokens_per_s_gpu;
  }
  double Prefill(const layout::ParallelLayout& layout, int64_t tokens, Basis& basis) const {
    const StepInput input = PrefillInput(row_, tokens);
    return PrefillTokensPerSecPerGpu(Step(layout, input, basis), input, layout);
  }

  const PublishedRow& row_;
  const Device& device_;
  ModelShape model_;
};

std::string LoadText(const PublishedRow& row) {
  std::string text;
  if (row.kind == FigureKind::kMemory) return "90 % of memory";
  if (row.kind == FigureKind::kOrdering) {
    text = fmt::format("{} in flight, {} in, {} out", row.batch, row.isl, row.osl);
  } else if (row.compared == Compared::kPrefill) {
    text = fmt::format("prompts of {}, {} tokens a rank", row.isl, row.batch);
  } else {
    if (row.batch > 0) text = fmt::format("{} a rank, ", row.batch);
    if (row.tpot_ms > 0) text = fmt::format("TPOT <= {:g} ms, ", row.tpot_ms);
    text += fmt::format("context {}", ContextOf(row));
  }
  if (row.two_batch) text += ", two batches";
  if (row.mtp > 1) text += fmt::format(", {:g} tokens a step", row.mtp);
  return text;
}

const char* UnitOf(Compared compared) {
  switch (compared) {
    case Compared::kTpot:
      return "ms";
    case Compared::kWidthGain:
      return "x";
    case Compared::kOutputGain:
      return "x output";
    case Compared::kTtftGain:
      return "x TTFT";
    case Compared::kPrefillGain:
      return "x prompt tok/s";
    case Compared::kFreeKv:
      return "GB for KV";
    case Compared::kPrefill:
      return "prompt tok/s/GPU";
    case Compared::kNone:
      return "";
    default:
      return "tok/s/GPU";
  }
}

PublishedComparison Compare(const PublishedRow& row) {
  PublishedComparison comparison;
  comparison.row = row;
  comparison.unit = UnitOf(row.compared);
  if (row.compared == Compared::kNone) return comparison;
  const Result<Device> device = LoadDevice(row.device);
  MOEBIUS_CHECK(device.has_value());
  const Setup setup(row, *device);
  comparison.layout = layout::ConfigName(setup.Layout(row.dp).config);
  if (row.compared == Compared::kWidthGain) comparison.layout = "EP32 over EP8";
  comparison.load = LoadText(row);
  comparison.estimate = setup.Estimate(comparison.basis);
  if (row.figure > 0) comparison.error = *comparison.estimate / row.figure - 1;
  if (row.kind == FigureKind::kOrdering) {
    comparison.layout += " over " + layout::ConfigName(Setup::Config(row.other, *device));
    const bool above = row.figure > 0 ? row.figure > 1 : row.above;
    comparison.same_sign = (*comparison.estimate > 1) == above;
  }
  return comparison;
}

}  // namespace

std::vector<PublishedComparison> ComparePublished() {
  std::vector<PublishedComparison> comparisons;
  for (const PublishedRow& row : PublishedRows()) comparisons.push_back(Compare(row));
  for (const PublishedRow& row : PublishedOrderings()) comparisons.push_back(Compare(row));
  return comparisons;
}

ErrorSummary Summarise(std::span<const PublishedComparison> rows, FigureKind kind) {
  ErrorSummary summary;
  std::vector<double> errors;
  for (const PublishedComparison& row : rows) {
    if (row.row.kind != kind) continue;
    ++summary.rows;
    if (row.estimate) ++summary.estimated;
    if (row.same_sign.value_or(false)) ++summary.same_sign;
    if (row.error) errors.push_back(std::abs(*row.error));
  }
  if (errors.empty()) return summary;
  std::sort(errors.begin(), errors.end());
  const size_t half = errors.size() / 2;
  summary.median = errors.size() % 2 == 1 ? errors[half] : (errors[half - 1] + errors[half]) / 2;
  for (double error : errors) {
    summary.within_15 += error <= 0.15 ? 1.0 / static_cast<double>(errors.size()) : 0;
    summary.within_30 += error <= 0.30 ? 1.0 / static_cast<double>(errors.size()) : 0;
  }
  return summary;
}

}  // namespace moebius::plan
