// Sampling against a full sort in double precision, the reference's own rules and random numbers.
// Where a draw lies within rounding of a border between two tokens, either may come.
#include <cstring>
#include <numeric>

#include "kernels/cuda/rows/sample.h"
#include "kernels/cuda/testing.cuh"
#include "kernels/random.h"
#include "kernels/tuning/device_limits.h"

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

Wish RandomWish(testing::Rng& rng, int vocab) {
  Wish wish;
  DeviceSampleRow& row = wish.row;
  const auto chance = [&](int one_in) { return rng() % one_in == 0; };
  const float temperatures[] = {0.0f, 0.3f, 0.7f, 1.0f, 1.7f};
  row.temperature = temperatures[rng() % 5];
  if (chance(2)) row.top_k = static_cast<int32_t>(1 + rng() % (chance(3) ? vocab + 5 : 60));
  if (chance(2)) row.top_p = chance(6) ? 1e-6f : 0.05f + static_cast<float>(rng() % 94) / 100;
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
  if (chance(3)) row.num_logprobs = chance(4) ? kMaxLogprobs : static_cast<int32_t>(rng() % 21);
  if (chance(4)) row.given = static_cast<int32_t>(rng() % vocab);
  for (int i = 0; chance(2) && i < 5; ++i) {  // an id may come twice
    wish.bias.push_back(static_cast<int32_t>(rng() % vocab));
    wish.bias_values.push_back(static_cast<float>(static_cast<int>(rng() % 17)) - 8);
  }
  return wish;
}

void CheckLogprobs(const std::vector<float>& raw, const std::vector<int>& order, int token,
                   int wanted, float logprob, const int32_t* top_tokens,
                   const float* top_logprobs) {
  double sum = 0;
  for (const int id : order) sum += std::exp(static_cast<double>(raw[id]) - raw[order[0]]);
  const double normaliser = raw[order[0]] + std::log(sum);
  const auto is_close = [](float got, double want) {
    return std::fabs(got - want) < 2e-5 * std::max(1.0, std::fabs(want));
  };
  if (token >= 0) {
    testing::Expect(is_close(logprob, raw[token] - normaliser),
                    "logprob of the token: " + std::to_string(logprob) + " for " +
                        std::to_string(raw[token] - normaliser));
  }
  for (int i = 0; i < wanted; ++i) {
    const bool there = i < static_cast<int>(order.size());
    testing::Expect(top_tokens[i] == (there ? order[i] : -1), "top token " + std::to_string(i));
    if (!there) continue;
    testing::Expect(is_close(top_logprobs[i], raw[order[i]] - normaliser),
                    "top logprob " + std::to_string(i));
  }
}

enum class Kind {
  kNormal,
  kTies,
  kHoles,    // NaN and -inf
  kNothing,  // -inf alone
  kEqual,    // one logit
  kOne,      // one token is possible
  kFar,      // nearly all as far below the best as masks put them
  kNarrow,   // near zero, one token far above: differences that the best one's scale does not show
  kFlat,     // thousands are within a bin
  kBorders,  // the best stand where blocks and warps meet, equal
};
constexpr int kNumKinds = 10;

std::vector<float> RandomLogits(testing::Rng& rng, int rows, int vocab, int stride, Kind kind) {
  std::vector<float> logits = testing::RandomNormal<float>(rng, int64_t{rows} * stride, 3.0f);
  for (float& x : logits) {
    if (kind == Kind::kTies) x = std::round(x);
    if (kind == Kind::kHoles && rng() % 9 == 0) x = rng() % 2 == 0 ? NAN : -INFINITY;
    if (kind == Kind::kNothing || kind == Kind::kOne) x = -INFINITY;
    if (kind == Kind::kEqual) x = -2.5f;
    if (kind == Kind::kFar && rng() % 1000 != 0) x -= 1e9f;
    if (kind == Kind::kNarrow) x *= 1e-9f;
    if (kind == Kind::kFlat) x *= 0.01f;
  }
  for (int r = 0; r < rows; ++r) {
    float* const row = &logits[int64_t{r} * stride];
    if (kind == Kind::kOne) row[rng() % vocab] = 1.5f;
    if (kind == Kind::kNarrow) row[rng() % vocab] = 30.0f;
    for (int id = 31; kind == Kind::kBorders && id + 1 < vocab; id += 32) row[id] = row[id + 1] = 9;
  }
  return logits;
}

// What rows wish for, with all their lists in one.
struct Lists {
  std::vector<DeviceSampleRow> rows;
  std::vector<int32_t> seen, output, counts, banned, bias;
  std::vector<float> bias_values;
  std::vector<uint32_t> masks;

  explicit Lists(const std::vector<Wish>& wishes) {
    const auto append = [](auto& all, const auto& more) {
      all.insert(all.end(), more.begin(), more.end());
      return static_cast<int32_t>(all.size());
    };
    for (const Wish& wish : wishes) {
      DeviceSampleRow row = wish.row;
      row.bias_begin = static_cast<int32_t>(bias.size());
      row.bias_end = append(bias, wish.bias);
      append(bias_values, wish.bias_values);
      row.seen_begin = static_cast<int32_t>(seen.size());
      row.seen_end = append(seen, wish.seen);
      row.output_begin = static_cast<int32_t>(output.size());
      row.output_end = append(output, wish.output);
      append(counts, wish.counts);
      row.banned_begin = static_cast<int32_t>(banned.size());
      row.banned_end = append(banned, wish.banned);
      if (!wish.mask.empty()) row.mask_begin = static_cast<int64_t>(masks.size());
      append(masks, wish.mask);
      rows.push_back(row);
    }
  }
};

struct Drawn {
  std::vector<int32_t> tokens, ranks, top_tokens;
  std::vector<float> logprobs, top_logprobs;
  bool operator==(const Drawn&) const = default;
};

// Rows on the device, and what is drawn there.
class Batch {
 public:
  Batch(const std::vector<float>& logits, int stride, int vocab, const Lists& lists)
      : logits_(logits),
        rows_(lists.rows),
        seen_(lists.seen),
        output_(lists.output),
        counts_(lists.counts),
        banned_(lists.banned),
        bias_(lists.bias),
        bias_values_(lists.bias_values),
        masks_(lists.masks),
        tokens_(rows_.size()),
        ranks_(rows_.size()),
        top_tokens_(rows_.size() * kMaxLogprobs),
        logprobs_(std::vector<float>(rows_.size())),
        top_logprobs_(std::vector<float>(rows_.size() * kMaxLogprobs)) {
    args_.logits = logits_.get();
    args_.logits_stride = stride;
    args_.rows = static_cast<int64_t>(rows_.size());
    args_.vocab = vocab;
    args_.wishes = rows_.get();
    args_.bias_tokens = bias_.get();
    args_.bias_values = bias_values_.get();
    args_.seen_tokens = seen_.get();
    args_.output_tokens = output_.get();
    args_.output_counts = counts_.get();
    args_.banned_tokens = banned_.get();
    args_.allowed_masks = masks_.get();
    args_.ranks = ranks_.get();
    args_.tokens = tokens_.get();
    args_.logprobs = logprobs_.get();
    args_.top_tokens = top_tokens_.get();
    args_.top_logprobs = top_logprobs_.get();
    args_.top_stride = kMaxLogprobs;
  }
  void Launch(cudaStream_t stream) { CUDA_OK(LaunchSample(args_, stream)); }
  Drawn Download() const {
    return {tokens_.Download(), ranks_.Download(), top_tokens_.Download(), logprobs_.Download(),
            top_logprobs_.Download()};
  }
  std::vector<float> logits() const { return logits_.Download(); }

 private:
  const Device<float> logits_;
  const Device<DeviceSampleRow> rows_;
  const Device<int32_t> seen_, output_, counts_, banned_, bias_;
  const Device<float> bias_values_;
  const Device<uint32_t> masks_;
  Device<int32_t> tokens_, ranks_, top_tokens_;
  Device<float> logprobs_, top_logprobs_;
  SampleLaunch args_;
};

std::vector<Wish> RandomWishes(testing::Rng& rng, int rows, int vocab) {
  std::vector<Wish> wishes;
  for (int i = 0; i < rows; ++i) wishes.push_back(RandomWish(rng, vocab));
  return wishes;
}

// Returns how many rows were too close to call and went the other way.
int Run(testing::Rng& rng, int rows, int vocab, int stride, Kind kind) {
  const std::vector<float> logits = RandomLogits(rng, rows, vocab, stride, kind);
  const std::vector<Wish> wishes = RandomWishes(rng, rows, vocab);
  Batch batch(logits, stride, vocab, Lists(wishes));
  batch.Launch(nullptr);
  const Drawn got = batch.Download();
  const std::vector<float> after = batch.logits();
  testing::Expect(std::memcmp(after.data(), logits.data(), logits.size() * sizeof(float)) == 0,
                  "logits as they were");
  int other_way = 0;
  for (int i = 0; i < rows; ++i) {
    std::vector<float> raw(logits.begin() + int64_t{i} * stride,
                           logits.begin() + int64_t{i} * stride + vocab);
    const Answer want = Reference(wishes[i], raw);
    const DeviceSampleRow& w = wishes[i].row;
    const int token = got.tokens[i];
    if (token != want.token) {
      ++other_way;
      testing::Expect(want.close,
                      "token " + std::to_string(token) + " for " + std::to_string(want.token) +
                          ": vocab " + std::to_string(vocab) + " kind " +
                          std::to_string(static_cast<int>(kind)) + " temperature " +
                          std::to_string(w.temperature) + " top_k " + std::to_string(w.top_k) +
                          " top_p " + std::to_string(w.top_p) + " min_p " +
                          std::to_string(w.min_p));
    }
    if (w.num_logprobs < 0) continue;
    for (float& x : raw) x = std::isnan(x) ? -INFINITY : x;
    const std::vector<int> order = Order(raw);
    if (order.empty()) continue;
    const auto place = std::find(order.begin(), order.end(), token);
    if (place != order.end()) {
      testing::Expect(got.ranks[i] == place - order.begin() + 1, "rank of the token");
    }
    if (token >= 0 && place == order.end()) continue;  // a given token without any probability
    CheckLogprobs(raw, order, token, w.num_logprobs, got.logprobs[i],
                  &got.top_tokens[int64_t{i} * kMaxLogprobs],
                  &got.top_logprobs[int64_t{i} * kMaxLogprobs]);
  }
  return other_way;
}

// More rows than fit on the GPU at once, again and again in a graph: the same bits.
void Replays(testing::Rng& rng, int rows, int vocab) {
  const Lists lists(RandomWishes(rng, rows, vocab));
  Batch batch(RandomLogits(rng, rows, vocab, vocab, Kind::kNormal), vocab, vocab, lists);
  batch.Launch(nullptr);
  const Drawn want = batch.Download();
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < 3; ++i) batch.Launch(stream);
  cudaGraph_t graph;
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec;
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 20; ++i) {
    CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    testing::Expect(batch.Download() == want, "replay " + std::to_string(i));
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  using moebius::kernels::kMaxSampleVocab;
  testing::Rng rng(std::random_device{}());
  int rows = 0;
  int other_way = 0;
  for (int kind = 0; kind < kNumKinds; ++kind) {
    for (const int vocab : {1, 5, 7, 130, 1000, 4099, 32000, 151936}) {
      const int count = vocab > 10000 ? 10 : 60;
      other_way += Run(rng, count, vocab, vocab + (vocab % 2), static_cast<Kind>(kind));
      rows += count;
    }
  }
  for (const int vocab : {129280, 163840, 202048, 262144, static_cast<int>(kMaxSampleVocab)}) {
    other_way += Run(rng, 10, vocab, vocab, Kind::kNormal);
    other_way += Run(rng, 10, vocab, vocab, Kind::kTies);
    rows += 20;
  }
  Replays(rng, 300, 129280);
  const SampleLaunch too_wide = {.rows = 1, .vocab = kMaxSampleVocab + 1};
  testing::Expect(LaunchSample(too_wide, nullptr) != cudaSuccess, "a vocabulary that is too large");
  std::printf("%d rows, %d drew the other of two tokens within rounding\n", rows, other_way);
  return testing::Finish("sample_test");
}
