#include "engine/output_codec.h"

#include <cstring>
#include <type_traits>

namespace moebius::engine {
namespace {

struct Head {
  int64_t step_id = -1;
  int64_t num_sampled = 0;
  int64_t num_top = 0;
};

template <typename T>
void Append(std::span<const T> list, std::vector<std::byte>& block) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto bytes = std::as_bytes(list);
  block.insert(block.end(), bytes.begin(), bytes.end());
}

template <typename T>
std::span<const std::byte> Take(std::span<const std::byte> block, int64_t count,
                                std::vector<T>& list) {
  list.resize(static_cast<size_t>(count));
  const size_t bytes = list.size() * sizeof(T);
  if (bytes > 0) std::memcpy(list.data(), block.data(), bytes);
  return block.subspan(bytes);
}

}  // namespace

std::vector<std::byte> EncodeOutput(const StepOutput& output) {
  const Head head = {.step_id = output.step_id,
                     .num_sampled = static_cast<int64_t>(output.sampled.size()),
                     .num_top = static_cast<int64_t>(output.top_tokens.size())};
  std::vector<std::byte> block;
  Append(std::span(&head, 1), block);
  Append(std::span(output.sampled), block);
  Append(std::span(output.top_tokens), block);
  Append(std::span(output.top_logprobs), block);
  return block;
}

Result<StepOutput> DecodeOutput(std::span<const std::byte> block) {
  Head head;
  if (block.size() < sizeof(head)) {
    return MakeError(ErrorCode::kCorrupt, "a step's output has {} bytes, expected at least {}",
                     block.size(), sizeof(head));
  }
  std::memcpy(&head, block.data(), sizeof(head));
  block = block.subspan(sizeof(head));
  constexpr size_t kTopBytes = sizeof(TokenId) + sizeof(float);
  const auto most = static_cast<int64_t>(block.size());
  const bool is_sound = head.num_sampled >= 0 && head.num_sampled <= most && head.num_top >= 0 &&
                        head.num_top <= most &&
                        static_cast<size_t>(head.num_sampled) * sizeof(SampledToken) +
                                static_cast<size_t>(head.num_top) * kTopBytes ==
                            block.size();
  if (!is_sound) {
    return MakeError(ErrorCode::kCorrupt,
                     "the output of step {} has {} bytes for {} tokens and {} alternatives",
                     head.step_id, block.size(), head.num_sampled, head.num_top);
  }
  StepOutput output;
  output.step_id = head.step_id;
  block = Take(block, head.num_sampled, output.sampled);
  block = Take(block, head.num_top, output.top_tokens);
  Take(block, head.num_top, output.top_logprobs);
  for (const SampledToken& token : output.sampled) {
    const bool fits = token.num_top >= 0 && token.top_begin >= 0 && token.num_top <= head.num_top &&
                      token.top_begin <= head.num_top - token.num_top;
    if (!fits) {
      return MakeError(
          ErrorCode::kCorrupt, "a token of step {} has alternatives {} to {}, expected at most {}",
          head.step_id, token.top_begin, token.top_begin + token.num_top, head.num_top);
    }
  }
  return output;
}

}  // namespace moebius::engine
