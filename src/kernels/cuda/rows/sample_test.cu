// Sampling against a full sort in double precision, the reference's own rules and random numbers.
// Where a draw lies within rounding of a border between two tokens, either may come.
#include <numeric>

#include "kernels/cuda/rows/sample.h"
#include "kernels/cuda/testing.cuh"
#include "kernels/random.h"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

struct Wish {
  DeviceSampleRow row;
  std::vector<int32_t> seen, output, counts, banned, bias;
  std::vector<float> bias_values;
  std::vector<uint32_t> mask;
};
struct Answer {
  int token = -1;
  bool close = false;  // the draw, or a cut, is within rounding of another outcome
};

std::vector<int> Order(const std::vector<float>& logits) {
  std::vector<int> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  while (!ids.empty() && logits[ids.back()] == -INFINITY) ids.pop_back();
  return ids;
}

void Adjust(const Wish& wish, std::vector<float>& logits) {
  for (size_t i = 0; i < wish.bias.size(); ++i) logits[wish.bias[i]] += wish.bias_values[i];
  for (const int id : wish.seen) {
    logits[id] = logits[id] > 0 ? logits[id] / wish.row.repetition_penalty
                                : logits[id] * wish.row.repetition_penalty;
  }
  for (size_t i = 0; i < wish.output.size(); ++i) {
    float& x = logits[wish.output[i]];
    const float product = wish.row.frequency_penalty * static_cast<float>(wish.counts[i]);
    x -= product;
    x -= wish.row.presence_penalty;
  }
  for (const int id : wish.banned) logits[id] = -INFINITY;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!wish.mask.empty() && (wish.mask[id / 32] >> (id % 32) & 1) == 0) logits[id] = -INFINITY;
  }
}

Answer Reference(const Wish& wish, std::vector<float> logits) {
  for (float& x : logits) x = std::isnan(x) ? -INFINITY : x;
  if (wish.row.given >= 0) return {.token = wish.row.given};
  Adjust(wish, logits);
  std::vector<int> order = Order(logits);
  Answer answer;
  if (order.empty()) return answer;
  if (wish.row.temperature < 1e-5f) {
    answer.token = order[0];
    return answer;
  }
  if (wish.row.top_k > 0 && static_cast<size_t>(wish.row.top_k) < order.size()) {
    order.resize(wish.row.top_k);
  }
  std::vector<std::pair<int, double>> left;
  double sum = 0;
  for (const int id : order) {
    left.emplace_back(
        id, std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / wish.row.temperature));
    sum += left.back().second;
  }
  const double slack = 3e-6;
  if (wish.row.top_p < 1) {
    double mass = 0;
    size_t count = 0;
    while (count < left.size() && (count == 0 || mass < wish.row.top_p * sum)) {
      mass += left[count++].second;
      answer.close = answer.close || std::fabs(mass - wish.row.top_p * sum) < slack * sum;
    }
    left.resize(count);
  }
  while (left.size() > 1 && left.back().second < wish.row.min_p) left.pop_back();
  for (const auto& [id, p] : left) {
    answer.close = answer.close || std::fabs(p - wish.row.min_p) < slack * p;
  }
  std::sort(left.begin(), left.end());
  sum = 0;
  for (const auto& [id, p] : left) sum += p;
  const double target = UniformAt(wish.row.seed, wish.row.position) * sum;
  double mass = 0;
  answer.token = left.back().first;
  bool found = false;
  for (const auto& [id, p] : left) {
    mass += p;
    answer.close = answer.close || std::fabs(mass - target) < slack * sum;
    if (mass > target && !found) {
      answer.token = id;
      found = true;
    }
  }
  return answer;
}

template <typename T>
int32_t Append(std::vector<T>& all, const std::vector<T>& more) {
  all.insert(all.end(), more.begin(), more.end());
  return static_cast<int32_t>(all.size());
}

Wish RandomWish(testing::Rng& rng, int vocab) {
  Wish wish;
  DeviceSampleRow& row = wish.row;
  const auto chance = [&](int one_in) { return rng() % one_in == 0; };
  const float temperatures[] = {0.0f, 0.3f, 0.7f, 1.0f, 1.7f};
  row.temperature = temperatures[rng() % 5];
  if (chance(2)) row.top_k = static_cast<int32_t>(1 + rng() % (chance(3) ? vocab + 5 : 60));
  if (chance(2)) row.top_p = 0.05f + static_cast<float>(rng() % 94) / 100;
  if (chance(3)) row.min_p = 0.01f * static_cast<float>(1 + rng() % 20);
  row.seed = rng();
  row.position = static_cast<int64_t>(rng() % 5000);
  std::vector<int32_t> ids(vocab);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), rng);
  if (chance(2)) {
    row.repetition_penalty = 1.3f;
    row.presence_penalty = 0.5f;
    row.frequency_penalty = 0.25f;
    wish.seen.assign(ids.begin(), ids.begin() + vocab / 3);
    wish.output.assign(ids.begin(), ids.begin() + vocab / 5);
    for (size_t i = 0; i < wish.output.size(); ++i) {
      wish.counts.push_back(static_cast<int32_t>(1 + rng() % 4));
    }
  }
  if (chance(3)) wish.banned.assign(ids.begin(), ids.begin() + std::min(vocab, 3));
  if (chance(4)) {
    wish.mask.resize((vocab + 31) / 32);
    for (uint32_t& w : wish.mask) w = chance(3) ? ~0u : static_cast<uint32_t>(rng());
  }
  if (chance(3)) row.num_logprobs = static_cast<int32_t>(rng() % 21);
  if (chance(4)) row.given = static_cast<int32_t>(rng() % vocab);
  for (int i = 0; chance(2) && i < 5; ++i) {  // an id may come twice
    wish.bias.push_back(static_cast<int32_t>(rng() % vocab));
    wish.bias_values.push_back(static_cast<float>(static_cast<int>(rng() % 17)) - 8);
  }
  return wish;
}

void CheckLogprobs(const std::vector<float>& raw, int token, int wanted, float logprob,
                   const int32_t* top_tokens, const float* top_logprobs) {
  const std::vector<int> order = Order(raw);
  double sum = 0;
  for (const int id : order) sum += std::exp(static_cast<double>(raw[id]) - raw[order[0]]);
  const double normaliser = raw[order[0]] + std::log(sum);
  if (token >= 0) {
    testing::Expect(std::fabs(logprob - (raw[token] - normaliser)) < 2e-5,
                    "logprob of the token: " + std::to_string(logprob) + " for " +
                        std::to_string(raw[token] - normaliser));
  }
  for (int i = 0; i < wanted; ++i) {
    const bool there = i < static_cast<int>(order.size());
    testing::Expect(top_tokens[i] == (there ? order[i] : -1), "top token " + std::to_string(i));
    if (!there) continue;
    testing::Expect(std::fabs(top_logprobs[i] - (raw[order[i]] - normaliser)) < 2e-5,
                    "top logprob " + std::to_string(i));
  }
}

// Returns how many rows were too close to call and went the other way.
int Run(testing::Rng& rng, int rows, int vocab, int stride, int kind) {
  std::vector<float> logits = testing::RandomNormal<float>(rng, rows * stride, 3.0f);
  for (float& x : logits) {
    if (kind == 1) x = std::round(x);  // many ties
    if (kind == 2 && rng() % 9 == 0) x = rng() % 2 == 0 ? NAN : -INFINITY;
    if (kind == 3) x = -INFINITY;
  }
  std::vector<Wish> wishes;
  std::vector<DeviceSampleRow> plain;
  std::vector<int32_t> seen, output, counts, banned, bias;
  std::vector<float> bias_values;
  std::vector<uint32_t> masks;
  for (int i = 0; i < rows; ++i) {
    Wish wish = RandomWish(rng, vocab);
    wish.row.bias_begin = static_cast<int32_t>(bias.size());
    wish.row.bias_end = Append(bias, wish.bias);
    Append(bias_values, wish.bias_values);
    wish.row.seen_begin = static_cast<int32_t>(seen.size());
    wish.row.seen_end = Append(seen, wish.seen);
    wish.row.output_begin = static_cast<int32_t>(output.size());
    wish.row.output_end = Append(output, wish.output);
    Append(counts, wish.counts);
    wish.row.banned_begin = static_cast<int32_t>(banned.size());
    wish.row.banned_end = Append(banned, wish.banned);
    if (!wish.mask.empty()) wish.row.mask_begin = static_cast<int64_t>(masks.size());
    Append(masks, wish.mask);
    plain.push_back(wish.row);
    wishes.push_back(wish);
  }
  constexpr int kTop = 32;
  Device<float> d_logits(logits);
  const Device<DeviceSampleRow> d_wishes(plain);
  const Device<int32_t> d_seen(seen), d_output(output), d_counts(counts), d_banned(banned),
      d_bias(bias);
  const Device<float> d_bias_values(bias_values);
  const Device<uint32_t> d_masks(masks);
  Device<float> raw_copy(static_cast<size_t>(rows) * vocab);
  Device<int32_t> ranks(rows);
  Device<int32_t> tokens(rows), top_tokens(rows * kTop);
  Device<float> logprobs(rows), top_logprobs(rows * kTop);
  SampleLaunch args;
  args.logits = d_logits.get();
  args.logits_stride = stride;
  args.rows = rows;
  args.vocab = vocab;
  args.wishes = d_wishes.get();
  args.bias_tokens = d_bias.get();
  args.bias_values = d_bias_values.get();
  args.seen_tokens = d_seen.get();
  args.output_tokens = d_output.get();
  args.output_counts = d_counts.get();
  args.banned_tokens = d_banned.get();
  args.allowed_masks = d_masks.get();
  args.raw = raw_copy.get();
  args.ranks = ranks.get();
  args.tokens = tokens.get();
  args.logprobs = logprobs.get();
  args.top_tokens = top_tokens.get();
  args.top_logprobs = top_logprobs.get();
  args.top_stride = kTop;
  CUDA_OK(LaunchSample(args, nullptr));
  const auto got = tokens.Download();
  const auto got_logprobs = logprobs.Download();
  const auto got_ranks = ranks.Download();
  const auto got_top = top_tokens.Download();
  const auto got_top_logprobs = top_logprobs.Download();
  int other_way = 0;
  for (int i = 0; i < rows; ++i) {
    std::vector<float> raw(logits.begin() + static_cast<int64_t>(i) * stride,
                           logits.begin() + static_cast<int64_t>(i) * stride + vocab);
    const Answer want = Reference(wishes[i], raw);
    const DeviceSampleRow& w = wishes[i].row;
    if (got[i] != want.token) {
      ++other_way;
      testing::Expect(want.close,
                      "token " + std::to_string(got[i]) + " for " + std::to_string(want.token) +
                          ": vocab " + std::to_string(vocab) + " kind " + std::to_string(kind) +
                          " temperature " + std::to_string(w.temperature) + " top_k " +
                          std::to_string(w.top_k) + " top_p " + std::to_string(w.top_p) +
                          " min_p " + std::to_string(w.min_p));
    }
    if (w.num_logprobs < 0 || kind == 3) continue;
    for (float& x : raw) x = std::isnan(x) ? -INFINITY : x;
    const std::vector<int> order = Order(raw);
    const auto place = std::find(order.begin(), order.end(), got[i]);
    if (place != order.end()) {
      testing::Expect(got_ranks[i] == place - order.begin() + 1, "rank of the token");
    }
    if (got[i] >= 0 && place == order.end()) continue;  // a given token without any probability
    CheckLogprobs(raw, got[i], w.num_logprobs, got_logprobs[i], &got_top[i * kTop],
                  &got_top_logprobs[i * kTop]);
  }
  return other_way;
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  int rows = 0;
  int other_way = 0;
  for (const int kind : {0, 1, 2, 3}) {
    for (const int vocab : {1, 5, 130, 1000, 4099, 32000, 151936}) {
      const int count = vocab > 10000 ? 24 : 60;
      other_way += Run(rng, count, vocab, vocab + (vocab % 2), kind);
      rows += count;
    }
  }
  std::printf("%d rows, %d drew the other of two tokens within rounding\n", rows, other_way);
  return testing::Finish("sample_test");
}
