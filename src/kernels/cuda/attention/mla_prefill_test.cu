// Latent attention of prompts' chunks against double precision, its keys and values given: ragged
// chunks with and without earlier context, NaN in what must not be read, heads at once and in
// groups, other rows untouched.
#include <cstring>

#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;

constexpr int kCacheWidth = 576;

struct Case {
  const char* name;
  int heads, block_size;
  std::vector<int32_t> queries, contexts;  // by sequence
  size_t pass_bytes = kLatentPassBytes;
  int sms = 0;
};

struct Batch {
  std::vector<AttentionItem> items;
  int rows = 3;  // that nobody attends, before and between
  std::vector<int32_t> table;
  int max_blocks = 0;
  std::vector<Bf16> cache;
};

// NaN but where a context's positions lie.
Batch MakeBatch(const Case& c, testing::Rng& rng) {
  Batch b;
  for (size_t s = 0; s < c.contexts.size(); ++s) {
    b.items.push_back({b.rows, static_cast<int32_t>(s), c.contexts[s], c.queries[s]});
    b.rows += c.queries[s] + 1;
  }
  const int32_t longest = *std::max_element(c.contexts.begin(), c.contexts.end());
  b.max_blocks = (longest + c.block_size - 1) / c.block_size + 2;
  b.table.resize(c.contexts.size() * b.max_blocks);
  for (size_t i = 0; i < b.table.size(); ++i) b.table[i] = static_cast<int32_t>(i);
  std::shuffle(b.table.begin(), b.table.end(), rng);
  b.cache.assign(b.table.size() * c.block_size * kCacheWidth, __float2bfloat16(NAN));
  for (const AttentionItem& item : b.items) {
    for (int p = 0; p < item.context; ++p) {
      const int64_t block = b.table[item.seq * b.max_blocks + p / c.block_size];
      const auto row = testing::RandomNormal<Bf16>(rng, kCacheWidth);
      std::copy(row.begin(), row.end(),
                b.cache.begin() + (block * c.block_size + p % c.block_size) * kCacheWidth);
    }
  }
  return b;
}

// What a pass has on the host: gathered latents, and keys and values, zeros behind each context.
struct Expanded {
  std::vector<Bf16> latents, keys, values;
};

Expanded MakeExpanded(const Case& c, const Batch& b, const LatentPasses& plan,
                      const LatentPass& pass, testing::Rng& rng) {
  Expanded e;
  const size_t width = static_cast<size_t>(c.heads) * kMlaHead;
  const Bf16 zero = __float2bfloat16(0);
  e.latents.assign(static_cast<size_t>(pass.num_keys) * kCacheWidth, zero);
  e.keys.assign(pass.num_keys * width, zero);
  e.values.assign(pass.num_keys * width, zero);
  for (int i = 0; i < pass.num_sequences; ++i) {
    const LatentSequence& s = plan.sequences[pass.first_sequence + i];
    const size_t count = s.context * width;
    const auto keys = testing::RandomNormal<Bf16>(rng, count);
    const auto values = testing::RandomNormal<Bf16>(rng, count);
    std::copy(keys.begin(), keys.end(), e.keys.begin() + s.first_key * width);
    std::copy(values.begin(), values.end(), e.values.begin() + s.first_key * width);
    for (int p = 0; p < s.context; ++p) {
      const int64_t block = b.table[s.seq * b.max_blocks + p / c.block_size];
      const auto from = b.cache.begin() + (block * c.block_size + p % c.block_size) * kCacheWidth;
      std::copy(from, from + kCacheWidth,
                e.latents.begin() + static_cast<size_t>(s.first_key + p) * kCacheWidth);
    }
  }
  return e;
}

// q: [rows, heads x 192].
void Attend(const Case& c, const std::vector<Bf16>& q, const Expanded& e, const LatentTile& tile,
            double scale, std::vector<double>& out) {
  const size_t width = static_cast<size_t>(c.heads) * kMlaHead;
  for (int i = 0; i < tile.queries; ++i) {
    const size_t row = tile.row + i;
    const int visible = tile.context - tile.queries + 1 + i;
    for (int h = 0; h < c.heads; ++h) {
      std::vector<double> weights(visible);
      double top = -1e300;
      for (int p = 0; p < visible; ++p) {
        const size_t key = tile.first_key + p;
        double dot = 0;
        for (int d = 0; d < kMlaHead; ++d) {
          dot += double{testing::ToFloat(q[(row * c.heads + h) * kMlaQuery + d])} *
                 testing::ToFloat(e.keys[key * width + h * kMlaHead + d]);
        }
        for (int d = 0; d < 64; ++d) {
          dot += double{testing::ToFloat(q[(row * c.heads + h) * kMlaQuery + kMlaHead + d])} *
                 testing::ToFloat(e.latents[key * kCacheWidth + 512 + d]);
        }
        weights[p] = dot * scale;
        top = std::max(top, weights[p]);
      }
      double sum = 0;
      for (double& x : weights) sum += x = std::exp(x - top);
      for (int d = 0; d < kMlaHead; ++d) {
        double value = 0;
        for (int p = 0; p < visible; ++p) {
          value += weights[p] *
                   testing::ToFloat(e.values[(tile.first_key + p) * width + h * kMlaHead + d]);
        }
        out[row * width + h * kMlaHead + d] = value / sum;
      }
    }
  }
}

void Run(const Case& c, testing::Rng& rng) {
  const Batch b = MakeBatch(c, rng);
  const size_t width = static_cast<size_t>(c.heads) * kMlaHead;
  const auto q =
      testing::RandomNormal<Bf16>(rng, static_cast<size_t>(b.rows) * c.heads * kMlaQuery);
  int sms = c.sms;
  if (sms == 0) CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const LatentPasses plan = PlanLatentPasses(b.items, {c.heads, sms, c.pass_bytes});
  const Device<Bf16> d_q(q), d_cache(b.cache);
  const Device<int32_t> d_table(b.table);
  const Device<LatentSequence> d_sequences(plan.sequences);
  const Device<LatentTile> d_tiles(plan.tiles);
  Device<Bf16> out(b.rows * width), again(b.rows * width);
  Device<int32_t> next(c.heads);
  std::vector<double> want(b.rows * width, 0.0);
  for (const LatentPass& pass : plan.passes) {
    const Expanded e = MakeExpanded(c, b, plan, pass, rng);
    const Device<Bf16> keys(e.keys), values(e.values);
    Device<Bf16> latents(e.latents.size());
    GatherLatentsLaunch gather;
    gather.cache = d_cache.get();
    gather.cache_stride = kCacheWidth;
    gather.block_table = d_table.get();
    gather.max_blocks = b.max_blocks;
    gather.block_size = c.block_size;
    gather.sequences = d_sequences.get() + pass.first_sequence;
    gather.num_sequences = pass.num_sequences;
    gather.num_keys = pass.num_keys;
    gather.latents = latents.get();
    gather.next = next.get();
    gather.num_next = c.heads;
    MlaPrefillLaunch launch;
    launch.q = d_q.get();
    launch.q_stride = int64_t{c.heads} * kMlaQuery;
    launch.num_rows = b.rows;
    launch.latents = latents.get();
    launch.expanded_stride = static_cast<int64_t>(width);
    launch.num_keys = pass.num_keys;
    launch.tiles = d_tiles.get() + pass.first_tile;
    launch.num_tiles = pass.num_tiles;
    launch.num_sms = sms;
    launch.scale = 1.0f / std::sqrt(192.0f);
    launch.out_stride = static_cast<int64_t>(width);
    for (Device<Bf16>* to : {&out, &again}) {
      CUDA_OK(LaunchGatherLatents(gather, nullptr));
      launch.out = to->get();
      for (int first = 0; first < c.heads; first += pass.num_heads) {
        launch.first_head = first;
        launch.num_heads = std::min(pass.num_heads, c.heads - first);
        launch.keys = keys.get() + first * kMlaHead;
        launch.values = values.get() + first * kMlaHead;
        launch.next = next.get() + first / pass.num_heads;
        CUDA_OK(LaunchMlaPrefill(launch, nullptr));
      }
    }
    CUDA_OK(cudaDeviceSynchronize());
    const auto gathered = latents.Download();
    testing::Expect(std::memcmp(gathered.data(), e.latents.data(), latents.bytes()) == 0,
                    std::string(c.name) + ": gathered latents differ");
    for (int t = 0; t < pass.num_tiles; ++t) {
      Attend(c, q, e, plan.tiles[pass.first_tile + t], launch.scale, want);
    }
  }
  auto got = out.Download();
  testing::Expect(std::memcmp(got.data(), again.Download().data(), out.bytes()) == 0,
                  std::string(c.name) + ": a second launch gave other bits");
  // Rows of nobody are still poison.
  std::vector<bool> attended(b.rows, false);
  for (const AttentionItem& item : b.items) {
    std::fill_n(attended.begin() + item.row, item.queries, true);
  }
  bool untouched = true;
  for (int row = 0; row < b.rows; ++row) {
    if (attended[row]) continue;
    for (size_t i = 0; i < width; ++i) {
      uint16_t bits;
      std::memcpy(&bits, &got[row * width + i], sizeof(bits));
      untouched = untouched && bits == 0xffff;
      got[row * width + i] = __float2bfloat16(0);
    }
  }
  testing::Expect(untouched, std::string(c.name) + ": rows of nobody were written");
  const testing::Error error = testing::Compare(got, want);
  testing::ExpectClose(error, 5e-3, c.name);
  std::printf("%-28s heads %3d, %zu passes of %d heads: relative error %.2e, worst %.2e\n", c.name,
              c.heads, plan.passes.size(), plan.passes[0].num_heads, error.relative, error.worst);
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  const std::vector<int32_t> chunks = {1, 70, 128, 5, 300, 64, 129};
  const std::vector<int32_t> behind = {1, 70, 128, 200, 700, 513, 130};
  const std::vector<Case> cases = {
      {"one query", 1, 64, {1}, {1}},
      {"one tile", 2, 16, {128}, {128}},
      {"half a tile", 2, 16, {64}, {64}},
      {"a tile, context", 3, 16, {128}, {1000}},
      {"ragged", 4, 16, chunks, behind},
      {"ragged, blocks of 64", 4, 64, chunks, behind},
      {"ragged, odd blocks", 3, 24, chunks, behind},
      {"ragged, few blocks", 4, 16, chunks, behind, moebius::kernels::kLatentPassBytes, 5},
      {"passes", 4, 16, chunks, behind, size_t{2} << 20},
      {"passes, groups of heads", 7, 16, chunks, behind, size_t{1} << 20},
      {"a head at a time", 3, 16, chunks, behind, 1},
      {"128 heads", 128, 16, {30, 65}, {30, 150}},
      {"long", 2, 16, {600}, {3000}},
  };
  for (const Case& c : cases) Run(c, rng);
  return testing::Finish("mla_prefill_test");
}
