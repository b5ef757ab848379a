// Choosing tokens on the GPU: the contract of Sample in kernels/ops.h, but that logits stay as they
// were. Random numbers are those of kernels/random.h, so that a row draws the token that the CPU
// draws from the same logits, but where the order of float additions decides. Sums of probabilities
// are integers (units of 2^-40 of the best), so a row's token does not depend on how threads ran.
// Eight blocks a row hold it in shared memory; a launch allocates nothing, waits for nothing and
// may be captured in a graph. Called by the device thread of a rank.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace moebius::kernels::cuda {

// One row's wishes, as SampleRow of kernels/ops.h; lists are ranges of the launch's arrays.
struct DeviceSampleRow {
  float temperature = 1.0f;  // below 1e-5: greedy
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t num_logprobs = -1;  // -1: none; at most kMaxLogprobs
  uint64_t seed = 0;
  int64_t position = 0;
  int32_t given = -1;      // >= 0: this token is scored, none is drawn
  int32_t bias_begin = 0;  // of bias_tokens and bias_values
  int32_t bias_end = 0;
  int32_t seen_begin = 0;  // of seen_tokens
  int32_t seen_end = 0;
  int32_t output_begin = 0;  // of output_tokens and output_counts
  int32_t output_end = 0;
  int32_t banned_begin = 0;  // of banned_tokens
  int32_t banned_end = 0;
  int64_t mask_begin = -1;  // of allowed_masks, in words; -1: all are allowed
};
constexpr int kMaxLogprobs = 128;

struct SampleLaunch {
  const float* logits = nullptr;  // [rows, vocab]
  int64_t logits_stride = 0;
  int64_t rows = 0;
  int64_t vocab = 0;
  const DeviceSampleRow* wishes = nullptr;  // [rows]
  const int32_t* bias_tokens = nullptr;
  const float* bias_values = nullptr;
  const int32_t* seen_tokens = nullptr;    // distinct within a row
  const int32_t* output_tokens = nullptr;  // distinct within a row
  const int32_t* output_counts = nullptr;
  const int32_t* banned_tokens = nullptr;
  const uint32_t* allowed_masks = nullptr;
  int32_t* tokens = nullptr;      // out [rows]; -1: no token may be drawn
  float* logprobs = nullptr;      // out [rows], of the tokens; null if no row wants any
  int32_t* ranks = nullptr;       // out [rows], the tokens' places among the raw logits, from 1
  int32_t* top_tokens = nullptr;  // out [rows, top_stride], best first
  float* top_logprobs = nullptr;  // out [rows, top_stride]
  int64_t top_stride = 0;
};
// 0 or the cudaError_t of the launch.
int LaunchSample(const SampleLaunch& args, CUstream_st* stream);

// What a step's inputs do not know while the step before still runs: the tokens it drew.
constexpr int32_t kPaddingToken = INT32_MIN;
struct ResolveLaunch {
  int32_t* tokens = nullptr;  // [rows]: -1 - r becomes sampled[r], kPaddingToken becomes -1
  int64_t rows = 0;
  const int32_t* sampled = nullptr;  // by the step before
  // [samples]: the row of `sampled` that sample i's lists do not count yet, or -1. Lists that it
  // belongs into (repetition: seen, presence and frequency: output) end with a free place for it.
  const int32_t* pending = nullptr;
  int64_t samples = 0;
  DeviceSampleRow* wishes = nullptr;
  int32_t* seen_tokens = nullptr;
  int32_t* output_tokens = nullptr;
  int32_t* output_counts = nullptr;
};
int LaunchResolve(const ResolveLaunch& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
