// One block a row. What top-k and top-p leave is described by a cut: the logit and the id of the
// last token kept in the order best first, ties to the lowest id. Cuts are found digit by digit in
// histograms of counts or of probability mass by logit, without sorting. Every warp has a range of
// ids of its own; the draw and ties find their id by the warps' sums, then within one warp.
#include <cuda_runtime.h>

#include "kernels/cuda/rows/sample.h"
#include "kernels/random.h"

namespace moebius::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr int kListed = 2048;  // candidates that fit in shared memory
constexpr float kNever = -INFINITY;
constexpr float kGreedy = 1e-5f;            // kGreedyTemperature
constexpr float kUnits = 1099511627776.0f;  // 2^40

using Units = unsigned long long;

struct Cut {
  uint32_t key = 0;
  int32_t id = INT32_MAX;
};

struct Shared {
  Units bins[kBins];
  Units sums[kWarps];
  Units before;
  int bin;
  int id;
  float values[kWarps];
  int ids[kWarps];
  int count;
  float thread_best[kThreads];
  float bound;
  alignas(16) float listed_logits[kListed];
  int listed_ids[kListed];
  float found_logits[kMaxLogprobs];
  int found_ids[kMaxLogprobs];
};

// Order of logits as order of unsigned integers; NaN counts as -inf, both zeros are one.
__device__ uint32_t Key(float x) {
  if (isnan(x)) x = kNever;
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ bool Possible(float x) { return x > kNever; }  // not NaN either

// A row of logits, split over the warps.
struct Row {
  float* logits;
  int vocab;
  bool aligned;  // to 16 bytes

  __device__ int RangeBegin(int warp) const {
    const int size = ((vocab + kWarps - 1) / kWarps + 127) / 128 * 128;
    return min(vocab, warp * size);
  }
  __device__ float4 Four(int id) const {
    if (aligned && id + 4 <= vocab) return *reinterpret_cast<const float4*>(logits + id);
    return make_float4(id < vocab ? logits[id] : kNever, id + 1 < vocab ? logits[id + 1] : kNever,
                       id + 2 < vocab ? logits[id + 2] : kNever,
                       id + 3 < vocab ? logits[id + 3] : kNever);
  }
  // Calls visit(id, logit) for this warp's ids; four of a lane in a row, ascending.
  template <typename Visit>
  __device__ void ForMine(const Visit& visit) const {
    const int begin = RangeBegin(threadIdx.x / 32);
    const int end = RangeBegin(threadIdx.x / 32 + 1);
    for (int base = begin; base < end; base += 512) {
      float4 x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int id = base + i * 128 + threadIdx.x % 32 * 4;
        x[i] = id < end ? Four(id) : make_float4(kNever, kNever, kNever, kNever);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int id = base + i * 128 + threadIdx.x % 32 * 4;
        visit(id, x[i].x);
        visit(id + 1, x[i].y);
        visit(id + 2, x[i].z);
        visit(id + 3, x[i].w);
      }
    }
  }
};

template <typename T>
__device__ T WarpTotal(T x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// The largest logit and its lowest id (id -1: none possible). Every thread gets them.
__device__ float Best(const Row& row, Shared& sh, int& best_id) {
  float best = kNever;
  int id = INT32_MAX;
  row.ForMine([&](int i, float x) {
    if (x > best) {
      best = x;
      id = i;
    }
  });
  const auto merge = [&](float other, int other_id) {
    if (other > best || (other == best && other_id < id)) {
      best = other;
      id = other_id;
    }
  };
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(~0u, best, step);
    const int other_id = __shfl_xor_sync(~0u, id, step);
    merge(other, other_id);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    sh.values[threadIdx.x / 32] = best;
    sh.ids[threadIdx.x / 32] = id;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) merge(sh.values[w], sh.ids[w]);
  best_id = best == kNever ? -1 : id;
  return best;
}

// A value that at least `count` (at most kThreads) logits reach: that one of the threads' largest.
// -inf if fewer threads have any.
__device__ float ReachedBy(const Row& row, Shared& sh, int count) {
  float best = kNever;
  row.ForMine([&](int /*id*/, float x) { best = x > best ? x : best; });
  __syncthreads();
  sh.thread_best[threadIdx.x] = best;
  __syncthreads();
  int rank = 0;
  for (int t = 0; t < kThreads; ++t) {
    const float other = sh.thread_best[t];
    rank += other > best || (other == best && t < static_cast<int>(threadIdx.x)) ? 1 : 0;
  }
  if (rank == count - 1) sh.bound = best;
  __syncthreads();
  return sh.bound;
}

// Lists the tokens with logits of at least `bound` by id; false if they do not fit.
__device__ bool List(const Row& row, Shared& sh, float bound) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const auto listed = [&](float x) { return Possible(x) && x >= bound ? 1 : 0; };
  int mine = 0;
  row.ForMine([&](int /*id*/, float x) { mine += listed(x); });
  mine = WarpTotal(mine);
  if (lane == 0) sh.ids[warp] = mine;
  __syncthreads();
  int at = 0;
  int all = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) at += sh.ids[w];
    all += sh.ids[w];
  }
  if (threadIdx.x == 0) sh.count = all;
  if (all <= kListed && mine > 0) {
    const int end = row.RangeBegin(warp + 1);
    for (int base = row.RangeBegin(warp); base < end; base += 128) {
      const int id = base + lane * 4;
      const float4 x = id < end ? row.Four(id) : make_float4(kNever, kNever, kNever, kNever);
      const float four[4] = {x.x, x.y, x.z, x.w};
      const int own = listed(x.x) + listed(x.y) + listed(x.z) + listed(x.w);
      if (__any_sync(~0u, own != 0) == 0) continue;
      int sum = own;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
      }
      int to = at + sum - own;
      for (int j = 0; j < 4; ++j) {
        if (listed(four[j]) == 0) continue;
        sh.listed_logits[to] = four[j];
        sh.listed_ids[to++] = id + j;
      }
      at += __shfl_sync(~0u, sum, 31);
    }
  }
  __syncthreads();
  return all <= kListed;
}

// The sum over the row of weight(id, logit), given to every thread; sh.sums holds the warps'.
template <typename Weight>
__device__ Units Total(const Row& row, Shared& sh, const Weight& weight) {
  Units mine = 0;
  row.ForMine([&](int id, float x) { mine += weight(id, x); });
  mine = WarpTotal(mine);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sh.sums[threadIdx.x / 32] = mine;
  __syncthreads();
  Units total = 0;
  for (int w = 0; w < kWarps; ++w) total += sh.sums[w];
  return total;
}

// The first id at which the running sum of weight(id, logit), by id, exceeds `target` (less than
// the total). After Total with the same weights.
template <typename Weight>
__device__ int FirstAbove(const Row& row, Shared& sh, Units target, const Weight& weight) {
  const int warp = threadIdx.x / 32;
  Units before = 0;
  for (int w = 0; w < warp; ++w) before += sh.sums[w];
  if (before <= target && target < before + sh.sums[warp]) {
    const int begin = row.RangeBegin(warp);
    const int end = row.RangeBegin(warp + 1);
    const int lane = threadIdx.x % 32;
    for (int base = begin; base < end; base += 128) {
      const int id = base + lane * 4;
      const float4 x = id < end ? row.Four(id) : make_float4(kNever, kNever, kNever, kNever);
      const Units w[4] = {weight(id, x.x), weight(id + 1, x.y), weight(id + 2, x.z),
                          weight(id + 3, x.w)};
      const Units own = w[0] + w[1] + w[2] + w[3];
      Units sum = own;
      for (int step = 1; step < 32; step *= 2) {
        const Units other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
      }
      const uint32_t above = __ballot_sync(~0u, before + sum > target);
      if (above == 0) {
        before += __shfl_sync(~0u, sum, 31);
        continue;
      }
      if (lane == __ffs(above) - 1) {
        Units at = before + sum - own;
        int j = 0;
        while (j < 3 && at + w[j] <= target) at += w[j++];
        sh.id = id + j;
      }
      break;
    }
  }
  __syncthreads();
  return sh.id;
}

// Where the running sum of weight(key), best first, reaches `wanted`: the last token kept.
template <typename Weight>
__device__ Cut Select(const Row& row, Shared& sh, double wanted, const Weight& weight) {
  uint32_t prefix = 0;
  uint32_t decided = 0;  // mask of the digits known
  Units better = 0;      // sum of what is above the prefix
  for (int digit = 0; digit < 3; ++digit) {
    const int shift = digit == 0 ? 21 : (digit == 1 ? 10 : 0);
    const uint32_t bins = digit == 2 ? 1024 : 2048;
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kThreads) sh.bins[i] = 0;
    if (threadIdx.x == 0) sh.bin = -1;
    __syncthreads();
    row.ForMine([&](int id, float x) {
      if (!Possible(x)) return;
      const uint32_t key = Key(x);
      if (((key ^ prefix) & decided) != 0) return;
      const Units w = weight(id, x);
      if (w != 0) atomicAdd(&sh.bins[key >> shift & (bins - 1)], w);
    });
    __syncthreads();
    // Thread t has bins 2047 - 2 t and 2046 - 2 t: descending.
    const int high = kBins - 1 - 2 * static_cast<int>(threadIdx.x);
    const Units first = sh.bins[high];
    const Units own = first + sh.bins[high - 1];
    Units sum = own;
    const int lane = threadIdx.x % 32;
    for (int step = 1; step < 32; step *= 2) {
      const Units other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) sh.sums[threadIdx.x / 32] = sum;
    __syncthreads();
    Units before = better + sum - own;
    for (int w = 0; w < static_cast<int>(threadIdx.x) / 32; ++w) before += sh.sums[w];
    if (static_cast<double>(before) < wanted && static_cast<double>(before + own) >= wanted) {
      const bool in_first = static_cast<double>(before + first) >= wanted;
      sh.bin = in_first ? high : high - 1;
      sh.before = in_first ? before : before + first;
    }
    __syncthreads();
    if (sh.bin < 0) return {};  // all of them do not reach it
    prefix |= static_cast<uint32_t>(sh.bin) << shift;
    decided |= (bins - 1) << shift;
    better = sh.before;
  }
  // Tokens of one logit weigh the same: the first few by id are kept.
  const Units tied = sh.bins[prefix & 1023];
  const auto ties = [&](int id, float x) -> Units {
    return Possible(x) && Key(x) == prefix && weight(id, x) != 0 ? 1 : 0;
  };
  const Units count = Total(row, sh, ties);
  const double each = static_cast<double>(tied) / static_cast<double>(count);
  Units kept = static_cast<Units>(ceil((wanted - static_cast<double>(better)) / each));
  if (kept < 1) kept = 1;
  if (kept >= count) return {prefix, INT32_MAX};
  return {prefix, FirstAbove(row, sh, kept - 1, ties)};
}

__device__ bool Keeps(const Cut& cut, int id, float x) {
  const uint32_t key = Key(x);
  return key > cut.key || (key == cut.key && id <= cut.id);
}

// Draws from a row: the logits themselves, or a list of them by id, which draws the same.
__device__ int DrawFrom(const Row& row, Shared& sh, const DeviceSampleRow& wish, float top,
                        int best_id) {
  Cut cut;
  const auto one = [](int /*id*/, float /*x*/) -> Units { return 1; };
  if (wish.top_k > 0 && wish.top_k < row.vocab) cut = Select(row, sh, wish.top_k, one);
  const float factor = 1.0f / wish.temperature;
  const auto probability = [&](float x) { return expf((x - top) * factor); };
  const auto mass = [&](int id, float x) -> Units {
    return Possible(x) && Keeps(cut, id, x) ? __float2ull_rn(probability(x) * kUnits) : 0;
  };
  if (wish.top_p < 1.0f) {
    const Units all = Total(row, sh, mass);
    const Cut next = Select(row, sh, fmax(1.0, wish.top_p * static_cast<double>(all)), mass);
    if (next.key > cut.key || (next.key == cut.key && next.id < cut.id)) cut = next;
  }
  const auto drawn = [&](int id, float x) -> Units {
    if (!Possible(x) || !Keeps(cut, id, x)) return 0;
    const float p = probability(x);
    return p < wish.min_p && id != best_id ? 0 : __float2ull_rn(p * kUnits);
  };
  const Units total = Total(row, sh, drawn);
  const double target = UniformAt(wish.seed, wish.position) * static_cast<double>(total);
  return FirstAbove(row, sh, min(static_cast<Units>(target), total - 1), drawn);
}

__device__ int Draw(const Row& row, Shared& sh, const DeviceSampleRow& wish) {
  int best_id = -1;
  const float top = Best(row, sh, best_id);
  if (best_id < 0 || wish.temperature < kGreedy) return best_id;
  // A small top-k: what can be among the best k is put together first.
  if (wish.top_k > 0 && wish.top_k <= kThreads && row.vocab > kListed &&
      List(row, sh, ReachedBy(row, sh, wish.top_k))) {
    const Row listed = {sh.listed_logits, sh.count, true};
    Best(listed, sh, best_id);
    return sh.listed_ids[DrawFrom(listed, sh, wish, top, best_id)];
  }
  return DrawFrom(row, sh, wish, top, best_id);
}

// The n best raw logits, best first, as log probabilities; returns the logarithm of the softmax's
// denominator.
__device__ float TopLogprobs(const Row& row, Shared& sh, const SampleLaunch& args, int n) {
  int best_id = -1;
  const float top = Best(row, sh, best_id);
  if (best_id < 0) return NAN;
  const Units sum = Total(row, sh, [&](int /*id*/, float x) -> Units {
    return Possible(x) ? __float2ull_rn(expf(x - top) * kUnits) : 0;
  });
  const double normaliser = top + log(static_cast<double>(sum) / kUnits);
  if (n == 0) return static_cast<float>(normaliser);
  const Cut cut = Select(row, sh, n, [](int, float) -> Units { return 1; });
  __syncthreads();
  if (threadIdx.x == 0) sh.count = 0;
  __syncthreads();
  row.ForMine([&](int id, float x) {
    if (!Possible(x) || !Keeps(cut, id, x)) return;
    const int at = atomicAdd(&sh.count, 1);
    sh.found_logits[at] = x;
    sh.found_ids[at] = id;
  });
  __syncthreads();
  const int count = sh.count;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const int64_t base = blockIdx.x * args.top_stride;
    if (i >= count) {
      args.top_tokens[base + i] = -1;
      args.top_logprobs[base + i] = kNever;
      continue;
    }
    const float x = sh.found_logits[i];
    const int id = sh.found_ids[i];
    int rank = 0;
    for (int j = 0; j < count; ++j) {
      const float y = sh.found_logits[j];
      rank += y > x || (y == x && sh.found_ids[j] < id) ? 1 : 0;
    }
    args.top_tokens[base + rank] = id;
    args.top_logprobs[base + rank] = static_cast<float>(x - normaliser);
  }
  return static_cast<float>(normaliser);
}

// Biases, penalties, then what must not be drawn.
__device__ void Penalise(const Row& row, const SampleLaunch& args, const DeviceSampleRow& wish) {
  if (threadIdx.x == 0) {  // in order: an id may come twice
    for (int i = wish.bias_begin; i < wish.bias_end; ++i) {
      row.logits[args.bias_tokens[i]] += args.bias_values[i];
    }
  }
  __syncthreads();
  for (int i = wish.seen_begin + threadIdx.x; i < wish.seen_end; i += kThreads) {
    float& logit = row.logits[args.seen_tokens[i]];
    logit = logit > 0 ? logit / wish.repetition_penalty : logit * wish.repetition_penalty;
  }
  __syncthreads();
  for (int i = wish.output_begin + threadIdx.x; i < wish.output_end; i += kThreads) {
    float& logit = row.logits[args.output_tokens[i]];
    // As the CPU: two roundings each, no fused product.
    logit = __fsub_rn(logit,
                      __fmul_rn(wish.frequency_penalty, static_cast<float>(args.output_counts[i])));
    logit = __fsub_rn(logit, wish.presence_penalty);
  }
  __syncthreads();
  for (int i = wish.banned_begin + threadIdx.x; i < wish.banned_end; i += kThreads) {
    row.logits[args.banned_tokens[i]] = kNever;
  }
  if (wish.mask_begin >= 0) {
    for (int word = threadIdx.x; word * 32 < row.vocab; word += kThreads) {
      const uint32_t bits = args.allowed_masks[wish.mask_begin + word];
      if (bits == ~0u) continue;
      for (int id = word * 32; id < min(row.vocab, word * 32 + 32); ++id) {
        if ((bits >> (id % 32) & 1) == 0) row.logits[id] = kNever;
      }
    }
  }
  __syncthreads();
}

// The token's place in the order of the raw logits, from 1.
__device__ int RankOf(const Row& raw, Shared& sh, int token) {
  const uint32_t key = Key(raw.logits[token]);
  const Units better = Total(raw, sh, [&](int id, float x) -> Units {
    const uint32_t other = Key(x);
    return id < raw.vocab && (other > key || (other == key && id < token)) ? 1 : 0;
  });
  return static_cast<int>(better) + 1;
}

__global__ void __launch_bounds__(kThreads)
    SampleKernel(const __grid_constant__ SampleLaunch args) {
  __shared__ Shared sh;
  const DeviceSampleRow wish = args.wishes[blockIdx.x];
  float* logits = args.logits + blockIdx.x * args.logits_stride;
  const auto row_at = [&](float* at) {
    return Row{at, static_cast<int>(args.vocab), reinterpret_cast<uintptr_t>(at) % 16 == 0};
  };
  const Row row = row_at(logits);
  const bool wants_logprobs = wish.num_logprobs >= 0;
  const Row raw = row_at(wants_logprobs ? args.raw + blockIdx.x * args.vocab : logits);
  float normaliser = 0;
  if (wants_logprobs) {
    for (int64_t id = threadIdx.x; id < args.vocab; id += kThreads) raw.logits[id] = logits[id];
    normaliser = TopLogprobs(row, sh, args, wish.num_logprobs);
    __syncthreads();
  }
  int token = wish.given;
  if (token < 0) {
    Penalise(row, args, wish);
    token = Draw(row, sh, wish);
  }
  if (threadIdx.x == 0) args.tokens[blockIdx.x] = token;
  if (!wants_logprobs) return;
  const int rank = token >= 0 ? RankOf(raw, sh, token) : 0;
  if (threadIdx.x != 0) return;
  args.ranks[blockIdx.x] = rank;
  const float logit = token >= 0 ? raw.logits[token] : 0.0f;
  args.logprobs[blockIdx.x] = token < 0 ? 0.0f : (Possible(logit) ? logit - normaliser : kNever);
}

}  // namespace

int LaunchSample(const SampleLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  SampleKernel<<<static_cast<unsigned>(args.rows), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace moebius::kernels::cuda
