#include <fmt/format.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "serve/metrics_families.h"

namespace moebius::serve {
namespace {

using engine::RankLoad;

// The labels of every rank, as text.
struct RankLabels {
  std::string rank, dp, tp, pp;
};

std::vector<RankLabels> LabelsOf(std::span<const RankLoad> ranks) {
  std::vector<RankLabels> labels;
  for (const RankLoad& load : ranks) {
    labels.push_back({fmt::to_string(load.rank), fmt::to_string(load.dp), fmt::to_string(load.tp),
                      fmt::to_string(load.pp)});
  }
  return labels;
}

struct RankCounter {
  const char* name;
  const char* help;
  int64_t RankLoad::* number;
};
constexpr std::array<RankCounter, 7> kCounters = {{
    {"moebius:rank_steps_total", "Steps that the rank took part in.", &RankLoad::num_steps},
    {"moebius:rank_zero_token_steps_total",
     "Of those, without a token of its own: it served its peers.", &RankLoad::num_empty_steps},
    {"moebius:rank_tokens_total",
     "Rows of its steps; all ranks of a data-parallel group have the same ones.",
     &RankLoad::num_rows},
    {"moebius:rank_expert_tokens_total", "Rows that its experts computed, each once an expert.",
     &RankLoad::num_expert_rows},
    {"moebius:rank_home_expert_tokens_total", "Of those, tokens of its own.",
     &RankLoad::num_home_rows},
    {"moebius:rank_dispatch_bytes_total", "Of rows that left for experts of other ranks.",
     &RankLoad::dispatch_bytes},
    {"moebius:rank_combine_bytes_total", "Of results that left for other ranks.",
     &RankLoad::combine_bytes},
}};

}  // namespace

void AppendRankMetrics(const Snapshot& snapshot, MetricsText& text) {
  const std::vector<RankLoad>& ranks = snapshot.ranks;
  if (ranks.empty()) return;
  const std::vector<RankLabels> labels = LabelsOf(ranks);
  const auto sample = [&](size_t i, auto value) {
    const RankLabels& l = labels[i];
    text.Sample(value, {{"rank", l.rank}, {"dp", l.dp}, {"tp", l.tp}, {"pp", l.pp}});
  };
  const auto sample_of = [&](size_t i, auto value, const char* name, const char* kind) {
    const RankLabels& l = labels[i];
    text.Sample(value, {{"rank", l.rank}, {"dp", l.dp}, {"tp", l.tp}, {"pp", l.pp}, {name, kind}});
  };
  for (const RankCounter& counter : kCounters) {
    text.Counter(counter.name, counter.help);
    for (size_t i = 0; i < ranks.size(); ++i) sample(i, ranks[i].*counter.number);
  }
  text.Counter("moebius:rank_step_seconds_total",
               "Time of the rank's steps by part; wait: for other ranks, wherever in the step.");
  for (size_t i = 0; i < ranks.size(); ++i) {
    for (const engine::StepPart& part : engine::kStepParts) {
      sample_of(i, ranks[i].parts.*part.seconds, "part", part.name);
    }
  }
  text.Counter("moebius:rank_exchange_steps_total",
               "Steps by how the rank's exchange dealt its copies to threads.");
  for (size_t i = 0; i < ranks.size(); ++i) {
    sample_of(i, ranks[i].num_latency_steps, "mode", "latency");
    sample_of(i, ranks[i].num_throughput_steps, "mode", "throughput");
  }
  text.Gauge("moebius:rank_last_step", "The number of its last step; -1: none yet.");
  for (size_t i = 0; i < ranks.size(); ++i) sample(i, ranks[i].last_step);
}

}  // namespace moebius::serve
