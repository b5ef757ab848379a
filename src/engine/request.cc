#include "engine/request.h"

#include "engine/engine_client.h"

namespace moebius::engine {

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

Status Validate(const RequestInput& input, const EngineLimits& limits) {
  if (input.prompt.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "prompt is empty, expected at least one token");
  }
  const int64_t num_tokens = static_cast<int64_t>(input.prompt.size());
  if (num_tokens >= limits.max_model_len) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "prompt has {} tokens, expected fewer than max_model_len, {}, which the "
                     "prompt and at least one output token must fit in",
                     num_tokens, limits.max_model_len);
  }
  for (size_t i = 0; i < input.prompt.size(); ++i) {
    if (input.prompt[i] < 0 || input.prompt[i] >= limits.vocab_size) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "prompt token {} has id {}, expected ids from 0 to {}", i, input.prompt[i],
                       limits.vocab_size - 1);
    }
  }
  if (input.priority < -kMaxPriority || input.priority > kMaxPriority) {
    return MakeError(ErrorCode::kInvalidArgument, "priority is {}, expected a number from {} to {}",
                     input.priority, -kMaxPriority, kMaxPriority);
  }
  if (input.data_parallel_rank &&
      (*input.data_parallel_rank < 0 || *input.data_parallel_rank >= limits.data_parallel_size)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "data_parallel_rank is {}, expected a rank from 0 to {}",
                     *input.data_parallel_rank, limits.data_parallel_size - 1);
  }
  return Validate(input.sampling, limits.vocab_size);
}

}  // namespace moebius::engine
