// moebius plan: which layouts a model can take on given GPUs, what each needs, and which to use.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <set>

#include "app/commands.h"
#include "app/plan_input.h"
#include "app/this_cpu.h"
#include "plan/report.h"

namespace moebius::app {
namespace {

constexpr int kMostGpus = layout::kMaxGpus;

// "8", "8-64" (doubling), "8,16,24".
Result<std::vector<int>> ParseGpuCounts(const std::string& text) {
  const auto error = [&] {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--gpus is '{}', expected a number (8), a range (8-64) or a list (8,16), each "
                     "from 1 to {}",
                     text, kMostGpus);
  };
  std::set<int> counts;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    int low = 0;
    auto [next, code] = std::from_chars(at, end, low);
    if (code != std::errc()) return error();
    int high = low;
    if (next != end && *next == '-') {
      const auto range = std::from_chars(next + 1, end, high);
      if (range.ec != std::errc()) return error();
      next = range.ptr;
    }
    if (low < 1 || high < low || high > kMostGpus) return error();
    for (int n = low; n < high; n *= 2) counts.insert(n);
    counts.insert(high);
    if (next == end) break;
    if (*next != ',') return error();
    at = next + 1;
  }
  return std::vector<int>(counts.begin(), counts.end());
}

Result<plan::Question> MakeQuestion(const PlanOptions& options) {
  plan::Question question;
  MOEBIUS_ASSIGN(question.objective, plan::ParseObjective(options.objective));
  question.concurrency = options.concurrency;
  question.ttft_ms = options.ttft_ms;
  question.tpot_ms = options.tpot_ms;
  question.expert_parallel = options.enable_expert_parallel;
  return question;
}

// The number of GPUs that --gpus or --nodes names; empty: neither.
Result<std::vector<int>> GpuCounts(const PlanOptions& options, const plan::Device& device) {
  if (!options.gpus.empty() && options.nodes) {
    return MakeError(ErrorCode::kInvalidArgument, "--gpus and --nodes: expected one of them");
  }
  if (options.nodes) {
    const int64_t gpus = *options.nodes * device.gpus_per_node;
    if (gpus > kMostGpus) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--nodes is {}: at {} GPUs a node that is {}, expected at most {} GPUs ({} "
                       "nodes)",
                       *options.nodes, device.gpus_per_node, gpus, kMostGpus,
                       kMostGpus / device.gpus_per_node);
    }
    return std::vector<int>{static_cast<int>(gpus)};
  }
  if (options.gpus.empty()) return std::vector<int>();
  return ParseGpuCounts(options.gpus);
}

// "cpu": this machine's, which as many ranks share as are asked about.
Result<plan::Device> DeviceAskedFor(const PlanOptions& options) {
  if (options.device != "cpu") return plan::LoadDevice(options.device);
  if (options.nodes) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--device cpu is one machine, expected --gpus N (how many ranks share it) "
                     "instead of --nodes");
  }
  MOEBIUS_ASSIGN(const layout::ParallelConfig named, NamedLayout(options, {}));
  int num_ranks = named.num_gpus();
  if (!options.gpus.empty()) {
    MOEBIUS_ASSIGN(const std::vector<int> counts, ParseGpuCounts(options.gpus));
    if (counts.size() > 1) {
      return MakeError(
          ErrorCode::kInvalidArgument,
          "--gpus is '{}' with --device cpu, expected one number: how many ranks share "
          "the machine",
          options.gpus);
    }
    num_ranks = counts.front();
  }
  return MeasureThisCpu(num_ranks);
}

plan::PlaybookReport AskPlaybook(const plan::PlanReport& report, int num_gpus) {
  const plan::PlanInput& input = report.input;
  const layout::ModelNumbers& numbers = input.model.numbers;
  plan::PlaybookQuestion question;
  question.concurrency = report.question.concurrency.value_or(plan::kLatencyConcurrency);
  question.num_experts = numbers.num_experts;
  question.top_k = numbers.top_k;
  question.num_heads = numbers.num_heads;
  question.latent_attention = numbers.mla || numbers.num_kv_heads == 1;
  question.num_gpus = num_gpus;
  question.gpus_per_node = input.device.gpus_per_node;
  // "Tight" has no number in the rules: here, that TP over the node does not hold the load.
  layout::ParallelConfig node = input.parallel;
  node.tensor_parallel_size = std::min(num_gpus, question.gpus_per_node);
  node.enable_eplb = node.enable_dbo = false;
  node.num_redundant_experts = 0;
  if (layout::IsLegal(CheckRules(node, numbers))) {
    const plan::Estimate estimate =
        plan::EstimateLayout(input, layout::MakeLayout(node, numbers), question.concurrency);
    question.weights_fit_node = estimate.rejected_by != plan::RejectedBy::kWeights;
    question.memory_tight = estimate.rejected_by == plan::RejectedBy::kCapacity;
  }
  plan::PlaybookReport playbook{plan::AskPlaybook(question), {}};
  std::vector<layout::ParallelConfig> configs = playbook.answer.configs;
  if (playbook.answer.tight) configs.push_back(*playbook.answer.tight);
  for (const layout::ParallelConfig& config : configs) {
    if (!layout::IsLegal(CheckRules(config, numbers))) continue;
    playbook.estimates.push_back(plan::EstimateLayout(
        input, plan::SettleLayout(input, config, question.concurrency), question.concurrency));
  }
  return playbook;
}

// Slots that ranks do not divide are refused by vLLM, and run by our ranks on one machine.
bool HasSlotsOfOurs(const layout::ParallelConfig& config, const layout::ModelNumbers& numbers) {
  return config.enable_eplb && config.expert_parallel_active() && config.num_nodes() == 1 &&
         config.pipeline_parallel_size == 1 &&
         (numbers.num_experts + config.num_redundant_experts) % config.expert_group() != 0;
}

// One named layout. False: it cannot be used.
bool PlanOne(plan::PlanReport& report) {
  plan::PlanInput& input = report.input;
  report.question.gpu_counts = {report.named.num_gpus()};
  if (!report.question.concurrency) report.question.concurrency = plan::kLatencyConcurrency;
  const layout::ModelNumbers& numbers = input.model.numbers;
  report.named.own_slots = HasSlotsOfOurs(report.named, numbers);
  report.findings = CheckRules(report.named, numbers);
  if (!layout::IsLegal(report.findings)) {
    report.nearest = NearestLegal(report.named, numbers);
    return false;
  }
  const int64_t concurrency = *report.question.concurrency;
  plan::Decision& decision = report.decision;
  decision.ranked.push_back(plan::EstimateLayout(
      input, plan::SettleLayout(input, report.named, concurrency), concurrency));
  const plan::Estimate& estimate = decision.ranked.front();
  decision.curves.push_back(plan::CurveOf(input, {report.named}));
  if (estimate.ok()) report.launch = plan::LaunchCommands(input, estimate);
  return estimate.ok();
}

bool PlanAll(const PlanOptions& options, plan::PlanReport& report) {
  report.input.settle_eplb = !options.enable_eplb && options.num_redundant_experts == 0;
  report.input.settle_dbo = !options.enable_dbo;
  report.decision = plan::Decide(report.input, report.question);
  if (options.rules == "playbook") {
    report.playbook = AskPlaybook(report, report.question.gpu_counts.back());
  }
  if (report.decision.ranked.empty()) return false;
  const plan::Estimate& best = report.decision.ranked.front();
  for (layout::Finding& finding : CheckRules(best.layout.config, report.input.model.numbers)) {
    if (finding.severity == layout::Severity::kWarning) {
      report.findings.push_back(std::move(finding));
    }
  }
  report.launch = plan::LaunchCommands(report.input, best);
  return true;
}

Status Write(const std::string& path, const std::string& text) {
  if (path.empty()) {
    fmt::print("{}", text);
    return {};
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return MakeError(ErrorCode::kUnavailable, "--output: {} cannot be written", path);
  return {};
}

void PrintNames(const std::vector<std::string>& names) {
  for (const std::string& name : names) fmt::print("{}\n", name);
}

}  // namespace

Result<int> PlanCommand(const PlanOptions& options) {
  if (options.list_models || options.list_devices) {
    std::vector<std::string> names =
        options.list_models ? plan::KnownModels() : plan::KnownDevices();
    if (options.list_devices) names.emplace_back("cpu");  // this machine's
    PrintNames(names);
    return kExitOk;
  }
  MOEBIUS_ASSIGN(const plan::ReportFormat format, plan::ParseReportFormat(options.format));
  if (options.published) {
    MOEBIUS_TRY(Write(options.output, plan::RenderPublished(format)));
    return kExitOk;
  }
  plan::PlanReport report;
  MOEBIUS_ASSIGN(plan::Device device, DeviceAskedFor(options));
  MOEBIUS_ASSIGN(report.input, MakePlanInput(options, std::move(device)));
  MOEBIUS_ASSIGN(report.question, MakeQuestion(options));
  MOEBIUS_ASSIGN(report.question.gpu_counts, GpuCounts(options, report.input.device));
  const std::vector<int> asked = report.question.gpu_counts;
  const bool sizes =
      options.tensor_parallel_size || options.data_parallel_size || options.pipeline_parallel_size;
  if (!sizes && asked.empty() && !options.enable_expert_parallel) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "how many GPUs? --gpus N or --nodes N compares all layouts, "
                     "--tensor-parallel-size and its sisters show one");
  }
  if (options.rules == "playbook" && report.input.model.numbers.num_experts == 0) {
    return MakeError(ErrorCode::kInvalidArgument, "--rules playbook is about experts, {} has none",
                     report.input.model.name);
  }
  report.one_layout = sizes || asked.empty();
  if (report.one_layout) {
    MOEBIUS_ASSIGN(report.named, NamedLayout(options, report.input.parallel));
    const std::vector<int> made = {report.named.num_gpus()};
    if (!asked.empty() && asked != made) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the sizes make {} GPUs (TP {} x DP {} x PP {}), {} {} were named",
                       made.front(), report.named.tensor_parallel_size,
                       report.named.data_parallel_size, report.named.pipeline_parallel_size,
                       asked.front(), options.nodes ? "by --nodes" : "by --gpus");
    }
  }
  const bool holds = report.one_layout ? PlanOne(report) : PlanAll(options, report);
  MOEBIUS_TRY(Write(options.output, RenderReport(report, format)));
  return holds ? kExitOk : kExitFailure;
}

}  // namespace moebius::app
