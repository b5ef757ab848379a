#include "engine/engine_options.h"

namespace moebius::engine {
namespace {

Status AtLeast(const char* field, int64_t value, int64_t least) {
  if (value >= least) return {};
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected at least {}", field, value,
                   least);
}

}  // namespace

Status Validate(const EngineOptions& o) {
  MOEBIUS_TRY(AtLeast("block_size", o.block_size, 1));
  if (o.num_kv_blocks) MOEBIUS_TRY(AtLeast("num_kv_blocks", *o.num_kv_blocks, 1));
  if (!(o.memory_fraction > 0 && o.memory_fraction <= 1)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "memory_fraction is {}, expected a number above 0 and at most 1",
                     o.memory_fraction);
  }
  if (o.max_model_len != 0) MOEBIUS_TRY(AtLeast("max_model_len", o.max_model_len, 2));
  MOEBIUS_TRY(AtLeast("max_num_seqs", o.max_num_seqs, 1));
  if (o.max_num_batched_tokens < o.max_num_seqs) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "max_num_batched_tokens is {}, expected at least max_num_seqs, {}: every "
                     "running request may need a row of the step",
                     o.max_num_batched_tokens, o.max_num_seqs);
  }
  MOEBIUS_TRY(AtLeast("max_num_waiting", o.max_num_waiting, 1));
  MOEBIUS_TRY(AtLeast("step_timeout (ms)", o.step_timeout.count(), 1));
  return {};
}

}  // namespace moebius::engine
