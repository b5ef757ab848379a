// A plan as text: for the terminal (at most 100 columns), as Markdown, as one HTML page that needs
// nothing from outside, as JSON and as CSV. Every time and rate stands with where it comes from
// (Basis). Pure functions, any thread.
//
// JSON, schema "moebius.plan/1": keys are only ever added, units are in the names, absent values
// are null, sizes are bytes, a basis is "measured", "interpolated" or "roofline".
//   schema, model {name, parameters, active_parameters, layers, moe_layers, hidden_size, attention
//     heads, kv_heads, mla, experts, top_k, activation_density}, device {name, title, hbm_bytes,
//     ...}
//   question {gpus[], objective, concurrency, isl, osl, ttft_ms, tpot_ms, gpu_memory_utilization,
//     kv_element_bytes, max_batched_tokens, zipf, gpu_hour_price}
//   layouts[]: best first, each as EstimateJson writes it: {layout, gpus, tensor_parallel_size,
//   ...,
//     status, reason, concurrency, requests_per_rank, experts_per_gpu {layer, total}, memory_bytes
//     {...}, kv {...}, traffic_bytes {...}, decode {ms, ops[] {name, us, count, flops, bytes,
//     basis}}, prefill {...}, ttft_ms, tpot_ms, output_tokens_per_s, tokens_per_s_gpu,
//     tokens_per_s_user, dollars_per_million_output_tokens, basis}
//   recommended, runner_up: names or null; crossover {concurrency, upwards, by_speed, text} or null
//   why[], bands[] {from, to, layout}, curves[] {layout, points[]}, width[] {tpot_ms, points[],
//     gain_ep32_over_ep8, published_gain}
//   rejected[] {layout, gpus, by, reason}
//   findings[] {rule, severity, message}, nearest_legal {layout, flags} or null, parts[] {part,
//     holding, ways, copies, before, after, text}: of one named layout, else empty
//   playbook {steps[], answer, decided, where_memory_is_tight, layouts[]} or null
//   commands {moebius[], vllm[]} or null
// CSV: one row a layout, ranked ones first, the same columns always (kCsvColumns in report_csv.cc).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "layout/rules.h"
#include "plan/decide.h"
#include "plan/launch.h"
#include "plan/playbook.h"
#include "plan/search.h"

namespace moebius::plan {

struct PlaybookReport {
  PlaybookAnswer answer;
  std::vector<Estimate> estimates;  // of its layouts that are legal
};

struct PlanReport {
  PlanInput input;
  Question question;
  Decision decision;  // of one named layout: ranked holds it alone, fitting or not
  bool one_layout = false;
  layout::ParallelConfig named;  // of one_layout: what was asked for
  // Of one_layout: all of them; with an error among them ranked is empty. Else the warnings about
  // the recommended layout.
  std::vector<layout::Finding> findings;
  std::optional<layout::ParallelConfig> nearest;  // the legal choice that changes least
  std::optional<PlaybookReport> playbook;
  std::optional<Launch> launch;  // of the first of ranked, if it holds
};

enum class ReportFormat : uint8_t { kTable, kJson, kCsv, kMarkdown, kHtml };
Result<ReportFormat> ParseReportFormat(const std::string& name);
std::string RenderReport(const PlanReport& report, ReportFormat format);

// For the terminal, of one named layout: what a rank holds, needs and sends, without times; then
// `verdict`, the caller's sentences. Of `decision` only layout, memory and traffic of the first are
// read.
std::string LayoutReport(const PlanReport& report, const std::vector<std::string>& verdict);

// Our estimates beside published and measured figures, every row of plan/published.h. JSON:
// "moebius.published/1": rows[] {device, model, layout, load, unit, published, estimate, error,
// basis, source, note}, summary[] {kind, rows, estimated, median_error, within_15, within_30}.
std::string RenderPublished(ReportFormat format);

// The pieces, one file each.
std::string TableReport(const PlanReport& report);
std::string MarkdownReport(const PlanReport& report);
std::string HtmlReport(const PlanReport& report);
std::string JsonReport(const PlanReport& report);
std::string CsvReport(const PlanReport& report);

}  // namespace moebius::plan
