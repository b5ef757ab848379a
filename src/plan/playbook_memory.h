// AMD's playbook on TP, DP, PP and expert parallelism prints a table of memory per GPU for
// DeepSeek-R1 on 8 GPUs. Here it stands as printed, beside the same rows from the model's true
// sizes, with each of its slips. For `moebius plan --rules playbook` and docs/parallelism.md. Pure,
// any thread.
#pragma once

#include <span>
#include <string>

#include "layout/parallel_layout.h"
#include "plan/model_shape.h"

namespace moebius::plan {

// GB on one GPU.
struct PlaybookRow {
  const char* layout;  // "TP8", "TP8+EP", "DP8", "DP8+EP"
  double non_moe = 0;
  double routed = 0;
  double shared = 0;
  double kv = 0;
  double printed_total = 0;
  double Sum() const { return non_moe + routed + shared + kv; }
};
std::span<const PlaybookRow> PlaybookTable();

// The same row from the configuration at one byte a parameter (the playbook's FP8), KV of 512
// tokens of bf16 latent; attention, dense FFN, embedding, head and router are "non-MoE".
struct RecomputedRow {
  std::string layout;
  double non_moe = 0;
  double routed = 0;
  double shared = 0;
  double kv = 0;
  double Total() const { return non_moe + routed + shared; }  // without KV
};
RecomputedRow RecomputeRow(const PlaybookRow& row, const ModelShape& deepseek_r1);

// What is wrong with the printed table, and what is right.
struct PlaybookSlip {
  const char* printed;
  const char* correct;
};
std::span<const PlaybookSlip> PlaybookSlips();

// Does the table speak of this model? (DeepSeek-R1 and V3 have the same sizes.)
bool PlaybookTableIsOf(const ModelShape& model);

}  // namespace moebius::plan
