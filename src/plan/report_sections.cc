#include "plan/report_sections.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

namespace moebius::plan {
namespace {

constexpr size_t kMostLayouts = 10;

std::string OrDash(bool there, const std::string& text) { return there ? text : "-"; }

// How unevenly experts are chosen, and who says so.
std::string Routing(const PlanInput& input) {
  if (input.model.numbers.num_experts == 0) return "";
  if (!input.imbalance.counts.empty()) return "; router by recorded counts";
  if (input.imbalance.zipf == 0) return "; router uniform";
  std::string text = fmt::format("; router Zipf {:g}", input.imbalance.zipf);
  if (!input.zipf_is_default) return text;
  return text + fmt::format(" (default: {})", DefaultSkewOf(input.model.numbers).source);
}

std::string DeviceLine(const PlanInput& input) {
  const Device& device = input.device;
  if (input.parallel.own_ranks) {
    return fmt::format(
        "device  {}: {:.1f} GB at {:.1f} GB/s, {:.2f} TFLOP/s, {:.1f} GB/s to each other",
        device.title, device.hbm_bytes / 1e9, device.hbm_bandwidth / 1e9, device.bf16_flops / 1e12,
        device.link_bandwidth / 1e9);
  }
  return fmt::format(
      "device  {}: {:.0f} GB at {:.2f} TB/s, {:.0f} GB/s to {} GPUs of a node, {:.0f} GB/s beyond",
      device.title, device.hbm_bytes / 1e9, device.hbm_bandwidth / 1e12,
      device.link_bandwidth / 1e9, device.gpus_per_node, device.node_bandwidth / 1e9);
}

Section Head(const PlanReport& report) {
  const PlanInput& input = report.input;
  const layout::ModelNumbers& numbers = input.model.numbers;
  Section head{ReportTitle(report), {}, {}, {}};
  const std::string attention = numbers.mla ? fmt::format("MLA, {} heads", numbers.num_heads)
                                            : fmt::format("{} heads, {} for keys and values",
                                                          numbers.num_heads, numbers.num_kv_heads);
  const std::string experts =
      numbers.num_experts == 0
          ? "dense"
          : fmt::format("{} of {} experts a token (density {:.2f} %) in {} of {} layers",
                        numbers.top_k, numbers.num_experts,
                        100.0 * static_cast<double>(numbers.top_k) /
                            static_cast<double>(numbers.num_experts),
                        input.model.num_moe_layers, numbers.num_layers);
  head.lines.push_back(fmt::format("model   {} parameters, {} a token; {}; {}",
                                   Parameters(input.model.TotalParams(), 4),
                                   Parameters(input.model.ActiveParams(), 3), experts, attention));
  head.lines.push_back(DeviceLine(input));
  const bool free = !report.question.concurrency &&
                    report.question.objective != Objective::kLatency && !report.one_layout;
  const std::string requests =
      free ? "as many requests as pay"
           : fmt::format("{} requests in flight",
                         report.question.concurrency.value_or(kLatencyConcurrency));
  std::string load =
      fmt::format("load    {} of {} + {} tokens; {:.0f} % of memory; KV of {:.3g} byte{}", requests,
                  input.isl, input.osl, input.gpu_memory_utilization * 100, input.kv_element_bytes,
                  input.kv_element_bytes == 1 ? "" : "s");
  load += Routing(input);
  head.lines.push_back(load);
  return head;
}

Grid LayoutGrid(const PlanReport& report, const std::vector<Estimate>& estimates, size_t most) {
  const bool price = report.input.gpu_hour_price > 0;
  const bool many_counts =
      report.question.gpu_counts.size() > 1 || report.question.objective == Objective::kCost;
  const bool many_loads =
      !report.question.concurrency && report.question.objective != Objective::kLatency;
  Grid grid;
  grid.header = {"layout"};
  if (many_counts) grid.header.emplace_back("GPUs");
  if (many_loads) grid.header.emplace_back("in flight");
  for (const char* name : {"weights", "KV", "KV tokens", "experts", "TTFT ms", "TPOT ms"}) {
    grid.header.emplace_back(name);
  }
  const bool per_user = !many_counts && !many_loads;  // else too wide; it is 1 / TPOT
  if (per_user) grid.header.emplace_back("tok/s/user");
  grid.header.emplace_back("tok/s/GPU");
  if (price) grid.header.emplace_back("$/M out");
  for (size_t i = 0; i < std::min(most, estimates.size()); ++i) {
    const Estimate& e = estimates[i];
    std::vector<std::string> row = {e.name()};
    if (many_counts) row.push_back(fmt::format("{}", e.gpus()));
    if (many_loads) row.push_back(fmt::format("{}", e.concurrency));
    const int64_t experts = ExpertsPerGpuLayer(e.layout);
    row.push_back(Gigabytes(e.memory.weights()));
    row.push_back(Gigabytes(e.memory.kv_budget));
    row.push_back(Tokens(static_cast<double>(e.memory.distinct_kv_tokens)));
    row.push_back(OrDash(experts > 0,
                         e.layout.expert_tensor_parallel_size > 1
                             ? fmt::format("{}/{}", experts, e.layout.expert_tensor_parallel_size)
                             : fmt::format("{}", experts)));
    row.push_back(Tagged(Milliseconds(e.ttft_ms), WeakestBasis(e.prefill)));
    row.push_back(Tagged(Milliseconds(e.tpot_ms), e.basis));
    if (per_user) row.push_back(Tagged(Rate(e.tokens_per_s_user), e.basis));
    row.push_back(Tagged(Rate(e.tokens_per_s_gpu), e.basis));
    if (price) row.push_back(Tagged(fmt::format("{:.2f}", e.dollars_per_million), e.basis));
    grid.rows.push_back(std::move(row));
  }
  return grid;
}

// Reason and the layouts it turned down, in the order of the first of each.
std::vector<std::pair<std::string, std::string>> Reasons(const Decision& decision) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const Rejection& rejection : decision.rejected) {
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& g) { return g.first == rejection.reason; });
    if (group == groups.end()) {
      groups.emplace_back(rejection.reason, rejection.layout);
    } else if (group->second.find(rejection.layout) == std::string::npos) {
      group->second += ", " + rejection.layout;
    }
  }
  return groups;
}

// Why, what comes nearest, and what would help.
Section NoLayout(const PlanReport& report) {
  Section section{"No layout holds", {}, {}, {}};
  const std::vector<std::pair<std::string, std::string>> reasons = Reasons(report.decision);
  for (size_t i = 0; i < std::min(kMostLayouts, reasons.size()); ++i) {
    section.lines.push_back(fmt::format("{}: {}", reasons[i].second, reasons[i].first));
  }
  if (reasons.size() > kMostLayouts) {
    section.lines.push_back(
        fmt::format("{} of {} reasons; all: --format csv", kMostLayouts, reasons.size()));
  }
  if (reasons.empty()) {
    section.lines.emplace_back("no layout of these GPUs is of the kind that was asked for");
  }
  const Rejection* largest = nullptr;
  for (const Rejection& rejection : report.decision.rejected) {
    if (rejection.by != RejectedBy::kCapacity) continue;
    if (largest == nullptr || rejection.requests > largest->requests) largest = &rejection;
  }
  if (largest != nullptr) {
    section.lines.push_back(fmt::format(
        "The largest cache is that of {}: {} requests of {} + {} tokens. More GPUs, {}fewer "
        "requests "
        "in flight or shorter ones would do.",
        largest->layout, largest->requests, report.input.isl, report.input.osl,
        report.input.kv_element_bytes < 2 ? "" : "a KV cache in fp8 (--kv-cache-dtype), "));
  }
  return section;
}

Section Layouts(const PlanReport& report) {
  const std::vector<Estimate>& ranked = report.decision.ranked;
  Section section{
      report.input.model.numbers.num_experts == 0
          ? "Layouts, best first (weights and room for KV in GB of a GPU)"
          : "Layouts, best first (weights and room for KV in GB of a GPU, experts of a layer)",
      {},
      LayoutGrid(report, ranked, kMostLayouts),
      {}};
  if (ranked.size() > kMostLayouts) {
    section.lines.push_back(
        fmt::format("{} of {} that hold; all of them: --format csv", kMostLayouts, ranked.size()));
  }
  return section;
}

Section Recommended(const PlanReport& report) {
  const std::vector<Estimate>& ranked = report.decision.ranked;
  const Estimate& best = ranked.front();
  Section section{
      fmt::format("Recommended for {}: {}", ObjectiveName(report.question.objective), best.name()),
      {},
      {},
      {}};
  const layout::ParallelConfig& config = best.layout.config;
  std::vector<std::string> choices;
  if (best.layout.exchanges) {
    choices.push_back(config.all2all_backend == layout::ExchangeBackend::kAllToAll
                          ? "tokens by all-to-all"
                          : "tokens by gather and scatter");
  }
  if (config.enable_eplb) {
    choices.push_back(fmt::format("EPLB and {} redundant experts", config.num_redundant_experts));
  }
  if (config.enable_dbo) choices.emplace_back("two-batch overlap");
  if (config.data_parallel_size > 1) {
    using layout::PartPlacement;
    if (report.input.model.num_dense_layers > 0 && config.dense_ffn != PartPlacement::kAuto) {
      choices.push_back(
          fmt::format("dense FFN by {}", layout::PartPlacementName(config.dense_ffn)));
    }
    if (config.lm_head != PartPlacement::kAuto) {
      choices.push_back(fmt::format("LM head by {}", layout::PartPlacementName(config.lm_head)));
    }
  }
  std::string settled;
  for (const std::string& choice : choices) settled += (settled.empty() ? "" : ", ") + choice;
  if (!settled.empty()) section.lines.push_back("With " + settled + ".");
  if (ranked.size() > 1) {
    section.lines.push_back(
        fmt::format("Runner-up: {}. {}.", ranked[1].name(), report.decision.crossover.text));
  } else {
    section.lines.emplace_back("No other layout holds.");
  }
  for (const std::string& sentence : report.decision.why) section.lines.push_back(sentence);
  return section;
}

// The groups of two decode steps side by side.
Section StepSection(const PlanReport& report) {
  const std::vector<Estimate>& ranked = report.decision.ranked;
  Section section{"Where a decode step goes, ms", {}, {{"layout"}, {}, 1}, {}};
  const size_t rows = std::min<size_t>(ranked.size(), 2);
  for (const char* group : {"attention", "dense", "experts", "collectives", "other"}) {
    section.grid.header.emplace_back(group);
  }
  section.grid.header.emplace_back("step");
  section.grid.header.emplace_back("prompt alone");
  for (size_t i = 0; i < rows; ++i) {
    const Estimate& e = ranked[i];
    const std::vector<StepShare> shares = StepShares(e.decode);
    std::vector<std::string> row = {e.name()};
    for (size_t column = 1; column + 2 < section.grid.header.size(); ++column) {
      const auto share = std::find_if(shares.begin(), shares.end(), [&](const StepShare& s) {
        return s.group == section.grid.header[column];
      });
      row.push_back(
          share == shares.end()
              ? "-"
              : Tagged(Milliseconds(share->us / 1e3 * e.layout.config.pipeline_parallel_size),
                       share->basis));
    }
    row.push_back(Tagged(Milliseconds(e.decode_step_ms), e.basis));
    row.push_back(Tagged(Milliseconds(e.prefill_ms), WeakestBasis(e.prefill)));
    section.grid.rows.push_back(std::move(row));
  }
  return section;
}

Section Bands(const PlanReport& report) {
  Section section{
      fmt::format("Who leads at which concurrency (ties of {:g} % go to the first token)",
                  kTieShare * 100),
      {},
      {{"layout", "from", "to"}, {}, 1},
      {}};
  for (const Band& band : report.decision.bands) {
    section.grid.rows.push_back(
        {band.layout, fmt::format("{}", band.from), fmt::format("{}", band.to)});
  }
  return section;
}

Section WidthSection(const PlanReport& report) {
  Section section{"What width buys: decode tokens/s/GPU (requests a GPU) at a time per token",
                  {},
                  {{"TPOT ms"}, {}, 1},
                  {}};
  const std::vector<WidthRow>& rows = report.decision.width;
  for (const WidthPoint& point : rows.front().points) {
    section.grid.header.push_back(fmt::format("EP{}", point.ep));
  }
  section.grid.header.emplace_back("EP32/EP8");
  for (const WidthRow& row : rows) {
    std::vector<std::string> cells = {fmt::format("{:g}", row.tpot_ms)};
    for (const WidthPoint& point : row.points) {
      cells.push_back(
          point.requests_per_gpu == 0
              ? (point.bound_by_memory ? "no memory" : "slower")
              : fmt::format("{} ({}{})", Tagged(Rate(point.tokens_per_s_gpu), point.basis),
                            point.requests_per_gpu, point.bound_by_memory ? " KV" : ""));
    }
    cells.push_back(row.gain ? fmt::format("{:.2f}", *row.gain) : "-");
    section.grid.rows.push_back(std::move(cells));
  }
  std::string held;
  for (const WidthPoint& point : rows.front().points) {
    held += fmt::format("{}EP{} {} ({})", held.empty() ? "" : ", ", point.ep,
                        point.experts_per_gpu_layer, point.experts_per_gpu);
  }
  section.lines.push_back("Experts a GPU holds in a layer (in all): " + held + ".");
  section.lines.push_back(fmt::format(
      "Published for EP32 over EP8: up to {:.1f} (TensorRT-LLM, DeepSeek-R1, GB200 NVL72). \"KV\": "
      "memory, not time, is the bound.",
      kPublishedWidthGain));
  return section;
}

Section TurnedDown(const PlanReport& report) {
  Section section{"Turned down", {}, {{"layouts", "why"}, {}, 2}, {}};
  for (auto& [reason, names] : Reasons(report.decision)) {
    section.grid.rows.push_back({names, reason});
  }
  if (section.grid.rows.size() > kMostLayouts) {
    section.lines.push_back(
        fmt::format("{} of {} reasons; all: --format csv", kMostLayouts, section.grid.rows.size()));
    section.grid.rows.resize(kMostLayouts);
  }
  return section;
}

Section Commands(const PlanReport& report) {
  Section section{"Commands", {}, {}, {}};
  for (const std::vector<std::string>* commands : {&report.launch->moebius, &report.launch->vllm}) {
    for (const std::string& command : *commands) section.code.push_back(command);
  }
  if (report.launch->moebius.empty()) {
    const auto& config = report.decision.ranked.front().layout.config;
    section.lines.emplace_back(config.decode_context_parallel_size > 1
                                   ? "moebius serve has no decode context parallelism."
                                   : "moebius serve keeps MLA's latents alone in fp8.");
  } else {
    section.lines.emplace_back(kWhatRuns);
    section.lines.emplace_back("--dry-run shows what these flags need.");
  }
  const Estimate& estimate = report.decision.ranked.front();
  if (estimate.replicas > 1) {
    section.lines.push_back(
        fmt::format("These start one of the {} copies; a router in front shares the requests.",
                    estimate.replicas));
  }
  if (report.launch->vllm.size() > 1) {
    section.lines.emplace_back(
        "vLLM's second command is for node 1; nodes 2 and up count on. NODE0 is the first node's "
        "address.");
  }
  return section;
}

// One named layout: what each part becomes, what it weighs, what it sends, what a step costs.
std::string CollectivesText(const layout::PartLayout& part) {
  std::string text;
  const auto add = [&](layout::Collective collective, int group) {
    if (collective == layout::Collective::kNone) return;
    text += fmt::format("{}{} of {}", text.empty() ? "" : ", ", layout::CollectiveName(collective),
                        group);
  };
  add(part.before, part.group);
  add(part.after, part.group);
  add(part.last, part.last_group);
  return OrDash(!text.empty(), text);
}

Section Findings(const PlanReport& report) {
  Section section{"Findings", {}, {}, {}};
  for (const layout::Finding& finding : report.findings) {
    section.lines.push_back(
        fmt::format("{}: {} [{}]", SeverityName(finding.severity), finding.message, finding.rule));
  }
  if (report.findings.empty()) section.lines.emplace_back("none");
  if (report.nearest) {
    section.lines.push_back(fmt::format("nearest legal: {} ({})",
                                        layout::ConfigName(*report.nearest),
                                        LayoutFlags(*report.nearest)));
  }
  if (report.decision.ranked.empty()) return section;
  const Estimate& estimate = report.decision.ranked.front();
  if (!estimate.ok()) section.lines.push_back("does not hold: " + estimate.reason);
  return section;
}

Section Warnings(const PlanReport& report) {
  Section section{fmt::format("Of {}", report.decision.ranked.front().name()), {}, {}, {}};
  for (const layout::Finding& finding : report.findings) {
    section.lines.push_back(
        fmt::format("{}: {} [{}]", SeverityName(finding.severity), finding.message, finding.rule));
  }
  return section;
}

Section PartsSection(const Estimate& estimate) {
  Section section{"What a GPU holds", {}, {{"part", "held", "as", "collectives"}, {}, 4}, {}};
  for (const layout::PartLayout& part : estimate.layout.parts) {
    if (part.holding == layout::Holding::kNone) continue;
    section.grid.rows.push_back({layout::PartName(part.part), layout::HoldingName(part.holding),
                                 part.text, CollectivesText(part)});
  }
  return section;
}

Section MemorySection(const PlanReport& report, const Estimate& estimate) {
  const MemoryUse& memory = estimate.memory;
  const double hbm = report.input.device.hbm_bytes;
  Section section{"Memory of the fullest GPU", {}, {{"part", "GB", "% of HBM"}, {}, 1}, {}};
  const auto row = [&](const std::string& name, double bytes) {
    section.grid.rows.push_back({name, Gigabytes(bytes), fmt::format("{:.1f}", bytes / hbm * 100)});
  };
  for (const MemoryPart& part : MemoryParts(memory)) {
    if (part.bytes > 0) row(part.name, part.bytes);
  }
  row("sum without KV", memory.total_without_kv());
  row("left for KV", memory.kv_budget);
  section.lines.push_back(
      fmt::format("{:.0f} bytes of KV a token on a GPU, {} cop{} in a TP group; {} tokens a rank, "
                  "{} distinct in "
                  "the deployment.",
                  memory.kv_bytes_per_token, memory.kv_copies, memory.kv_copies == 1 ? "y" : "ies",
                  Tokens(static_cast<double>(memory.kv_tokens_per_rank)),
                  Tokens(static_cast<double>(memory.distinct_kv_tokens))));
  return section;
}

Section TrafficSection(const PlanReport& report, const Estimate& estimate) {
  const bool dense = report.input.model.numbers.num_experts == 0;
  Section section{fmt::format("A GPU sends in one {} of a decode step of {} tokens a rank",
                              dense ? "layer" : "MoE layer", estimate.requests_per_rank),
                  {},
                  {{"what", "kB"}, {}, 1},
                  {}};
  const Traffic& traffic = estimate.traffic;
  const auto row = [&](const char* name, double bytes) {
    if (bytes > 0) section.grid.rows.push_back({name, fmt::format("{:.1f}", bytes / 1e3)});
  };
  row(estimate.layout.config.own_ranks ? "gathers after attention" : "all-reduce after attention",
      traffic.attention_all_reduce);
  row("dispatch to the experts", traffic.moe_dispatch);
  row("combine from the experts", traffic.moe_combine);
  row(dense ? "all-reduce after the FFN" : "all-reduce after the experts", traffic.moe_all_reduce);
  row("gather of cut tokens", traffic.token_gather);
  row("to the next stage", traffic.pipeline);
  if (section.grid.rows.empty()) {
    section.grid = {};
    section.lines.emplace_back("nothing");
  }
  if (traffic.remote_copies > 0) {
    section.lines.push_back(fmt::format(
        "A token goes to {:.2f} other GPUs (each once, whatever the number of its experts there).",
        traffic.remote_copies));
  }
  return section;
}

Section OpsSection(const char* title, const StepTime& step) {
  Section section{fmt::format("{}: {} ms on a GPU", title, Milliseconds(step.total_us / 1e3)),
                  {},
                  {{"operation", "group", "ms", "%", "GB", "TFLOP", "times"}, {}, 2},
                  {}};
  for (const OpTime& op : step.ops) {
    section.grid.rows.push_back(
        {op.name, OpGroupName(op.group), Tagged(Milliseconds(op.us / 1e3), op.basis),
         fmt::format("{:.1f}", op.us / step.total_us * 100), fmt::format("{:.2f}", op.bytes / 1e9),
         fmt::format("{:.3f}", op.flops / 1e12), fmt::format("{}", op.count)});
  }
  if (step.busiest_rank > 1.0005) {
    section.lines.push_back(
        fmt::format("The busiest rank has {:.2f} times the mean load.", step.busiest_rank));
  }
  return section;
}

Section PlaybookSection(const PlanReport& report) {
  const PlaybookAnswer& answer = report.playbook->answer;
  Section section{fmt::format("By the published playbook: {}", answer.text),
                  {},
                  {{"question", "found", "answer"}, {}, 3},
                  {}};
  if (answer.tight) {
    section.lines.push_back(
        fmt::format("Memory is tight for this load by our estimate (the rules give no number): "
                    "there they say {} instead.",
                    layout::ConfigName(*answer.tight)));
  }
  for (const PlaybookStep& step : answer.steps) {
    section.grid.rows.push_back({step.question, step.found, step.answer});
  }
  return section;
}

Section PlaybookEstimates(const PlanReport& report) {
  Section section{"Its layouts by our estimate", {}, {}, {}};
  section.grid = LayoutGrid(report, report.playbook->estimates, kMostLayouts);
  for (const Estimate& estimate : report.playbook->estimates) {
    if (!estimate.ok()) {
      section.lines.push_back(
          fmt::format("{} does not hold: {}.", estimate.name(), estimate.reason));
    }
  }
  return section;
}

}  // namespace

std::string ReportTitle(const PlanReport& report) {
  std::string gpus;
  for (const int n : report.question.gpu_counts)
    gpus += fmt::format("{}{}", gpus.empty() ? "" : ", ", n);
  if (report.one_layout) {
    return fmt::format("{} as {} on {} x {}", report.input.model.name,
                       layout::ConfigName(report.named), gpus, report.input.device.name);
  }
  return fmt::format("{} on {} x {}", report.input.model.name, gpus, report.input.device.name);
}

std::vector<Section> ReportSections(const PlanReport& report) {
  std::vector<Section> sections = {Head(report)};
  const Decision& decision = report.decision;
  if (report.one_layout) {
    sections.push_back(Findings(report));
    if (decision.ranked.empty()) return sections;
    const Estimate& estimate = decision.ranked.front();
    sections.push_back(PartsSection(estimate));
    sections.push_back(MemorySection(report, estimate));
    sections.push_back(TrafficSection(report, estimate));
    sections.push_back(OpsSection("Decode step", estimate.decode));
    sections.push_back(OpsSection("Prefill of a prompt on every rank", estimate.prefill));
    sections.push_back({"In sum", {}, LayoutGrid(report, decision.ranked, 1), {}});
  } else {
    if (report.playbook) {
      sections.push_back(PlaybookSection(report));
      sections.push_back(PlaybookEstimates(report));
      for (const Section& section : PlaybookMemorySections(report)) sections.push_back(section);
    }
    if (decision.ranked.empty()) {
      sections.push_back(NoLayout(report));
    } else {
      if (!report.findings.empty()) sections.push_back(Warnings(report));
      sections.push_back(Layouts(report));
      sections.push_back(Recommended(report));
      sections.push_back(StepSection(report));
      sections.push_back(Bands(report));
    }
    if (!decision.width.empty()) sections.push_back(WidthSection(report));
    if (!decision.ranked.empty() && !decision.rejected.empty()) {
      sections.push_back(TurnedDown(report));
    }
  }
  if (report.launch) sections.push_back(Commands(report));
  return sections;
}

namespace {

// What serves may be no GPU.
Section OfRanks(Section section) {
  const auto rename = [](std::string& text) {
    for (size_t at = text.find("GPU"); at != std::string::npos; at = text.find("GPU", at)) {
      text.replace(at, 3, "rank");
    }
  };
  rename(section.title);
  for (std::string& line : section.lines) rename(line);
  return section;
}

}  // namespace

std::vector<Section> LayoutSections(const PlanReport& report) {
  const Device& device = report.input.device;
  Section head = Head(report);
  head.lines.resize(1);  // the model
  if (report.named.num_gpus() == 1) {
    head.title = fmt::format("{} as one rank on {}", report.input.model.name, device.name);
  }
  head.lines.push_back(fmt::format("device  {}: {} GB a rank, {:.0f} % of it to use", device.title,
                                   Gigabytes(device.hbm_bytes),
                                   report.input.gpu_memory_utilization * 100));
  std::vector<Section> sections = {std::move(head), Findings(report)};
  if (report.decision.ranked.empty()) return sections;
  const Estimate& estimate = report.decision.ranked.front();
  sections.push_back(OfRanks(PartsSection(estimate)));
  sections.push_back(OfRanks(MemorySection(report, estimate)));
  sections.back().grid.header.back() = "% of memory";
  sections.push_back(OfRanks(TrafficSection(report, estimate)));
  return sections;
}

}  // namespace moebius::plan
