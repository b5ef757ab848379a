// kernel_bench (cmake --build build/release --target kernel_bench): how fast the operations run
// here, beside what the memory could give. One line a measurement: median of several passes over
// weights that no cache holds.
//   kernel_bench [--cpu-time] [PART ...]   parts: decode prefill attention sample small (default:
//   all). --cpu-time: one thread, and only the time that it really ran: for a busy machine.
//   MOEBIUS_ISA=avx2 kernel_bench ...
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "platform/bandwidth.h"
#include "platform/memory.h"

namespace moebius::kernels {
namespace {

bool cpu_time = false;

double Seconds() {
  if (cpu_time) {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Memory full of small finite numbers, whatever they are read as.
platform::Region RandomRegion(size_t bytes) {
  auto region = platform::Region::Allocate(bytes);
  MOEBIUS_CHECK(region.has_value());
  std::vector<uint16_t> tile(1 << 19);
  std::mt19937 random(1);
  for (uint16_t& x : tile) x = static_cast<uint16_t>(0x3c00 | (random() & 0x83ff));
  for (size_t i = 0; i < region->size(); i += tile.size() * 2) {
    std::memcpy(region->data() + i, tile.data(), std::min(tile.size() * 2, region->size() - i));
  }
  return std::move(*region);
}

struct Machine {
  const Backend* backend;
  std::unique_ptr<platform::ThreadPool> pool =
      platform::ThreadPool::Create(cpu_time ? std::vector<int>{0} : std::vector<int>{});
  platform::Region workspace;
  Arena arena;
  platform::Region weights = RandomRegion(size_t{3} << 30);
  platform::Region activations = RandomRegion(size_t{512} << 20);
  double bytes_per_second = 0;

  explicit Machine(const Backend* b) : backend(b) {
    OpLimits limits{pool->num_threads(), 512, 576, 512, 160000};
    workspace = RandomRegion(OpWorkspaceBytes(limits));
    arena = Arena(workspace.data(), workspace.size());
  }
  ExecContext ctx() { return {backend, pool.get(), &arena}; }
};

// Median seconds of one call; `run(i)` is the i-th.
double Median(const std::function<void(int)>& run, int passes = 15) {
  for (int i = 0; i < 3; ++i) run(i);
  std::vector<double> times;
  for (int i = 0; i < passes; ++i) {
    const double start = Seconds();
    run(i + 3);
    times.push_back(Seconds() - start);
  }
  std::nth_element(times.begin(), times.begin() + passes / 2, times.end());
  return times[passes / 2];
}

// What one thread reads at most, in the time that it really runs.
double OneThreadBandwidth(const platform::Region& region) {
  const auto* words = reinterpret_cast<const uint64_t*>(region.data());
  const size_t count = (size_t{512} << 20) / 8;
  uint64_t sum = 0;
  const double seconds = Median(
      [&](int) {
        for (size_t i = 0; i < count; i += 8) {
          __builtin_prefetch(words + i + 256);
          sum += words[i] ^ words[i + 4];
        }
      },
      5);
  return static_cast<double>(count * 8 + (sum == 1)) / seconds;
}

PackedWeight WeightAt(const platform::Region& region, size_t offset, WeightFormat format, int64_t n,
                      int64_t k, bool gated) {
  PackedWeight w;
  w.format = format;
  w.gated = gated;
  w.n = n;
  w.k = k;
  w.data = region.data() + offset;
  if (format == WeightFormat::kFp8Block) {
    w.scales = reinterpret_cast<const float*>(region.data() + offset +
                                              w.num_panels() * kPanelRows * w.padded_k());
  }
  return w;
}

// One MoE layer's two products for T tokens, top-8 of as many experts as fit the weights' memory.
void BenchMoe(Machine& m, WeightFormat format, int64_t hidden, int64_t inner, int64_t num_experts,
              int64_t tokens, bool prefill) {
  const int64_t k = std::min<int64_t>(8, num_experts);
  const size_t up_bytes = PackedBytes(format, inner, hidden, true);
  const size_t down_bytes = PackedBytes(format, hidden, inner, false);
  num_experts = std::min<int64_t>(num_experts,
                                  static_cast<int64_t>(m.weights.size() / (up_bytes + down_bytes)));
  std::vector<PackedWeight> up;
  std::vector<PackedWeight> down;
  for (int64_t e = 0; e < num_experts; ++e) {
    const size_t at = static_cast<size_t>(e) * (up_bytes + down_bytes);
    up.push_back(WeightAt(m.weights, at, format, inner, hidden, true));
    down.push_back(WeightAt(m.weights, at + up_bytes, format, hidden, inner, false));
  }
  const int64_t pairs = tokens * k;
  Mat a(m.activations.data(), DType::kBF16, tokens, hidden);
  Mat middle(m.activations.data() + (size_t{64} << 20), DType::kBF16, pairs, inner);
  Mat out(m.activations.data() + (size_t{256} << 20), DType::kBF16, pairs, hidden);
  std::vector<int32_t> offsets(num_experts + 1);
  std::vector<int32_t> order(pairs);
  std::vector<int32_t> places(pairs);
  std::mt19937 random(1);
  ExecContext ctx = m.ctx();
  int64_t touched = 0;
  std::vector<std::vector<int32_t>> routes;
  for (int i = 0; i < 18; ++i) {
    std::vector<int32_t> slots;
    std::vector<int32_t> experts(num_experts);
    for (int64_t e = 0; e < num_experts; ++e) experts[e] = static_cast<int32_t>(e);
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(experts.begin(), experts.end(), random);
      slots.insert(slots.end(), experts.begin(), experts.begin() + k);
    }
    routes.push_back(slots);
    std::sort(slots.begin(), slots.end());
    touched += std::unique(slots.begin(), slots.end()) - slots.begin();
  }
  const double seconds = Median([&](int i) {
    GroupBySlot(ctx, {routes[i], num_experts, offsets, order, places});
    GroupedSwiGluArgs first;
    first.a = a;
    first.offsets = offsets;
    first.pairs = order;
    first.rows_per_pair = k;
    first.weights = up;
    first.out = middle;
    GroupedSwiGlu(ctx, first);
    GroupedGemm(ctx, {middle, offsets, down, out});
  });
  const double bytes =
      static_cast<double>(touched) / 18 * static_cast<double>(up_bytes + down_bytes);
  const double flops = 6.0 * static_cast<double>(pairs * hidden * inner);
  const std::string what = fmt::format("MoE {}x{} {} of {} T={} {}", hidden, inner, k, num_experts,
                                       tokens, WeightFormatName(format));
  if (prefill) {
    fmt::print("{:58} {:9.1f} us  {:7.1f} GFLOP/s\n", what, seconds * 1e6, flops / seconds / 1e9);
  } else {
    fmt::print("{:58} {:9.1f} us  {:7.1f} GB/s  {:4.0f} % of streaming\n", what, seconds * 1e6,
               bytes / seconds / 1e9, 100 * bytes / seconds / m.bytes_per_second);
  }
}

void BenchGemm(Machine& m, WeightFormat format, DType act, int64_t tokens, int64_t n, int64_t k) {
  const size_t bytes = (PackedBytes(format, n, k, false) + 4095) / 4096 * 4096;
  const auto copies = static_cast<int64_t>(m.weights.size() / bytes);
  Mat a(m.activations.data(), act, tokens, k);
  Mat out(m.activations.data() + (size_t{256} << 20), act, tokens, n);
  ExecContext ctx = m.ctx();
  const double seconds = Median([&](int i) {
    const PackedWeight w =
        WeightAt(m.weights, static_cast<size_t>(i % copies) * bytes, format, n, k, false);
    GemmArgs args;
    args.a = a;
    args.w = &w;
    args.out = out;
    Gemm(ctx, args);
  });
  const double flops = 2.0 * static_cast<double>(tokens * n * k);
  fmt::print("{:58} {:9.1f} us  {:7.1f} GFLOP/s  {:5.1f} GB/s of weights\n",
             fmt::format("gemm {}x{} T={} {} x {}", k, n, tokens, WeightFormatName(format),
                         DTypeName(act)),
             seconds * 1e6, flops / seconds / 1e9, static_cast<double>(bytes) / seconds / 1e9);
}

void BenchAttention(Machine& m, int64_t seqs, int64_t queries, int64_t context, int64_t heads,
                    int64_t kv_heads, int64_t dim, int64_t v_dim) {
  const int64_t block = 16;
  const int64_t blocks = (context + block - 1) / block;
  AttentionArgs args;
  std::vector<int32_t> start(seqs + 1);
  std::vector<int32_t> lengths(seqs, static_cast<int32_t>(context));
  std::vector<int32_t> table(seqs * blocks);
  for (int64_t s = 0; s <= seqs; ++s) start[s] = static_cast<int32_t>(s * queries);
  for (size_t b = 0; b < table.size(); ++b) table[b] = static_cast<int32_t>(b);
  std::mt19937 random(1);
  std::shuffle(table.begin(), table.end(), random);
  args.batch = {start, lengths, table, blocks, block};
  const int64_t rows = seqs * blocks * block;
  const bool latent = v_dim < dim;
  args.q = Mat(m.activations.data(), DType::kBF16, seqs * queries, heads * dim);
  args.k_cache = Mat(m.weights.data(), DType::kBF16, rows, kv_heads * dim);
  args.v_cache =
      latent ? args.k_cache.Cols(0, v_dim)
             : Mat(m.weights.data() + (size_t{1} << 30), DType::kBF16, rows, kv_heads * v_dim);
  args.num_heads = heads;
  args.num_kv_heads = kv_heads;
  args.head_dim = dim;
  args.v_head_dim = v_dim;
  args.scale = 0.01f;
  args.out =
      Mat(m.activations.data() + (size_t{256} << 20), DType::kBF16, seqs * queries, heads * v_dim);
  ExecContext ctx = m.ctx();
  const double seconds = Median([&](int) { Attention(ctx, args); }, 9);
  const double visible = static_cast<double>(context) - static_cast<double>(queries - 1) / 2;
  const double flops = 2.0 * static_cast<double>(seqs * queries * heads * (dim + v_dim)) * visible;
  const double bytes = static_cast<double>(rows * kv_heads * (latent ? dim : dim + v_dim) * 2);
  fmt::print(
      "{:58} {:9.1f} us  {:7.1f} GFLOP/s  {:5.1f} GB/s of cache\n",
      fmt::format("{} {}x{} queries, context {}, heads {}/{} x {}", latent ? "MLA" : "attention",
                  seqs, queries, context, heads, kv_heads, dim),
      seconds * 1e6, flops / seconds / 1e9, bytes / seconds / 1e9);
}

void BenchSample(Machine& m, const std::string& what, const SampleRow& row) {
  const int64_t vocab = 151936;
  std::vector<float> logits(vocab);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  for (float& x : logits) x = normal(random);
  std::vector<float> copy(vocab);
  SampleResult result;
  std::vector<TokenId> tokens(32);
  std::vector<float> logprobs(32);
  result.top_tokens = tokens;
  result.top_logprobs = logprobs;
  ExecContext ctx = m.ctx();
  std::vector<double> times;
  for (int i = 0; i < 21; ++i) {
    copy = logits;
    const double start = Seconds();
    Sample(ctx, {Mat(copy.data(), DType::kF32, 1, vocab), {&row, 1}, {&result, 1}});
    times.push_back(Seconds() - start);
  }
  std::sort(times.begin(), times.end());
  fmt::print("{:58} {:9.1f} us\n", "sample 151936 " + what, times[10] * 1e6);
}

void BenchSamples(Machine& m) {
  SampleRow row;
  BenchSample(m, "temperature 1", row);
  row.top_p = 0.9f;
  BenchSample(m, "top-p 0.9", row);
  row.top_k = 50;
  BenchSample(m, "top-k 50, top-p 0.9", row);
  row = {};
  row.min_p = 0.05f;
  BenchSample(m, "min-p 0.05", row);
  row = {};
  row.temperature = 0;
  BenchSample(m, "greedy", row);
  row.num_logprobs = 20;
  BenchSample(m, "greedy, 20 logprobs", row);
}

// What a tiny model's step is made of.
void BenchSmall(Machine& m) {
  ExecContext ctx = m.ctx();
  Mat x(m.activations.data(), DType::kBF16, 1, 256);
  Mat residual(m.activations.data() + 65536, DType::kF32, 1, 256);
  Mat out(m.activations.data() + 131072, DType::kBF16, 1, 256);
  RmsNormArgs norm;
  norm.x = x;
  norm.residual = residual;
  norm.out = out;
  fmt::print("{:58} {:9.2f} us\n", "rms_norm 1x256",
             Median([&](int) { RmsNorm(ctx, norm); }, 1001) * 1e6);
  const PackedWeight w = WeightAt(m.weights, 0, WeightFormat::kBF16, 256, 256, false);
  GemmArgs gemm;
  gemm.a = x;
  gemm.w = &w;
  gemm.out = out;
  fmt::print("{:58} {:9.2f} us\n", "gemm 256x256 T=1 bfloat16",
             Median([&](int) { Gemm(ctx, gemm); }, 1001) * 1e6);
  BenchMoe(m, WeightFormat::kFp8Block, 256, 128, 32, 1, false);
  BenchMoe(m, WeightFormat::kBF16, 256, 128, 32, 1, false);
  BenchGemm(m, WeightFormat::kBF16, DType::kBF16, 1, 8192, 256);
}

int Main(std::vector<std::string> parts) {
  cpu_time = std::erase(parts, "--cpu-time") > 0;
  const auto backend = ChooseBackend();
  if (!backend) {
    fmt::print(stderr, "{}\n", backend.error().message());
    return 1;
  }
  Machine m(*backend);
  if (cpu_time) {
    m.bytes_per_second = OneThreadBandwidth(m.weights);
  } else if (const auto bandwidth = platform::MeasureReadBandwidth(*m.pool)) {
    m.bytes_per_second = bandwidth->all_threads;
  }
  fmt::print("{} on {} threads; streaming read {:.1f} GB/s\n", m.backend->name,
             m.pool->num_threads(), m.bytes_per_second / 1e9);
  const auto wanted = [&](const char* part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  constexpr WeightFormat kFormats[] = {WeightFormat::kBF16, WeightFormat::kFp8Block,
                                       WeightFormat::kF32};
  if (wanted("decode")) {
    for (const WeightFormat format : kFormats) {
      for (const int64_t tokens : {1, 2, 4, 8}) {
        BenchMoe(m, format, 2048, 768, 128, tokens, false);
      }
    }
    for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kFp8Block}) {
      for (const int64_t tokens : {1, 4}) BenchMoe(m, format, 7168, 2048, 256, tokens, false);
      for (const int64_t tokens : {1, 2, 4, 8}) {
        BenchGemm(m, format, DType::kBF16, tokens, 151936, 2048);
      }
    }
  }
  if (wanted("prefill")) {
    for (const WeightFormat format : kFormats) {
      for (const int64_t tokens : {16, 64, 256, 1024}) {
        BenchGemm(m, format, DType::kBF16, tokens, 4096, 2048);
      }
      BenchMoe(m, format, 2048, 768, 128, 1024, true);
      BenchMoe(m, format, 7168, 2048, 32, 256, true);
    }
  }
  if (wanted("attention")) {
    BenchAttention(m, 1, 1, 4096, 32, 4, 128, 128);
    BenchAttention(m, 8, 1, 4096, 32, 4, 128, 128);
    BenchAttention(m, 1, 1, 4096, 16, 1, 576, 512);
    BenchAttention(m, 1, 1, 4096, 128, 1, 576, 512);
    BenchAttention(m, 1, 512, 2048, 32, 4, 128, 128);
    BenchAttention(m, 1, 512, 512, 16, 1, 576, 512);
  }
  if (wanted("sample")) BenchSamples(m);
  if (wanted("small")) BenchSmall(m);
  return 0;
}

}  // namespace
}  // namespace moebius::kernels

int main(int argc, char** argv) {
  return moebius::kernels::Main(std::vector<std::string>(argv + 1, argv + argc));
}
