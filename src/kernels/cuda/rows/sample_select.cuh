// The best tokens of a row without sorting it. A token's place says how far its logit is from the
// best one, in steps, then which logit it is exactly; places are narrowed digit by digit in
// histograms, until what is left fits in a list, which is sorted. Nearly always one digit is
// enough. Called as sample_row.cuh says.
#pragma once

#include "kernels/cuda/rows/sample_row.cuh"

namespace moebius::kernels::cuda::sampling {

constexpr int kDigitBits = 10;
static_assert(kBins == 1 << kDigitBits && kBins == 2 * kThreads && kListed <= kThreads);
constexpr uint32_t kFarthest = (1u << 20) - 1;  // 32 units and more
constexpr int kPlaceBits = 20 + 32;

// Whether a token is possible and, best first, not behind the last one that is kept (kNoToken: all
// are).
__device__ inline bool Keeps(const Token& last, int32_t id, float x) {
  return (x > last.logit) | ((x == last.logit) & (id <= last.id));
}

// The digits that are known of the place where a running sum, best first, reaches a number.
struct Search {
  float top = 0;
  float steps = 0;  // of places, where logits differ by 1
  uint64_t digits = 0;
  int below = kPlaceBits;  // bits not known yet
  Units before = 0;        // the sum of better places

  __device__ Search(float best, float factor) : top(best), steps(factor * 32768.0f) {}
  __device__ uint64_t Place(float x) const {
    const uint32_t distance = min(__float2uint_rz((top - x) * steps), kFarthest);
    return uint64_t{distance} << 32 | ~KeyOf(x);
  }
  __device__ bool IsAt(float x) const { return Possible(x) && Place(x) >> below == digits; }
  __device__ int NextBelow() const { return max(0, below - kDigitBits); }
  // The next digit of a logit whose digits so far are these; -1 for others. What is not before the
  // last bin is in it, or nowhere: it is not summed, all that is far away being there.
  __device__ int BinOf(float x) const {
    if (!IsAt(x)) return -1;
    const auto bin = static_cast<int>(Place(x) >> NextBelow() & (kBins - 1));
    return bin == kBins - 1 ? -1 : bin;
  }
  // A logit that all with these digits or better ones reach, and few others.
  __device__ float Floor() const {
    if (below < 32) {
      const float last = ValueOf(~static_cast<uint32_t>(((digits + 1) << below) - 1));
      return isnan(last) ? kNever : last;
    }
    const float distance = static_cast<float>((digits + 2) << (below - 32)) / steps;
    const float floor = top - distance;
    return Place(floor) >> below > digits ? floor : kNever;  // rounded so that it is one
  }
};

// Adds without the loop that an atomic sum of 64 bits is in shared memory.
__device__ inline void AddToBin(Shared& sh, uint32_t bin, Units x) {
  const auto low = static_cast<uint32_t>(x);
  const uint32_t carry = atomicAdd(&sh.low[bin], low) + low < low ? 1 : 0;
  const uint32_t high = static_cast<uint32_t>(x >> 32) + carry;
  if (high != 0) atomicAdd(&sh.high[bin], high);
}
__device__ inline Units BinAt(const Shared& sh, int bin) {
  return Units{sh.high[bin]} << 32 | sh.low[bin];
}

// One block's: the sum of the values of the threads before this one and of its own.
__device__ inline Units Scan(Shared& sh, Units mine, Units* total) {
  const Units sum = WarpScan(mine);
  if (Row::Lane() == 31) sh.sums[Row::Warp()] = sum;
  __syncthreads();
  const Units of_warp = Row::Lane() < kWarps ? sh.sums[Row::Lane()] : 0;
  *total = WarpSum(of_warp);
  const Units before = WarpSum(Row::Lane() < Row::Warp() ? of_warp : 0);
  __syncthreads();
  return before + sum;
}

// Every block's bins become the sums over the cluster.
__device__ inline void SumBins(const Row& row) {
  ptx::ClusterSync();
  constexpr int kMine = kBins / kBlocks;
  if (threadIdx.x < kMine) {
    const int bin = row.block() * kMine + static_cast<int>(threadIdx.x);
    Units sum = 0;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) sum += BinAt(*ptx::InBlock(&row.sh, b), bin);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      Shared& there = *ptx::InBlock(&row.sh, b);
      there.low[bin] = static_cast<uint32_t>(sum);
      there.high[bin] = static_cast<uint32_t>(sum >> 32);
    }
  }
  ptx::ClusterSync();
}

// Learns one digit more of where a sum reaches `wanted`, from fill(), which adds this thread's to
// the bins.
template <typename Fill>
__device__ void Narrow(Row& row, Search& search, Units wanted, const Fill& fill) {
  Shared& sh = row.sh;
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) sh.low[i] = sh.high[i] = 0;
  __syncthreads();
  fill();
  SumBins(row);
  const int first = 2 * static_cast<int>(threadIdx.x);
  const Units first_sum = BinAt(sh, first);
  const Units own = first_sum + BinAt(sh, first + 1);
  Units total = 0;
  const Units before = search.before + Scan(sh, own, &total) - own;
  const bool is_last = search.before + total < wanted;
  if (before < wanted && before + own >= wanted) {
    const bool in_first = before + first_sum >= wanted;
    sh.bin = in_first ? first : first + 1;
    sh.before = in_first ? before : before + first_sum;
  }
  __syncthreads();
  const uint32_t bin = is_last ? kBins - 1 : sh.bin;
  const int learnt = search.below - search.NextBelow();
  search.before = is_last ? search.before + total : sh.before;
  search.below = search.NextBelow();
  search.digits = search.digits << learnt | (bin & ((1u << learnt) - 1));
}

// Lists, in every block, the tokens of which wanted(id, logit) is true, best first, and returns how
// many; -1 if they are too many.
template <typename Wanted>
__device__ int List(Row& row, const Wanted& wanted) {
  Shared& sh = row.sh;
  int mine = 0;
  row.ForMine([&](int id, float x) { mine += wanted(id, x) ? 1 : 0; });
  const auto count = static_cast<int>(row.Sum(static_cast<Units>(mine)));
  if (count > kListed) return -1;
  int at = static_cast<int>(row.BeforeWarp()) + WarpScan(mine) - mine;
  if (mine > 0) {
    row.ForMine([&](int id, float x) {
      if (!wanted(id, x)) return;
      for (int b = 0; b < kBlocks; ++b) *ptx::InBlock(&sh.list[at], b) = {x, id};
      ++at;
    });
  }
  ptx::ClusterSync();
  const int t = static_cast<int>(threadIdx.x);
  const Token token = t < count ? sh.list[t] : kNoToken;
  int better = 0;
  for (int i = 0; t < count && i < count; ++i) {
    const Token other = sh.list[i];
    better += other.logit > token.logit || (other.logit == token.logit && other.id < token.id);
  }
  __syncthreads();
  if (t < count) sh.list[better] = token;
  __syncthreads();
  return count;
}

// Lists the `count` best tokens and a few more; -1 if they would be too many. best_of_thread: of
// Row::Best. What `count` threads' best tokens reach, the `count` best of all reach as well, and
// few others: the logits need not be counted themselves.
__device__ inline int ListBest(Row& row, float top, float best_of_thread, int count) {
  Search search(top, 1);
  do {
    Narrow(row, search, count, [&] {
      const int bin = search.BinOf(best_of_thread);
      if (bin >= 0) AddToBin(row.sh, bin, 1);
    });
    const float floor = search.Floor();
    const int listed = List(row, [&](int, float x) { return Possible(x) && x >= floor; });
    if (listed >= 0) return listed;
  } while (search.below > 0);
  return -1;
}

// The last token that is kept, where the running sum of weight(id, logit), best first, reaches
// `wanted`; kNoToken if all do not reach it. Tokens of one logit weigh the same, or nothing.
// factor: of logits in the exponents of what they weigh.
template <typename Weight>
__device__ Token Select(Row& row, float top, float factor, Units wanted, const Weight& weight) {
  Shared& sh = row.sh;
  Search search(top, factor);
  const auto left = [&](int id, float x) -> Units { return search.IsAt(x) ? weight(id, x) : 0; };
  do {
    Narrow(row, search, wanted, [&] {
      row.ForMine([&](int id, float x) {
        const int bin = search.BinOf(x);
        const Units w = bin >= 0 ? weight(id, x) : 0;
        if (w != 0) AddToBin(sh, bin, w);
      });
    });
    const int count = List(row, [&](int id, float x) { return left(id, x) != 0; });
    if (count < 0) continue;
    const int t = static_cast<int>(threadIdx.x);
    const Token token = t < count ? sh.list[t] : kNoToken;
    const Units own = t < count ? weight(token.id, token.logit) : 0;
    Units total = 0;
    const Units before = search.before + Scan(sh, own, &total) - own;
    if (search.before + total < wanted) return kNoToken;
    if (before < wanted && before + own >= wanted) sh.last = token;
    __syncthreads();
    return sh.last;
  } while (search.below > 0);
  // Very many have one logit: the first few by id are kept.
  const Units total = row.Total(left);
  if (search.before + total < wanted) return kNoToken;
  return {ValueOf(~static_cast<uint32_t>(search.digits)),
          row.FirstAbove(wanted - search.before - 1, left)};
}

}  // namespace moebius::kernels::cuda::sampling
