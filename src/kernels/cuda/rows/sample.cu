// A cluster of blocks a row. What top-k and top-p leave is described by the last token kept in the
// order best first, ties to the lowest id. The draw finds its id by sums of blocks and warps, then
// within one warp. A small top-k is put together as a list first.
#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/sample.h"
#include "kernels/cuda/rows/sample_row.cuh"
#include "kernels/cuda/rows/sample_select.cuh"
#include "kernels/random.h"
#include "kernels/tuning/device_limits.h"

namespace moebius::kernels::cuda {
namespace {

using namespace sampling;

constexpr int kListedTopK = 256;
constexpr float kGreedy = 1e-5f;            // kGreedyTemperature
constexpr float kUnits = 1099511627776.0f;  // 2^40
constexpr int kMaxSharedBytes = 227 * 1024;
static_assert(kMaxLogprobs <= kListed && kListedTopK <= kListed);
static_assert(IdsOfBlock(kMaxSampleVocab) * sizeof(float) + sizeof(Shared) <= kMaxSharedBytes);

__device__ Units UnitsOf(float probability) { return __float2ull_rn(probability * kUnits); }
// Of the best token 1, also where it is infinite.
__device__ float Probability(float x, float top, float factor) {
  return expf(fminf((x - top) * factor, 0.0f));
}
__device__ Units PartOf(Units all, float part) {
  return static_cast<Units>(fmax(1.0, ceil(part * static_cast<double>(all))));
}
__device__ Units TargetOf(const DeviceSampleRow& wish, Units total) {
  const double target = UniformAt(wish.seed, wish.position) * static_cast<double>(total);
  return min(static_cast<Units>(target), total - 1);
}

// Draws from the `count` best tokens, which are listed. Every block does.
__device__ int DrawListed(Shared& sh, const DeviceSampleRow& wish, int count, float top) {
  const int t = static_cast<int>(threadIdx.x);
  const Token token = t < count ? sh.list[t] : kNoToken;
  const float p = t < count ? Probability(token.logit, top, 1.0f / wish.temperature) : 0.0f;
  Units mine = UnitsOf(p);
  Units total = 0;
  if (wish.top_p < 1.0f) {
    const Units before = Scan(sh, mine, &total) - mine;
    if (before >= PartOf(total, wish.top_p)) mine = 0;
  }
  if (p < wish.min_p && t != 0) mine = 0;
  Scan(sh, mine, &total);
  sh.low[t] = static_cast<uint32_t>(mine);
  sh.high[t] = static_cast<uint32_t>(mine >> 32);
  __syncthreads();
  Units before = 0;  // by id
  for (int i = 0; mine != 0 && i < count; ++i) {
    if (sh.list[i].id < token.id) before += BinAt(sh, i);
  }
  const Units target = TargetOf(wish, total);
  if (before <= target && target < before + mine) sh.found = token.id;
  __syncthreads();
  return sh.found;
}

__device__ int Draw(Row& row, const DeviceSampleRow& wish) {
  float best_of_thread = 0;
  const Token best = row.Best(&best_of_thread);
  if (best.id < 0 || wish.temperature < kGreedy) return best.id;
  if (wish.top_k > 0 && wish.top_k <= kListedTopK) {
    const int count = ListBest(row, best.logit, best_of_thread, wish.top_k);
    if (count >= 0) return DrawListed(row.sh, wish, min(count, wish.top_k), best.logit);
  }
  Token last = kNoToken;
  if (wish.top_k > 0) {
    last = Select(row, best.logit, 1, wish.top_k, [](int, float) -> Units { return 1; });
  }
  const float factor = 1.0f / wish.temperature;
  const auto mass = [&](int id, float x) -> Units {
    return UnitsOf(Probability(Keeps(last, id, x) ? x : kNever, best.logit, factor));
  };
  if (wish.top_p < 1.0f) {
    const Units wanted = PartOf(row.Total(mass), wish.top_p);
    const Token next = Select(row, best.logit, factor, wanted, mass);
    if (next.id >= 0) last = next;
  }
  const float min_p = wish.min_p;
  const auto drawn = [&](int id, float x) -> Units {
    const float p = Probability(Keeps(last, id, x) ? x : kNever, best.logit, factor);
    return UnitsOf((p >= min_p) | (id == best.id) ? p : 0.0f);
  };
  const Units total = row.Total(drawn);
  return row.FirstAbove(TargetOf(wish, total), drawn);
}

// The best raw logits, best first, as log probabilities; returns the logarithm of the softmax's
// denominator.
__device__ double TopLogprobs(Row& row, const SampleLaunch& args, int64_t r, int wanted) {
  float best_of_thread = 0;
  const Token best = row.Best(&best_of_thread);
  if (best.id < 0) return NAN;
  const Units sum = row.Total([&](int, float x) -> Units {
    return UnitsOf(Probability(Possible(x) ? x : kNever, best.logit, 1));
  });
  const double normaliser = best.logit + log(static_cast<double>(sum) / kUnits);
  if (wanted > 0) {
    int count = ListBest(row, best.logit, best_of_thread, wanted);
    if (count < 0) {
      const Token last = Select(row, best.logit, 1, wanted, [](int, float) -> Units { return 1; });
      count = List(row, [&](int id, float x) { return Keeps(last, id, x); });
    }
    if (row.block() == 0) {
      for (int i = static_cast<int>(threadIdx.x); i < wanted; i += kThreads) {
        const Token token = i < count ? row.sh.list[i] : kNoToken;
        args.top_tokens[r * args.top_stride + i] = token.id;
        args.top_logprobs[r * args.top_stride + i] =
            i < count ? static_cast<float>(token.logit - normaliser) : kNever;
      }
    }
  }
  return normaliser;
}

// Of an id that comes several times the first adds all values, in order.
__device__ void AddBias(Row& row, const SampleLaunch& args, const DeviceSampleRow& wish) {
  for (int i = wish.bias_begin + static_cast<int>(threadIdx.x); i < wish.bias_end; i += kThreads) {
    const int id = args.bias_tokens[i];
    float* const logit = row.Find(id);
    if (logit == nullptr) continue;
    bool is_first = true;
    for (int j = wish.bias_begin; j < i; ++j) is_first = is_first && args.bias_tokens[j] != id;
    for (int j = i; is_first && j < wish.bias_end; ++j) {
      if (args.bias_tokens[j] == id) *logit += args.bias_values[j];
    }
  }
}

// Biases, penalties, then what must not be drawn.
__device__ void Penalise(Row& row, const SampleLaunch& args, const DeviceSampleRow& wish) {
  const int t = static_cast<int>(threadIdx.x);
  AddBias(row, args, wish);
  __syncthreads();
  for (int i = wish.seen_begin + t; i < wish.seen_end; i += kThreads) {
    float* const logit = row.Find(args.seen_tokens[i]);
    if (logit == nullptr) continue;
    *logit = *logit > 0 ? *logit / wish.repetition_penalty : *logit * wish.repetition_penalty;
  }
  __syncthreads();
  for (int i = wish.output_begin + t; i < wish.output_end; i += kThreads) {
    float* const logit = row.Find(args.output_tokens[i]);
    if (logit == nullptr) continue;
    // As the CPU: two roundings each, no fused product.
    const auto count = static_cast<float>(args.output_counts[i]);
    *logit = __fsub_rn(*logit, __fmul_rn(wish.frequency_penalty, count));
    *logit = __fsub_rn(*logit, wish.presence_penalty);
  }
  __syncthreads();
  for (int i = wish.banned_begin + t; i < wish.banned_end; i += kThreads) {
    float* const logit = row.Find(args.banned_tokens[i]);
    if (logit != nullptr) *logit = kNever;
  }
  if (wish.mask_begin >= 0) row.Forbid(args.allowed_masks + wish.mask_begin);
  __syncthreads();
}

// The token's place in the order of the raw logits, from 1.
__device__ int RankOf(Row& row, int token, float logit, int vocab) {
  const uint32_t key = KeyOf(logit);
  const Units better = row.Total([&](int id, float x) -> Units {
    const uint32_t other = KeyOf(x);
    return id < vocab && (other > key || (other == key && id < token)) ? 1 : 0;
  });
  return static_cast<int>(better) + 1;
}

__global__ void __cluster_dims__(kBlocks) __launch_bounds__(kThreads, 3)
    SampleKernel(const __grid_constant__ SampleLaunch args) {
  extern __shared__ float4 memory[];
  __shared__ Shared sh;
  const DeviceSampleRow& wish = sh.wish;
  if (threadIdx.x == 0) {
    ptx::BarrierInit(&sh.arrived[0], 1);
    ptx::BarrierInit(&sh.arrived[1], 1);
    ptx::BarrierInitFence();
  }
  ptx::ClusterSync();  // all blocks are there to be written to
  moebius::cuda::AwaitEarlier();
  const int64_t r = blockIdx.x / kBlocks;
  if (threadIdx.x == 0) sh.wish = args.wishes[r];
  __syncthreads();
  const int vocab = static_cast<int>(args.vocab);
  const float* const logits = args.logits + r * args.logits_stride;
  const bool wants_logprobs = wish.num_logprobs >= 0;
  Row row(reinterpret_cast<float*>(memory), sh, vocab);
  int token = wish.given;
  if (token < 0 || wants_logprobs) row.Load(logits);
  const double normaliser = wants_logprobs ? TopLogprobs(row, args, r, wish.num_logprobs) : 0.0;
  if (token < 0) {
    Penalise(row, args, wish);
    token = Draw(row, wish);
  }
  const bool writes = row.block() == 0 && threadIdx.x == 0;
  if (writes) args.tokens[r] = token;
  if (!wants_logprobs) return;
  const float logit = token >= 0 ? logits[token] : 0.0f;
  int rank = 0;
  if (token >= 0) {
    if (wish.given < 0) row.Load(logits);  // once more without penalties
    rank = RankOf(row, token, logit, vocab);
  }
  if (!writes) return;
  args.ranks[r] = rank;
  args.logprobs[r] =
      token < 0 ? 0.0f : (Possible(logit) ? static_cast<float>(logit - normaliser) : kNever);
}

}  // namespace

int LaunchSample(const SampleLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.vocab > kMaxSampleVocab) return cudaErrorInvalidValue;
  const auto bytes = static_cast<int>(IdsOfBlock(args.vocab) * sizeof(float));
  const cudaError_t error =
      cudaFuncSetAttribute(SampleKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return moebius::cuda::LaunchEarly(SampleKernel, static_cast<unsigned>(args.rows * kBlocks),
                                    kThreads, static_cast<size_t>(bytes), stream, args);
}

}  // namespace moebius::kernels::cuda
