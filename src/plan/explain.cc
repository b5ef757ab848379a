// Why one layout and not the other, in sentences with the numbers that decide.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "plan/decide.h"
#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

double GroupUs(const StepTime& step, OpGroup group) {
  double us = 0;
  // What overlaps (a line below zero) is taken off the collectives.
  for (const OpTime& op : step.ops) {
    if ((op.us < 0 ? OpGroup::kCollective : op.group) == group) us += op.us;
  }
  return us;
}
double GroupBytes(const StepTime& step, OpGroup group) {
  double bytes = 0;
  for (const OpTime& op : step.ops) bytes += op.group == group ? op.bytes : 0;
  return bytes;
}
double StepMs(const Estimate& estimate, OpGroup group) {
  return GroupUs(estimate.decode, group) / 1e3 * estimate.layout.config.pipeline_parallel_size;
}

std::string DensitySentence(const PlanInput& input, const Estimate& chosen) {
  const layout::ModelNumbers& numbers = input.model.numbers;
  if (numbers.num_experts == 0) return "A dense model: every token touches every weight.";
  return fmt::format(
      "Density: a token activates {} of {} experts ({:.2f} %); a GPU holds {} {} a layer, {} in "
      "all "
      "{} MoE layers.",
      numbers.top_k, numbers.num_experts,
      100.0 * static_cast<double>(numbers.top_k) / static_cast<double>(numbers.num_experts),
      ExpertsPerGpuLayer(chosen.layout),
      chosen.layout.expert_tensor_parallel_size > 1
          ? fmt::format("slices (1/{})", chosen.layout.expert_tensor_parallel_size)
      : ExpertsPerGpuLayer(chosen.layout) == 1 ? "whole expert"
                                               : "whole experts",
      ExpertsPerGpu(input.model, chosen.layout), input.model.num_moe_layers);
}

std::string KvSentence(const PlanInput& input, const Estimate& chosen, const Estimate* other) {
  const auto copies = [](const Estimate& e) {
    return e.memory.kv_copies == 1 ? std::string("one copy of each")
                                   : fmt::format("{} copies of each", e.memory.kv_copies);
  };
  std::string text =
      fmt::format("KV: {} holds {} distinct tokens ({}, {:.1f} GB a GPU for KV)", chosen.name(),
                  Tokens(static_cast<double>(chosen.memory.distinct_kv_tokens)), copies(chosen),
                  chosen.memory.kv_budget / 1e9);
  if (other != nullptr) {
    text +=
        fmt::format(", {} {} ({})", other->name(),
                    Tokens(static_cast<double>(other->memory.distinct_kv_tokens)), copies(*other));
  }
  return text +
         fmt::format("; the load needs {}.", Tokens(static_cast<double>(chosen.concurrency) *
                                                    static_cast<double>(input.isl + input.osl)));
}

std::string ExpertsSentence(const Estimate& chosen, const Estimate* other) {
  const auto part = [](const Estimate& e) {
    return fmt::format("{:.2f} GB on the busiest GPU, {} ms",
                       GroupBytes(e.decode, OpGroup::kExperts) / 1e9,
                       Milliseconds(StepMs(e, OpGroup::kExperts)));
  };
  std::string text =
      fmt::format("Experts: a decode step of {} reads {}", chosen.name(), part(chosen));
  if (other != nullptr) text += fmt::format("; of {} {}", other->name(), part(*other));
  return text + ".";
}

std::string CollectiveSentence(const Estimate& chosen, const Estimate* other) {
  const auto part = [](const Estimate& e) {
    return fmt::format("{} ms of its {} ms step ({:.1f} MB sent a GPU a layer)",
                       Milliseconds(StepMs(e, OpGroup::kCollective)),
                       Milliseconds(e.decode_step_ms), e.traffic.per_layer() / 1e6);
  };
  std::string text = fmt::format("Exchange: collectives take {} {}", chosen.name(), part(chosen));
  if (other != nullptr) text += fmt::format(", {} {}", other->name(), part(*other));
  return text + ".";
}

// Where the two differ most.
std::string DecidingSentence(const Estimate& chosen, const Estimate& other) {
  struct Named {
    OpGroup group;
    const char* words;
  };
  constexpr Named kGroups[] = {{OpGroup::kAttention, "attention over the cache"},
                               {OpGroup::kDense, "projections and dense layers"},
                               {OpGroup::kExperts, "the routed experts"},
                               {OpGroup::kCollective, "collectives"},
                               {OpGroup::kOther, "small operations"}};
  const char* words = "";
  double from = 0;
  double to = 0;
  for (const Named& named : kGroups) {
    const double mine = StepMs(chosen, named.group);
    const double others = StepMs(other, named.group);
    if (std::abs(others - mine) <= std::abs(to - from)) continue;
    from = mine;
    to = others;
    words = named.words;
  }
  const double prefill_gap = other.prefill_ms - chosen.prefill_ms;
  const double margin = (other.tpot_ms / chosen.tpot_ms - 1) * 100;
  std::string text = fmt::format(
      "Against {}: {} ms a token instead of {} ({:+.0f} % for the runner-up), first token after {} "
      "instead of {} ms.",
      other.name(), Milliseconds(chosen.tpot_ms), Milliseconds(other.tpot_ms), margin,
      Milliseconds(chosen.ttft_ms), Milliseconds(other.ttft_ms));
  if (std::abs(to - from) > 0) {
    text += fmt::format(" What differs most in a decode step is {}: {} against {} ms", words,
                        Milliseconds(from), Milliseconds(to));
    if (std::abs(prefill_gap) > 0.05 * chosen.prefill_ms) {
      text += fmt::format("; a prompt takes {} against {} ms", Milliseconds(chosen.prefill_ms),
                          Milliseconds(other.prefill_ms));
    }
    text += ".";
  }
  return text;
}

}  // namespace

std::vector<std::string> ExplainChoice(const PlanInput& input, const Estimate& chosen,
                                       const Estimate* other) {
  std::vector<std::string> why;
  why.push_back(DensitySentence(input, chosen));
  why.push_back(KvSentence(input, chosen, other));
  if (input.model.numbers.num_experts > 0) why.push_back(ExpertsSentence(chosen, other));
  if (chosen.gpus() > 1) why.push_back(CollectiveSentence(chosen, other));
  if (other != nullptr) why.push_back(DecidingSentence(chosen, *other));
  return why;
}

}  // namespace moebius::plan
