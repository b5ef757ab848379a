// The report as JSON; report.h describes the schema.
#include <nlohmann/json.hpp>

#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

using nlohmann::ordered_json;

template <typename T>
ordered_json OrNull(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json ModelJson(const ModelShape& model) {
  const layout::ModelNumbers& numbers = model.numbers;
  ordered_json json;
  json["name"] = model.name;
  json["parameters"] = model.TotalParams();
  json["active_parameters"] = model.ActiveParams();
  json["layers"] = numbers.num_layers;
  json["moe_layers"] = model.num_moe_layers;
  json["hidden_size"] = numbers.hidden_size;
  json["attention_heads"] = numbers.num_heads;
  json["kv_heads"] = numbers.num_kv_heads;
  json["mla"] = numbers.mla;
  json["experts"] = numbers.num_experts;
  json["top_k"] = numbers.top_k;
  json["activation_density"] = numbers.num_experts == 0
                                   ? ordered_json(nullptr)
                                   : ordered_json(static_cast<double>(numbers.top_k) /
                                                  static_cast<double>(numbers.num_experts));
  return json;
}

ordered_json DeviceJson(const Device& device) {
  ordered_json json;
  json["name"] = device.name;
  json["title"] = device.title;
  json["hbm_bytes"] = device.hbm_bytes;
  json["hbm_bytes_per_s"] = device.hbm_bandwidth;
  json["bf16_flops"] = device.bf16_flops;
  json["fp8_flops"] = device.fp8_flops;
  json["link_bytes_per_s"] = device.link_bandwidth;
  json["node_bytes_per_s"] = device.node_bandwidth;
  json["gpus_per_node"] = device.gpus_per_node;
  // By their names in a device file.
  json["link_latency_us"] = device.link_latency_us;
  json["node_latency_us"] = device.node_latency_us;
  json["launch_us"] = device.launch_us;
  json["memory_efficiency"] = device.memory_efficiency;
  json["gemm_efficiency"] = device.gemm_efficiency;
  json["attention_efficiency"] = device.attention_efficiency;
  json["link_efficiency"] = device.link_efficiency;
  json["node_efficiency"] = device.node_efficiency;
  return json;
}

ordered_json QuestionJson(const PlanReport& report) {
  const PlanInput& input = report.input;
  ordered_json json;
  json["gpus"] = report.question.gpu_counts;
  json["objective"] = ObjectiveName(report.question.objective);
  json["concurrency"] = OrNull(report.question.concurrency);
  json["isl"] = input.isl;
  json["osl"] = input.osl;
  json["ttft_ms"] = OrNull(report.question.ttft_ms);
  json["tpot_ms"] = OrNull(report.question.tpot_ms);
  json["gpu_memory_utilization"] = input.gpu_memory_utilization;
  json["kv_element_bytes"] = input.kv_element_bytes;
  json["max_batched_tokens"] = input.max_batched_tokens;
  json["zipf"] = input.imbalance.zipf;
  json["zipf_is_default"] = input.zipf_is_default;
  json["expert_counts"] = !input.imbalance.counts.empty();
  json["gpu_hour_price"] =
      input.gpu_hour_price > 0 ? ordered_json(input.gpu_hour_price) : ordered_json(nullptr);
  return json;
}

ordered_json StepJson(const StepTime& step, double ms) {
  ordered_json json;
  json["ms"] = ms;
  json["basis"] = BasisName(WeakestBasis(step));
  json["busiest_rank"] = step.busiest_rank;
  json["ops"] = ordered_json::array();
  for (const OpTime& op : step.ops) {
    json["ops"].push_back({{"name", op.name},
                           {"group", OpGroupName(op.group)},
                           {"us", op.us},
                           {"count", op.count},
                           {"flops", op.flops},
                           {"bytes", op.bytes},
                           {"basis", BasisName(op.basis)}});
  }
  return json;
}

ordered_json MemoryJson(const MemoryUse& memory) {
  ordered_json json;
  for (const MemoryPart& part : MemoryParts(memory)) json[part.key] = part.bytes;
  json["total_without_kv"] = memory.total_without_kv();
  return json;
}

ordered_json EstimateJson(const PlanInput& input, const Estimate& e) {
  const layout::ParallelConfig& config = e.layout.config;
  ordered_json json;
  json["layout"] = e.name();
  json["gpus"] = e.gpus();
  json["replicas"] = e.replicas;
  json["tensor_parallel_size"] = config.tensor_parallel_size;
  json["data_parallel_size"] = config.data_parallel_size;
  json["pipeline_parallel_size"] = config.pipeline_parallel_size;
  json["decode_context_parallel_size"] = config.decode_context_parallel_size;
  json["enable_expert_parallel"] = config.enable_expert_parallel;
  json["expert_parallel_size"] = e.layout.expert_parallel_size;
  json["all2all_backend"] = layout::BackendName(config);
  json["enable_eplb"] = config.enable_eplb;
  json["num_redundant_experts"] = config.num_redundant_experts;
  json["enable_dbo"] = config.enable_dbo;
  json["dense_ffn"] = layout::PartPlacementName(config.dense_ffn);
  json["lm_head"] = layout::PartPlacementName(config.lm_head);
  json["status"] = e.ok() ? "holds" : RejectedByName(e.rejected_by);
  json["reason"] = e.ok() ? ordered_json(nullptr) : ordered_json(e.reason);
  json["concurrency"] = e.concurrency;
  json["requests_per_rank"] = e.requests_per_rank;
  json["experts_per_gpu"] = {{"layer", ExpertsPerGpuLayer(e.layout)},
                             {"total", ExpertsPerGpu(input.model, e.layout)}};
  json["memory_bytes"] = MemoryJson(e.memory);
  json["kv"] = {{"budget_bytes", e.memory.kv_budget},
                {"bytes_per_token", e.memory.kv_bytes_per_token},
                {"copies", e.memory.kv_copies},
                {"tokens_per_rank", e.memory.kv_tokens_per_rank},
                {"distinct_tokens", e.memory.distinct_kv_tokens}};
  const Traffic& traffic = e.traffic;
  json["traffic_bytes"] = {{"attention_all_reduce", traffic.attention_all_reduce},
                           {"moe_dispatch", traffic.moe_dispatch},
                           {"moe_combine", traffic.moe_combine},
                           {"moe_all_reduce", traffic.moe_all_reduce},
                           {"token_gather", traffic.token_gather},
                           {"pipeline", traffic.pipeline},
                           {"per_layer", traffic.per_layer()},
                           {"remote_copies", traffic.remote_copies}};
  json["decode"] = StepJson(e.decode, e.decode_step_ms);
  json["prefill"] = StepJson(e.prefill, e.prefill_ms);
  json["ttft_ms"] = e.ttft_ms;
  json["tpot_ms"] = e.tpot_ms;
  json["output_tokens_per_s"] = e.output_tokens_per_s;
  json["tokens_per_s_gpu"] = e.tokens_per_s_gpu;
  json["tokens_per_s_user"] = e.tokens_per_s_user;
  json["dollars_per_million_output_tokens"] =
      input.gpu_hour_price > 0 ? ordered_json(e.dollars_per_million) : ordered_json(nullptr);
  json["basis"] = BasisName(e.basis);
  return json;
}

ordered_json EstimatesJson(const PlanInput& input, const std::vector<Estimate>& estimates) {
  ordered_json json = ordered_json::array();
  for (const Estimate& estimate : estimates) json.push_back(EstimateJson(input, estimate));
  return json;
}

ordered_json CurvesJson(const std::vector<Curve>& curves) {
  ordered_json json = ordered_json::array();
  for (const Curve& curve : curves) {
    ordered_json points = ordered_json::array();
    for (const CurvePoint& point : curve.points) {
      points.push_back({{"concurrency", point.concurrency},
                        {"tokens_per_s_user", point.tokens_per_s_user},
                        {"tokens_per_s_gpu", point.tokens_per_s_gpu},
                        {"basis", BasisName(point.basis)}});
    }
    json.push_back({{"layout", curve.layout}, {"points", points}});
  }
  return json;
}

ordered_json WidthJson(const std::vector<WidthRow>& rows) {
  ordered_json json = ordered_json::array();
  for (const WidthRow& row : rows) {
    ordered_json points = ordered_json::array();
    for (const WidthPoint& point : row.points) {
      points.push_back({{"expert_parallel_size", point.ep},
                        {"experts_per_gpu_layer", point.experts_per_gpu_layer},
                        {"experts_per_gpu", point.experts_per_gpu},
                        {"requests_per_gpu", point.requests_per_gpu},
                        {"bound_by_memory", point.bound_by_memory},
                        {"step_ms", point.step_ms},
                        {"tokens_per_s_gpu", point.tokens_per_s_gpu},
                        {"basis", BasisName(point.basis)}});
    }
    json.push_back({{"tpot_ms", row.tpot_ms},
                    {"points", points},
                    {"gain_ep32_over_ep8", OrNull(row.gain)},
                    {"published_gain", kPublishedWidthGain}});
  }
  return json;
}

ordered_json DecisionJson(const PlanReport& report) {
  const Decision& decision = report.decision;
  const bool two = decision.ranked.size() > 1 && !report.one_layout;
  ordered_json json;
  json["recommended"] = decision.ranked.empty() || report.one_layout
                            ? ordered_json(nullptr)
                            : ordered_json(decision.ranked[0].name());
  json["runner_up"] = two ? ordered_json(decision.ranked[1].name()) : ordered_json(nullptr);
  json["crossover"] = nullptr;
  if (two) {
    json["crossover"] = {{"concurrency", OrNull(decision.crossover.concurrency)},
                         {"upwards", decision.crossover.upwards},
                         {"by_speed", decision.crossover.by_speed},
                         {"text", decision.crossover.text}};
  }
  json["why"] = decision.why;
  json["bands"] = ordered_json::array();
  for (const Band& band : decision.bands) {
    json["bands"].push_back({{"from", band.from}, {"to", band.to}, {"layout", band.layout}});
  }
  json["curves"] = CurvesJson(decision.curves);
  json["width"] = WidthJson(decision.width);
  json["rejected"] = ordered_json::array();
  for (const Rejection& rejection : decision.rejected) {
    json["rejected"].push_back({{"layout", rejection.layout},
                                {"gpus", rejection.gpus},
                                {"by", RejectedByName(rejection.by)},
                                {"reason", rejection.reason}});
  }
  return json;
}

ordered_json PlaybookJson(const PlanReport& report) {
  if (!report.playbook) return nullptr;
  ordered_json steps = ordered_json::array();
  for (const PlaybookStep& step : report.playbook->answer.steps) {
    steps.push_back({{"question", step.question}, {"found", step.found}, {"answer", step.answer}});
  }
  return {{"steps", steps},
          {"answer", report.playbook->answer.text},
          {"decided", report.playbook->answer.decided()},
          {"where_memory_is_tight", report.playbook->answer.tight
                                        ? ordered_json(ConfigName(*report.playbook->answer.tight))
                                        : ordered_json(nullptr)},
          {"layouts", EstimatesJson(report.input, report.playbook->estimates)}};
}

}  // namespace

std::string JsonReport(const PlanReport& report) {
  ordered_json json;
  json["schema"] = "moebius.plan/1";
  json["model"] = ModelJson(report.input.model);
  json["device"] = DeviceJson(report.input.device);
  json["question"] = QuestionJson(report);
  json["layouts"] = EstimatesJson(report.input, report.decision.ranked);
  json.update(DecisionJson(report));
  json["findings"] = ordered_json::array();
  for (const layout::Finding& finding : report.findings) {
    json["findings"].push_back({{"rule", finding.rule},
                                {"severity", SeverityName(finding.severity)},
                                {"message", finding.message}});
  }
  json["nearest_legal"] = nullptr;
  if (report.nearest) {
    json["nearest_legal"] = {{"layout", layout::ConfigName(*report.nearest)},
                             {"flags", LayoutFlags(*report.nearest)}};
  }
  json["parts"] = ordered_json::array();
  if (report.one_layout && !report.decision.ranked.empty()) {
    for (const layout::PartLayout& part : report.decision.ranked.front().layout.parts) {
      json["parts"].push_back({{"part", layout::PartName(part.part)},
                               {"holding", layout::HoldingName(part.holding)},
                               {"ways", part.ways},
                               {"copies", part.copies},
                               {"before", layout::CollectiveName(part.before)},
                               {"after", layout::CollectiveName(part.after)},
                               {"text", part.text}});
    }
  }
  json["playbook"] = PlaybookJson(report);
  json["commands"] = nullptr;
  if (report.launch) {
    json["commands"] = {{"moebius", report.launch->moebius}, {"vllm", report.launch->vllm}};
  }
  return json.dump(2) + "\n";
}

}  // namespace moebius::plan
