#include "plan/imbalance.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <queue>
#include <random>
#include <tuple>

#include "plan/measured.h"

namespace moebius::plan {
namespace {

constexpr int kNumLayers = 16;  // random orders of the experts that are averaged over
constexpr size_t kNumBuckets = 32;
constexpr size_t kMaxCached = 1024;
// How far a slot's load drifts from the one that EPLB planned for, relative: with 9 and 8 slots a
// rank on 32 and 36 ranks it leaves the 0.109 and 0.115 of imbalance that TensorRT-LLM reports.
constexpr double kDrift = 0.15;

// The standard normal's quantile (Acklam's rational approximation, relative error 1e-9 in the
// middle region that order statistics of fewer than 40 use, and its tail form beyond).
double NormalQuantile(double p) {
  static constexpr double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,
                                 -2.759285104469687e+02, 1.383577518672690e+02,
                                 -3.066479806614716e+01, 2.506628277459239e+00};
  static constexpr double b[] = {-5.447609879822406e+01, 1.615858368580409e+02,
                                 -1.556989798598866e+02, 6.680131188771972e+01,
                                 -1.328068155288572e+01};
  static constexpr double c[] = {-7.784894002430293e-03, -3.223964580411365e-01,
                                 -2.400758277161838e+00, -2.549732539343734e+00,
                                 4.374664141464968e+00,  2.938163982698783e+00};
  static constexpr double d[] = {7.784695709041462e-03, 3.224671290700398e-01,
                                 2.445134137142996e+00, 3.754408661907416e+00};
  if (p > 0.97575) {
    const double q = std::sqrt(-2 * std::log(1 - p));
    return -(((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
           ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
  }
  const double q = p - 0.5;
  const double r = q * q;
  return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
         (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
}

// Shares of the assignments by expert, the most loaded first unless counted. No expert can get more
// than one assignment of a token: what is above 1/k goes to the others.
std::vector<double> ExpertShares(const Imbalance& imbalance, int64_t num_experts, int64_t top_k) {
  std::vector<double> shares(static_cast<size_t>(num_experts), 1.0);
  for (size_t e = 0; e < shares.size(); ++e) {
    if (imbalance.counts.size() == shares.size()) {
      shares[e] = static_cast<double>(std::max<int64_t>(0, imbalance.counts[e]));
    } else if (imbalance.zipf > 0) {
      shares[e] = std::pow(static_cast<double>(e + 1), -imbalance.zipf);
    }
  }
  double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  if (sum <= 0) return std::vector<double>(shares.size(), 1.0 / static_cast<double>(num_experts));
  for (double& share : shares) share /= sum;
  const double most = 1.0 / static_cast<double>(top_k);
  for (int round = 0; round < 16; ++round) {
    double capped = 0;
    double rest = 0;
    for (double share : shares) (share >= most ? capped : rest) += share >= most ? most : share;
    if (capped + rest > 1 - 1e-9 || rest <= 0) break;
    for (double& share : shares)
      share = std::min(most, share * (share >= most ? 1 : (1 - capped) / rest));
  }
  return shares;
}

// One more copy for whoever has the most load a copy, until the slots are used up.
std::vector<int> Replicate(const std::vector<double>& shares, int64_t num_slots, bool by_load) {
  std::vector<int> copies(shares.size(), 1);
  const int64_t spare = num_slots - static_cast<int64_t>(shares.size());
  std::priority_queue<std::pair<double, size_t>> queue;
  for (size_t e = 0; e < shares.size(); ++e) queue.emplace(by_load ? shares[e] : 1.0, e);
  for (int64_t i = 0; i < spare; ++i) {
    const size_t e = queue.top().second;
    queue.pop();
    ++copies[e];
    queue.emplace((by_load ? shares[e] : 1.0) / copies[e], e);
  }
  return copies;
}

// Rank loads when slots go, the heaviest first, to the least loaded rank with room.
std::vector<double> Place(std::vector<double> slots, const std::vector<int64_t>& room) {
  std::sort(slots.begin(), slots.end(), std::greater<>());
  std::vector<double> loads(room.size(), 0);
  std::vector<int64_t> used(room.size(), 0);
  using Entry = std::pair<double, size_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  for (size_t r = 0; r < room.size(); ++r) {
    if (room[r] > 0) queue.emplace(0.0, r);
  }
  for (double slot : slots) {
    if (queue.empty()) break;
    const size_t r = queue.top().second;
    queue.pop();
    loads[r] += slot;
    if (++used[r] < room[r]) queue.emplace(loads[r], r);
  }
  return loads;
}

// Rank loads when slots lie in order.
std::vector<double> InOrder(const std::vector<double>& slots, const std::vector<int64_t>& room) {
  std::vector<double> loads(room.size(), 0);
  size_t next = 0;
  for (size_t r = 0; r < room.size(); ++r) {
    for (int64_t i = 0; i < room[r] && next < slots.size(); ++i) loads[r] += slots[next++];
  }
  return loads;
}

}  // namespace

// Expected largest of n standard normals (Blom 1958).
double LargestOf(size_t n) {
  static const std::vector<double> table = [] {
    std::vector<double> values(1025, 0);
    for (size_t i = 2; i < values.size(); ++i) {
      values[i] =
          NormalQuantile((static_cast<double>(i) - 0.375) / (static_cast<double>(i) + 0.25));
    }
    return values;
  }();
  return table[std::min(n, table.size() - 1)];
}

DefaultSkew DefaultSkewOf(const layout::ModelNumbers& model) {
  if (model.num_experts <= 1) return {0, false, "no experts"};
  // Folders have any name: numbers tell the models apart.
  const auto is = [&](int64_t experts, int64_t hidden, int64_t width) {
    return model.num_experts == experts && model.top_k == 8 && model.hidden_size == hidden &&
           model.expert_intermediate_size == width;
  };
  if (is(256, 7168, 2048)) {
    return {kDeepSeekZipf, false,
            "published of DeepSeek-R1: the most loaded expert has 11 x the mean"};
  }
  // sum r^-0.9 over 26 of 128 ranks is 0.65 of the whole.
  if (is(128, 4096, 1536)) {
    return {0.9, false, "published of Qwen3-235B: a fifth of the experts has 65 % of the load"};
  }
  return {kDeepSeekZipf, true, "DeepSeek-R1's, assumed"};
}

ExpertLoads::ExpertLoads(const Imbalance& imbalance, int64_t num_experts, int64_t top_k,
                         std::vector<int64_t> slots_per_rank)
    : top_k_(static_cast<double>(std::max<int64_t>(1, top_k))) {
  const int64_t num_slots =
      std::accumulate(slots_per_rank.begin(), slots_per_rank.end(), int64_t{0});
  const size_t num_ranks = slots_per_rank.size();
  slots_per_rank_ = static_cast<double>(num_slots) / static_cast<double>(num_ranks);

  const std::vector<double> shares =
      ExpertShares(imbalance, num_experts, static_cast<int64_t>(top_k_));
  const std::vector<int> copies = Replicate(shares, num_slots, imbalance.balanced);
  std::vector<double> slots;
  for (size_t e = 0; e < shares.size(); ++e) {
    slots.insert(slots.end(), static_cast<size_t>(copies[e]), shares[e] / copies[e]);
  }

  // A counted order is the model's own; under EPLB order does not matter.
  const bool shuffled = imbalance.counts.empty() && !imbalance.balanced && imbalance.zipf > 0;
  const int num_layers = shuffled && num_ranks > 1 ? kNumLayers : 1;
  std::mt19937_64 random(1);
  std::vector<double> sorted(num_ranks, 0);
  for (int layer = 0; layer < num_layers; ++layer) {
    std::vector<double> order = slots;
    if (shuffled) {  // std::shuffle's draws differ between libraries
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    }
    std::vector<double> loads =
        imbalance.balanced ? Place(order, slots_per_rank) : InOrder(order, slots_per_rank);
    std::sort(loads.begin(), loads.end(), std::greater<>());
    for (size_t r = 0; r < num_ranks; ++r) sorted[r] += loads[r] / num_layers;
  }
  if (imbalance.balanced && (imbalance.zipf > 0 || !imbalance.counts.empty())) {
    drift_ = kDrift / std::sqrt(std::max(1.0, slots_per_rank_));
  }
  top_mean_.resize(num_ranks);
  double sum = 0;
  for (size_t r = 0; r < num_ranks; ++r) {
    sum += sorted[r];
    top_mean_[r] = sum / static_cast<double>(r + 1);
  }

  std::sort(slots.begin(), slots.end(), std::greater<>());
  const bool all_equal = slots.empty() || slots.front() == slots.back();
  const size_t width = all_equal ? slots.size() : (slots.size() + kNumBuckets - 1) / kNumBuckets;
  for (size_t begin = 0; begin < slots.size(); begin += width) {
    const size_t end = std::min(slots.size(), begin + width);
    const double total = std::accumulate(slots.begin() + static_cast<ptrdiff_t>(begin),
                                         slots.begin() + static_cast<ptrdiff_t>(end), 0.0);
    const auto count = static_cast<double>(end - begin);
    buckets_.push_back({total / count, count});
  }
}

double ExpertLoads::BusiestRank(int64_t tokens) const {
  const size_t num_ranks = top_mean_.size();
  if (num_ranks <= 1 || tokens <= 0) return 1;
  const double assignments = static_cast<double>(tokens) * top_k_;
  double busiest = 0;
  for (size_t r = 0; r < num_ranks; ++r) {
    const double mean = assignments * top_mean_[r];
    const double drift = drift_ * mean;
    const double deviation = std::sqrt(mean * std::max(0.0, 1 - top_mean_[r]) + drift * drift);
    busiest = std::max(busiest, mean + LargestOf(r + 1) * deviation);
  }
  // A rank cannot get more than all of every token's experts.
  const double most = static_cast<double>(tokens) * std::min(top_k_, slots_per_rank_);
  return std::max(1.0, std::min(busiest, most) / (assignments / static_cast<double>(num_ranks)));
}

double ExpertLoads::SlotsHit(int64_t tokens, double load) const {
  double hit = 0;
  double all = 0;
  const double assignments = static_cast<double>(tokens) * top_k_ * load;
  for (const Bucket& bucket : buckets_) {
    all += bucket.num_slots;
    hit += bucket.num_slots * -std::expm1(-assignments * bucket.share);
  }
  return all > 0 ? slots_per_rank_ * hit / all : 0;
}

std::shared_ptr<const ExpertLoads> LoadsOf(const Imbalance& imbalance,
                                           const layout::ParallelLayout& layout,
                                           int64_t num_experts, int64_t top_k) {
  std::vector<int64_t> slots = layout.slots_per_rank;
  if (layout.expert_parallel_size <= 1 || slots.empty()) slots = {num_experts};
  const int64_t num_slots = std::accumulate(slots.begin(), slots.end(), int64_t{0});
  using Key = std::tuple<double, bool, int64_t, int64_t, size_t, int64_t, std::vector<int64_t>>;
  const Key key{imbalance.zipf, imbalance.balanced, num_experts,     top_k,
                slots.size(),   num_slots,          imbalance.counts};

  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const ExpertLoads>> cache;
  const std::lock_guard lock(mutex);
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  if (cache.size() >= kMaxCached) cache.clear();
  auto loads = std::make_shared<const ExpertLoads>(imbalance, num_experts, top_k, std::move(slots));
  cache.emplace(key, loads);
  return loads;
}

double BusiestRank(const Imbalance& imbalance, const layout::ParallelLayout& layout,
                   int64_t num_experts, int64_t top_k, int64_t tokens) {
  if (num_experts <= 0 || layout.expert_parallel_size <= 1) return 1;
  return LoadsOf(imbalance, layout, num_experts, top_k)->BusiestRank(tokens);
}

}  // namespace moebius::plan
