#include "plan/playbook_memory.h"

#include <array>

#include "base/check.h"
#include "plan/memory.h"

namespace moebius::plan {
namespace {

constexpr std::array<PlaybookRow, 4> kTable = {{
    {"TP8", 10.5, 73, 0.04, 1, 84.5},
    {"TP8+EP", 10.5, 73, 0.04, 1, 84.8},
    {"DP8", 84, 73, 0.04, 1, 158},
    {"DP8+EP", 84, 73, 0.04, 0.125, 157},
}};

constexpr std::array<PlaybookSlip, 8> kSlips = {{
    {"non-MoE 84 + routed 584 + shared 0.04 GB",
     "they add to 668, not 671: the shared experts of one layer (0.044 GB) stand for those of all "
     "58 (2.55 GB)"},
    {"non-MoE 84 GB, routed 584 GB",
     "14.6 and 653.9 GB: the first is 5.8 times too high, the second 70 GB too low; by the printed "
     "157 GB DP8+EP would not fit the 141 GB of an H200, where it is run"},
    {"KV about 2 MB a token, 512 tokens are 1 GB",
     "70,272 B in bf16 and 35,136 B in fp8 (576 values x 61 layers): 28 and 57 times less; 512 "
     "tokens are 36 MB"},
    {"DP8 without EP holds 1 GB of KV, DP8+EP 0.125",
     "KV goes by the requests of a DP rank with or without EP: 0.125 in both, by the playbook's "
     "own "
     "text"},
    {"\"32 experts\" on the rows without EP",
     "without EP a GPU holds a slice, 1/8 wide, of all 256 experts; the bytes are the same"},
    {"shared experts 0.04 GB in every row",
     "0.32 GB where TP cuts them, 2.55 GB where DP copies them"},
    {"TP8+EP is 84.8 in all, TP8 84.5, from the same parts",
     "equal parts have equal sums: 84.54 both"},
    {"DP+EP uses less memory a card",
     "more weights (17.1 GB of copies against 3.0), less KV a request: what grows is the number of "
     "requests that fit, and mostly with wider EP"},
}};

// Of the four rows above.
layout::ParallelConfig ConfigOf(const std::string& name) {
  layout::ParallelConfig config;
  (name[0] == 'T' ? config.tensor_parallel_size : config.data_parallel_size) = 8;
  config.enable_expert_parallel = name.ends_with("+EP");
  MOEBIUS_CHECK(ConfigName(config) == name);
  return config;
}

}  // namespace

std::span<const PlaybookRow> PlaybookTable() { return kTable; }
std::span<const PlaybookSlip> PlaybookSlips() { return kSlips; }

RecomputedRow RecomputeRow(const PlaybookRow& row, const ModelShape& deepseek_r1) {
  ModelShape model = deepseek_r1;
  model.weight_bytes = model.expert_weight_bytes = model.other_bytes = 1;
  const layout::ParallelConfig config = ConfigOf(row.layout);
  const layout::ParallelLayout layout = MakeLayout(config, model.numbers);
  const MemoryUse use = PlanMemory(model, layout, {});
  RecomputedRow recomputed;
  recomputed.layout = row.layout;
  recomputed.non_moe =
      (use.attention + use.dense_ffn + use.embedding_and_head + use.router_and_norms) / 1e9;
  recomputed.routed = use.routed_experts / 1e9;
  recomputed.shared = use.shared_experts / 1e9;
  const double tokens = 512.0 / config.data_parallel_size;
  recomputed.kv = tokens * use.kv_bytes_per_token / 1e9;
  return recomputed;
}

bool PlaybookTableIsOf(const ModelShape& model) {
  return model.numbers.mla && model.numbers.num_experts == 256 && model.numbers.num_layers == 61 &&
         model.numbers.hidden_size == 7168;
}

}  // namespace moebius::plan
