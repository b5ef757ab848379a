#include "engine/engine_options.h"

namespace moebius::engine {
namespace {

// Far above what any machine can use; below them no product of two overflows.
constexpr int64_t kMaxBlockSize = int64_t{1} << 20;
constexpr int64_t kMaxKvBlocks = (int64_t{1} << 31) - 8;  // what block ids can name
constexpr int64_t kMaxModelLen = int64_t{1} << 31;
constexpr int64_t kMaxRows = int64_t{1} << 24;  // of a step; one sequence has at least one
constexpr int64_t kMaxPrefillInterval = 1 << 20;

Status CheckRange(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected a number from {} to {}", flag,
                   value, low, high);
}

}  // namespace

Status Validate(const EngineOptions& o) {
  MOEBIUS_TRY(CheckRange("--block-size", o.block_size, 1, kMaxBlockSize));
  if (o.num_kv_blocks) {
    MOEBIUS_TRY(CheckRange("--num-kv-blocks", *o.num_kv_blocks, 1, kMaxKvBlocks));
  }
  if (!(o.memory_fraction > 0 && o.memory_fraction <= 1)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--gpu-memory-utilization is {}, expected a number above 0 and at most 1",
                     o.memory_fraction);
  }
  if (o.max_model_len != 0) {
    MOEBIUS_TRY(CheckRange("--max-model-len", o.max_model_len, 2, kMaxModelLen));
  }
  MOEBIUS_TRY(CheckRange("--max-num-seqs", o.max_num_seqs, 1, kMaxRows));
  MOEBIUS_TRY(CheckRange("--max-num-batched-tokens", o.max_num_batched_tokens, 1, kMaxRows));
  if (o.max_num_batched_tokens < o.max_num_seqs) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--max-num-batched-tokens is {}, expected at least --max-num-seqs, {}: every "
                     "running request may need a row of the step",
                     o.max_num_batched_tokens, o.max_num_seqs);
  }
  MOEBIUS_TRY(CheckRange("--prefill-interval", o.prefill_interval, 1, kMaxPrefillInterval));
  MOEBIUS_TRY(CheckRange("max_num_waiting", o.max_num_waiting, 1, kMaxRows));
  if (o.step_timeout.count() < 1) {
    return MakeError(ErrorCode::kInvalidArgument, "--step-timeout is {} ms, expected at least 1",
                     o.step_timeout.count());
  }
  return {};
}

}  // namespace moebius::engine
