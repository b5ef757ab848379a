// One row a layout, the ranked ones first. The columns never change with the question.
#include <fmt/core.h>

#include <array>

#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

constexpr std::array kCsvColumns = {"rank",
                                    "layout",
                                    "status",
                                    "reason",
                                    "gpus",
                                    "tensor_parallel_size",
                                    "data_parallel_size",
                                    "pipeline_parallel_size",
                                    "expert_parallel_size",
                                    "concurrency",
                                    "requests_per_rank",
                                    "experts_per_gpu_layer",
                                    "experts_per_gpu",
                                    "weight_bytes",
                                    "exchange_buffer_bytes",
                                    "activation_bytes",
                                    "kv_budget_bytes",
                                    "kv_bytes_per_token",
                                    "kv_copies",
                                    "distinct_kv_tokens",
                                    "sent_bytes_per_layer",
                                    "decode_step_ms",
                                    "prefill_ms",
                                    "ttft_ms",
                                    "tpot_ms",
                                    "output_tokens_per_s",
                                    "tokens_per_s_gpu",
                                    "tokens_per_s_user",
                                    "dollars_per_million_output_tokens",
                                    "basis"};

std::string Cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

class Row {
 public:
  template <typename T>
  Row& Add(const T& value) {
    cells_.push_back(fmt::format("{}", value));
    return *this;
  }
  Row& AddFigure(double value) {
    cells_.push_back(fmt::format("{:.6g}", value));
    return *this;
  }
  std::string Line() {
    cells_.resize(kCsvColumns.size());  // what a rejected layout has no figures for stays empty
    std::string line;
    for (size_t i = 0; i < cells_.size(); ++i) line += (i == 0 ? "" : ",") + Cell(cells_[i]);
    return line + "\n";
  }

 private:
  std::vector<std::string> cells_;
};

std::string EstimateRow(const PlanInput& input, size_t rank, const Estimate& e) {
  const layout::ParallelConfig& config = e.layout.config;
  Row row;
  row.Add(rank).Add(e.name()).Add(e.ok() ? "holds" : RejectedByName(e.rejected_by)).Add(e.reason);
  row.Add(e.gpus()).Add(config.tensor_parallel_size).Add(config.data_parallel_size);
  row.Add(config.pipeline_parallel_size).Add(e.layout.expert_parallel_size);
  row.Add(e.concurrency).Add(e.requests_per_rank).Add(ExpertsPerGpuLayer(e.layout));
  row.Add(ExpertsPerGpu(input.model, e.layout));
  row.Add(fmt::format("{:.0f}", e.memory.weights()));
  row.Add(fmt::format("{:.0f}", e.memory.exchange_buffers));
  row.Add(fmt::format("{:.0f}", e.memory.activations));
  row.Add(fmt::format("{:.0f}", e.memory.kv_budget));
  row.AddFigure(e.memory.kv_bytes_per_token).Add(e.memory.kv_copies);
  row.Add(e.memory.distinct_kv_tokens);
  row.Add(fmt::format("{:.0f}", e.traffic.per_layer()));
  row.AddFigure(e.decode_step_ms).AddFigure(e.prefill_ms).AddFigure(e.ttft_ms);
  row.AddFigure(e.tpot_ms).AddFigure(e.output_tokens_per_s).AddFigure(e.tokens_per_s_gpu);
  row.AddFigure(e.tokens_per_s_user);
  if (input.gpu_hour_price > 0) {
    row.AddFigure(e.dollars_per_million);
  } else {
    row.Add("");
  }
  row.Add(BasisName(e.basis));
  return row.Line();
}

}  // namespace

std::string CsvReport(const PlanReport& report) {
  std::string out;
  for (size_t i = 0; i < kCsvColumns.size(); ++i) {
    out += fmt::format("{}{}", i == 0 ? "" : ",", kCsvColumns[i]);
  }
  out += "\n";
  for (size_t i = 0; i < report.decision.ranked.size(); ++i) {
    out += EstimateRow(report.input, i + 1, report.decision.ranked[i]);
  }
  if (report.one_layout && report.decision.ranked.empty()) {
    std::string reason;
    for (const layout::Finding& finding : report.findings) {
      reason += fmt::format("{}{}: {} [{}]", reason.empty() ? "" : "; ",
                            SeverityName(finding.severity), finding.message, finding.rule);
    }
    const layout::ParallelConfig& config = report.named;
    Row row;
    row.Add("").Add(layout::ConfigName(config)).Add(RejectedByName(RejectedBy::kRule)).Add(reason);
    row.Add(config.wide_num_gpus()).Add(config.tensor_parallel_size);
    row.Add(config.data_parallel_size).Add(config.pipeline_parallel_size);
    out += row.Line();
  }
  for (const Rejection& rejection : report.decision.rejected) {
    Row row;
    row.Add("").Add(rejection.layout).Add(RejectedByName(rejection.by)).Add(rejection.reason);
    row.Add(rejection.gpus);
    out += row.Line();
  }
  return out;
}

}  // namespace moebius::plan
