// Sampling without sorting the vocabulary. The largest logit of each block of ids is found first;
// the k-th largest of these bounds the k-th largest logit from below, so the best k are sorted from
// the few ids above that bound. Top-p finds its cut in a histogram of mass by logit and sorts one
// bucket. A row is one task: what it draws cannot depend on the batch.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/random.h"

namespace moebius::kernels::cpu {
namespace {

constexpr int64_t kBlock = 128;
constexpr float kNever = -std::numeric_limits<float>::infinity();

struct Candidate {
  float logit;
  TokenId id;
};

struct SampleScratch {
  float* raw;             // [vocab] the logits as they came, for logprobs
  float* probabilities;   // [vocab]
  float* tops;            // [2][blocks] largest of each block; room to order them
  Candidate* candidates;  // [vocab]
};

struct Row {
  const CpuKernels& cpu;
  const SampleScratch& scratch;
  float* logits;
  int64_t vocab;

  int64_t num_blocks() const { return (vocab + kBlock - 1) / kBlock; }
  int64_t BlockSize(int64_t block) const { return std::min(kBlock, vocab - block * kBlock); }
};

bool Better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Fills scratch.tops; returns the largest.
float FindTops(const Row& row, const float* logits) {
  float top = kNever;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    row.scratch.tops[b] = row.cpu.max(logits + b * kBlock, row.BlockSize(b));
    top = std::max(top, row.scratch.tops[b]);
  }
  return top;
}

// The best min(n, what is above -inf) of `logits` in order, into scratch.candidates; returns their
// number. After FindTops.
int64_t BestCandidates(const Row& row, const float* logits, int64_t n) {
  const int64_t blocks = row.num_blocks();
  float bound = kNever;
  if (n < blocks) {
    float* ordered = row.scratch.tops + blocks;
    std::copy_n(row.scratch.tops, blocks, ordered);
    std::nth_element(ordered, ordered + (n - 1), ordered + blocks, std::greater<>());
    bound = ordered[n - 1];
  }
  Candidate* found = row.scratch.candidates;
  int64_t count = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    if (row.scratch.tops[b] < bound) continue;
    const int64_t begin = b * kBlock;
    for (int64_t i = begin; i < begin + row.BlockSize(b); ++i) {
      if (logits[i] >= bound && logits[i] > kNever) {
        found[count++] = {logits[i], static_cast<TokenId>(i)};
      }
    }
  }
  n = std::min(n, count);
  std::partial_sort(found, found + n, found + count, Better);
  return n;
}

TokenId Greedy(const Row& row, float top) {
  if (top == kNever) return -1;
  int64_t block = 0;
  while (row.scratch.tops[block] != top) ++block;
  const float* begin = row.logits + block * kBlock;
  return static_cast<TokenId>(std::find(begin, begin + kBlock, top) - row.logits);
}

// Draws from the best `count` candidates (in order), in ascending order of ids.
TokenId DrawCandidate(const Row& row, const SampleRow& wish, float top, int64_t count) {
  Candidate* found = row.scratch.candidates;
  // Their probabilities, unnormalised, take the place of their logits.
  float* p = row.scratch.probabilities;
  for (int64_t i = 0; i < count; ++i) p[i] = found[i].logit;
  row.cpu.exp_sum(p, count, top, 1.0f / wish.temperature, p);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += found[i].logit = p[i];
  if (wish.top_p < 1.0f) {
    double mass = 0;
    int64_t kept = 0;
    while (kept < count && (kept == 0 || mass < wish.top_p * sum)) mass += found[kept++].logit;
    count = kept;
  }
  while (count > 1 && found[count - 1].logit < wish.min_p) --count;
  std::sort(found, found + count,
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += found[i].logit;
  const double target = UniformAt(wish.seed, wish.position) * sum;
  double mass = 0;
  for (int64_t i = 0; i < count; ++i) {
    mass += found[i].logit;
    if (mass > target) return found[i].id;
  }
  return found[count - 1].id;
}

// exp of all logits into scratch.probabilities; returns their sum.
double AllProbabilities(const Row& row, const float* logits, float top, float factor) {
  double total = 0;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    total += row.cpu.exp_sum(logits + b * kBlock, row.BlockSize(b), top, factor,
                             row.scratch.probabilities + b * kBlock);
  }
  if (!std::isnan(total)) return total;
  // Logits that are NaN count as -inf; so rare that only now is the time to look.
  total = 0;
  for (int64_t i = 0; i < row.vocab; ++i) {
    float& p = row.scratch.probabilities[i];
    if (std::isnan(p)) p = 0;
    total += p;
  }
  return total;
}

// Sets the probabilities outside top-p to zero: tokens fall into buckets by logit, whole buckets
// are kept from the best down, and the one in which the mass is reached is sorted.
void KeepTopP(const Row& row, const SampleRow& wish, float top, double total) {
  constexpr int kBuckets = 1024;
  const float buckets_per_logit = 48.0f / wish.temperature;  // the last: below e^-21 of the best
  float* p = row.scratch.probabilities;
  const auto bucket_of = [&](int64_t i) {
    return static_cast<int>(std::min((top - row.logits[i]) * buckets_per_logit, kBuckets - 1.0f));
  };
  double masses[kBuckets] = {};
  for (int64_t i = 0; i < row.vocab; ++i) {
    if (p[i] > 0) masses[bucket_of(i)] += p[i];
  }
  double mass = 0;
  int last = 0;
  while (last < kBuckets - 1 && mass + masses[last] < wish.top_p * total) mass += masses[last++];
  Candidate* found = row.scratch.candidates;
  int64_t count = 0;
  for (int64_t i = 0; i < row.vocab; ++i) {
    if (p[i] == 0) continue;
    const int bucket = bucket_of(i);
    if (bucket == last) found[count++] = {row.logits[i], static_cast<TokenId>(i)};
    if (bucket > last) p[i] = 0;
  }
  std::sort(found, found + count, Better);
  for (int64_t i = 0; i < count; ++i) {
    float& q = p[found[i].id];
    if (mass >= wish.top_p * total && (i > 0 || last > 0)) q = 0;
    mass += q;
  }
}

// Sets the probabilities below min_p to zero and fills the second half of tops with the sums of
// blocks; returns the sum of all.
double SumBlocks(const Row& row, float min_p) {
  double total = 0;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    float* p = row.scratch.probabilities + b * kBlock;
    float sum = 0;
    for (int64_t i = 0; i < row.BlockSize(b); ++i) {
      if (p[i] < min_p) p[i] = 0;
      sum += p[i];
    }
    row.scratch.tops[row.num_blocks() + b] = sum;
    total += sum;
  }
  return total;
}

TokenId DrawAny(const Row& row, const SampleRow& wish, double total) {
  const float* sums = row.scratch.tops + row.num_blocks();
  const float* p = row.scratch.probabilities;
  const double target = UniformAt(wish.seed, wish.position) * total;
  double mass = 0;
  TokenId last = -1;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    if (sums[b] == 0) continue;
    if (mass + sums[b] <= target) {
      mass += sums[b];
      last = static_cast<TokenId>(b * kBlock);
      continue;
    }
    for (int64_t i = b * kBlock; i < b * kBlock + row.BlockSize(b); ++i) {
      mass += p[i];
      if (p[i] > 0) last = static_cast<TokenId>(i);
      if (mass > target) break;
    }
    return last;
  }
  // Rounding left the target at the very end: the last id that has any probability.
  for (int64_t i = row.vocab - 1; i > last; --i) {
    if (p[i] > 0) return static_cast<TokenId>(i);
  }
  return last;
}

TokenId Draw(const Row& row, const SampleRow& wish) {
  const float top = FindTops(row, row.logits);
  if (top == kNever || wish.temperature < kGreedyTemperature) return Greedy(row, top);
  if (wish.top_k > 0 && wish.top_k < row.vocab) {
    return DrawCandidate(row, wish, top, BestCandidates(row, row.logits, wish.top_k));
  }
  const double total = AllProbabilities(row, row.logits, top, 1.0f / wish.temperature);
  if (wish.top_p < 1.0f) KeepTopP(row, wish, top, total);
  return DrawAny(row, wish, SumBlocks(row, wish.min_p));
}

void AddBias(const SampleRow& wish, float* logits) {
  for (const auto& [id, bias] : wish.logit_bias) logits[id] += bias;
}

void Penalise(const SampleRow& wish, float* logits) {
  for (const TokenId id : wish.seen_tokens) {
    logits[id] = logits[id] > 0 ? logits[id] / wish.repetition_penalty
                                : logits[id] * wish.repetition_penalty;
  }
  for (size_t i = 0; i < wish.output_tokens.size(); ++i) {
    float& logit = logits[wish.output_tokens[i]];
    logit -= wish.frequency_penalty * static_cast<float>(wish.output_counts[i]);
    logit -= wish.presence_penalty;
  }
}

void Forbid(const SampleRow& wish, float* logits, int64_t vocab) {
  for (const TokenId id : wish.banned_tokens) logits[id] = kNever;
  if (wish.allowed_mask.empty()) return;
  for (int64_t word = 0; word * 32 < vocab; ++word) {
    const uint32_t bits = wish.allowed_mask[word];
    if (bits == ~uint32_t{0}) continue;
    const int64_t end = std::min(vocab, (word + 1) * 32);
    for (int64_t id = word * 32; id < end; ++id) {
      if (((bits >> (id % 32)) & 1) == 0) logits[id] = kNever;
    }
  }
}

// The place of `id` in the order of `raw`, from 1. After FindTops.
int32_t RankOf(const Row& row, const float* raw, TokenId id) {
  const float logit = std::isnan(raw[id]) ? kNever : raw[id];
  int32_t rank = 1;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    if (row.scratch.tops[b] < logit) continue;
    const int64_t begin = b * kBlock;
    for (int64_t i = begin; i < begin + row.BlockSize(b); ++i) {
      if (raw[i] > logit || (raw[i] == logit && i < id)) ++rank;
    }
  }
  return rank;
}

void Logprobs(const Row& row, const float* raw, const SampleRow& wish, SampleResult& result) {
  const float top = FindTops(row, raw);
  const double sum = AllProbabilities(row, raw, top, 1.0f);
  const double normaliser = top + std::log(sum);
  if (result.token >= 0) {
    const float logit = raw[result.token];
    result.logprob = logit > kNever ? static_cast<float>(logit - normaliser) : kNever;
    result.rank = RankOf(row, raw, result.token);
  }
  const int64_t count = wish.num_logprobs > 0 ? BestCandidates(row, raw, wish.num_logprobs) : 0;
  for (int64_t i = 0; i < wish.num_logprobs; ++i) {
    const Candidate& found = row.scratch.candidates[i];
    result.top_tokens[i] = i < count ? found.id : -1;
    result.top_logprobs[i] = i < count ? static_cast<float>(found.logit - normaliser) : kNever;
  }
}

void SampleRowOf(const Row& row, const SampleRow& wish, SampleResult& result) {
  if (wish.given >= 0) {
    result.token = wish.given;
    if (wish.num_logprobs >= 0) Logprobs(row, row.logits, wish, result);
    return;
  }
  if (wish.num_logprobs >= 0) std::copy_n(row.logits, row.vocab, row.scratch.raw);
  AddBias(wish, row.logits);
  Penalise(wish, row.logits);
  Forbid(wish, row.logits, row.vocab);
  result.token = Draw(row, wish);
  if (wish.num_logprobs >= 0) Logprobs(row, row.scratch.raw, wish, result);
}

}  // namespace

void Sample(ExecContext& ctx, const SampleArgs& args) {
  const int64_t vocab = args.logits.cols;
  const int64_t blocks = (vocab + kBlock - 1) / kBlock;
  ArenaScope scope(*ctx.workspace);
  const int num_threads = NumThreads(ctx);
  auto* scratch =
      static_cast<SampleScratch*>(ctx.workspace->Alloc(sizeof(SampleScratch) * num_threads));
  for (int t = 0; t < num_threads; ++t) {
    scratch[t].raw = ctx.workspace->Alloc<float>(vocab);
    scratch[t].probabilities = ctx.workspace->Alloc<float>(vocab);
    scratch[t].tops = ctx.workspace->Alloc<float>(2 * blocks);
    scratch[t].candidates = ctx.workspace->Alloc<Candidate>(vocab);
  }
  ForTasks(ctx, args.logits.rows, static_cast<double>(args.logits.rows * vocab) * 0.3,
           [&](int64_t i, int thread_idx) {
             const Row row = {*ctx.backend->cpu, scratch[thread_idx], args.logits.Row<float>(i),
                              vocab};
             SampleRowOf(row, args.rows[i], args.results[i]);
           });
}

}  // namespace moebius::kernels::cpu
