#include "engine/cuda/step_draws.h"

#include <span>

#include "kernels/cuda/ops/staged.h"
#include "kernels/cuda/rows/sample.h"
#include "platform/cuda/device.h"
#include "tensor/arena.h"

namespace moebius::engine {

using platform::cuda::CopyAsync;
using platform::cuda::DeviceMemory;
using platform::cuda::PinnedMemory;

namespace {

template <typename T>
std::span<T> Take(Arena& arena, int64_t count) {
  return {arena.Alloc<T>(count), static_cast<size_t>(count)};
}

// The same places on the device and in pinned memory.
struct Drawn {
  Drawn(Arena& arena, int64_t draws)
      : tokens(Take<int32_t>(arena, draws)),
        logprobs(Take<float>(arena, draws)),
        ranks(Take<int32_t>(arena, draws)),
        top_tokens(Take<int32_t>(arena, draws * kernels::cuda::kMaxLogprobs)),
        top_logprobs(Take<float>(arena, draws * kernels::cuda::kMaxLogprobs)) {}

  std::span<int32_t> tokens;
  std::span<float> logprobs;
  std::span<int32_t> ranks;
  std::span<int32_t> top_tokens;  // [draws, kernels::cuda::kMaxLogprobs]
  std::span<float> top_logprobs;
};

Drawn DrawnIn(const auto& memory, int64_t draws) {
  Arena arena(memory.data(), memory.size());
  return {arena, draws};
}

}  // namespace

size_t StepDraws::NumBytes(int64_t draws) {
  Arena counting(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  Drawn(counting, draws);
  return counting.used();
}

Status StepDraws::Allocate(int64_t draws, bool is_on, const platform::cuda::Stream& stream) {
  draws_ = draws;
  is_on_ = is_on;
  stream_ = &stream;
  MOEBIUS_ASSIGN(drawn_, DeviceMemory::Allocate(NumBytes(draws)));
  // The first step may read what a step before it would have drawn.
  return platform::cuda::FillAsync(drawn_.data(), 0, drawn_.size(), stream);
}

Status StepDraws::QueueResolve(const StagedPlan& staged, const StepInputs& device) {
  const Drawn drawn = DrawnIn(drawn_, draws_);
  kernels::cuda::ResolveLaunch resolve;
  resolve.tokens = device.tokens.data();
  resolve.rows = staged.sizes().rows;
  resolve.sampled = drawn.tokens.data();
  resolve.pending = device.pending.data();
  resolve.samples = staged.has_open_lists() ? staged.sizes().samples : 0;
  resolve.wishes = device.wishes.data();
  resolve.seen_tokens = device.seen_tokens.data();
  resolve.output_tokens = device.output_tokens.data();
  resolve.output_counts = device.output_counts.data();
  return platform::cuda::ToStatus(kernels::cuda::LaunchResolve(resolve, stream_->get()),
                                  "putting drawn tokens in place");
}

void StepDraws::Draw(kernels::ExecContext& context, const StepInputs& device, int64_t first,
                     Mat logits) {
  if (!is_on_) return;
  const Drawn drawn = DrawnIn(drawn_, draws_);
  kernels::cuda::StagedSample sample;
  sample.launch.wishes = device.wishes.data() + first;
  sample.launch.bias_tokens = device.bias_tokens.data();
  sample.launch.bias_values = device.bias_values.data();
  sample.launch.seen_tokens = device.seen_tokens.data();
  sample.launch.output_tokens = device.output_tokens.data();
  sample.launch.output_counts = device.output_counts.data();
  sample.launch.banned_tokens = device.banned_tokens.data();
  sample.launch.allowed_masks = device.allowed_masks.data();
  sample.launch.tokens = drawn.tokens.data() + first;
  sample.launch.logprobs = drawn.logprobs.data() + first;
  sample.launch.ranks = drawn.ranks.data() + first;
  sample.launch.top_tokens = drawn.top_tokens.data() + first * kernels::cuda::kMaxLogprobs;
  sample.launch.top_logprobs = drawn.top_logprobs.data() + first * kernels::cuda::kMaxLogprobs;
  sample.launch.top_stride = kernels::cuda::kMaxLogprobs;
  kernels::SampleArgs args;
  args.logits = logits;
  args.staged = &sample;
  kernels::Sample(context, args);
}

Status StepDraws::QueueCopy(const StagedPlan& staged, int64_t num_samples, const PinnedMemory& to) {
  if (!is_on_) return {};
  const Drawn device = DrawnIn(drawn_, draws_);
  const Drawn host = DrawnIn(to, draws_);
  // Where log probabilities are wanted no graph needs all of its bucket.
  const auto count =
      static_cast<size_t>(staged.wants_logprobs() ? num_samples : staged.sizes().samples);
  const auto copy = [&](auto to_list, auto from_list, size_t length) {
    return CopyAsync(to_list.data(), from_list.data(), from_list.first(length).size_bytes(),
                     *stream_);
  };
  MOEBIUS_TRY(copy(host.tokens, device.tokens, count));
  if (!staged.wants_logprobs()) return {};
  MOEBIUS_TRY(copy(host.logprobs, device.logprobs, count));
  MOEBIUS_TRY(copy(host.ranks, device.ranks, count));
  MOEBIUS_TRY(copy(host.top_tokens, device.top_tokens, count * kernels::cuda::kMaxLogprobs));
  return copy(host.top_logprobs, device.top_logprobs, count * kernels::cuda::kMaxLogprobs);
}

void StepDraws::Read(const StepPlan& plan, const PinnedMemory& from, StepOutput* output) const {
  if (!is_on_) return;
  const Drawn drawn = DrawnIn(from, draws_);
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const int32_t num_logprobs = plan.samples[i].row.num_logprobs;
    SampledToken token;
    token.token = drawn.tokens[i];
    if (num_logprobs >= 0) {
      token.logprob = drawn.logprobs[i];
      token.rank = drawn.ranks[i];
      token.top_begin = static_cast<int64_t>(output->top_tokens.size());
      token.num_top = num_logprobs;
      for (size_t j = 0; j < static_cast<size_t>(num_logprobs); ++j) {
        output->top_tokens.push_back(drawn.top_tokens[i * kernels::cuda::kMaxLogprobs + j]);
        output->top_logprobs.push_back(drawn.top_logprobs[i * kernels::cuda::kMaxLogprobs + j]);
      }
    }
    output->sampled.push_back(token);
  }
}

}  // namespace moebius::engine
