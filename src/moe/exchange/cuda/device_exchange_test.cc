// A layer of experts over the exchange between GPUs: rows that are quantised before they travel
// give the very bits of rows that are quantised where they arrive. Virtual ranks on one GPU.
// Skipped without one.
#include "moe/exchange/cuda/device_exchange.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "base/testing/slow.h"
#include "kernels/cuda/ops/device_test_util.h"

namespace moebius::moe {
namespace {

using kernels::WeightFormat;

constexpr int64_t kColumns = 384;
constexpr int64_t kInner = 256;
constexpr int64_t kMaxTokens = 200;
constexpr int64_t kChoices = 3;
constexpr int64_t kSlotsPerRank = 4;
constexpr int kVirtualRanks = 2;

constexpr ExchangeShape kOnDevices = {.num_ranks = kVirtualRanks,
                                      .num_slots = kVirtualRanks * kSlotsPerRank,
                                      .max_tokens = kMaxTokens,
                                      .top_k = kChoices,
                                      .hidden = kColumns,
                                      .act = DType::kBF16};

// A rank with its experts, in fp8, and its tokens.
struct VirtualRank {
  VirtualRank(const kernels::Backend* backend, kernels::Random& random)
      : bench(backend, /*library=*/false),
        up(bench, random, WeightFormat::kFp8Block, kSlotsPerRank, kInner, kColumns, true),
        down(bench, random, WeightFormat::kFp8Block, kSlotsPerRank, kColumns, kInner, false) {}

  void Draw(int64_t num_tokens, kernels::Random& random) {
    std::vector<int32_t> to;
    std::vector<float> by;
    for (int64_t t = 0; t < num_tokens; ++t) {
      const int64_t first = random.Below(kOnDevices.num_slots);
      for (int64_t j = 0; j < kChoices; ++j) {
        to.push_back(static_cast<int32_t>((first + 3 * j) % kOnDevices.num_slots));
        by.push_back(static_cast<float>(random.Below(100)) / 100);
      }
    }
    rows = bench.Put(kernels::TestMat(DType::kBF16, num_tokens, kColumns).Fill(random));
    slots = bench.Put(to);
    weights = bench.Put(by);
  }

  // Queues the layer; most: tokens of any rank.
  Mat Run(WeightFormat read_by, int64_t most) {
    const size_t num_bytes = exchange->ArenaBytes(most, kChoices, kOnDevices.num_slots);
    Arena arena(bench.Room(num_bytes), num_bytes);
    exchange->BeginStep(0, {});
    const DispatchedRows work = exchange->Dispatch(bench.ctx(),
                                                   {.rows = rows,
                                                    .slots = slots,
                                                    .weights = weights,
                                                    .k = kChoices,
                                                    .num_slots = kOnDevices.num_slots,
                                                    .most_rows = most,
                                                    .read_by = read_by},
                                                   arena);
    dtype = work.rows.dtype;
    const Mat inner = Room(work.max_places, kInner);
    const Mat results = Room(work.max_places, kColumns);
    kernels::GroupedMlp(bench.ctx(), {.first = {.a = work.rows,
                                                .a_scales = work.row_scales,
                                                .offsets = work.offsets,
                                                .pairs = work.pairs,
                                                .row_scale = {},
                                                .weights = up.device(),
                                                .out = inner,
                                                .likely_places = work.likely_places},
                                      .down = down.device(),
                                      .out = results});
    const Mat out = Room(rows.rows, kColumns);
    exchange->Combine(bench.ctx(), {.expert_rows = results, .shared = {}, .out = out});
    return out;
  }
  Mat Room(int64_t num_rows, int64_t cols) {
    void* at = bench.Room(static_cast<size_t>(num_rows * cols) * sizeof(BFloat16));
    return Mat(at, DType::kBF16, num_rows, cols);
  }

  kernels::DeviceBench bench;
  kernels::DeviceWeights up;
  kernels::DeviceWeights down;
  comm::PeerMemory memory;
  std::unique_ptr<DeviceExchange> exchange;
  Mat rows;
  std::span<int32_t> slots;
  std::span<float> weights;
  DType dtype = DType::kF32;  // of the rows that came last
};

class DeviceExchangeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // A kernel that is loaded behind one that waits would wait for it.
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    const auto backend = kernels::CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    for (int r = 0; r < kVirtualRanks; ++r) {
      ranks_.push_back(std::make_unique<VirtualRank>(*backend, random_));
    }
  }
  void Connect(ExchangeMode mode, bool deterministic) {
    ExchangeShape shape = kOnDevices;
    shape.deterministic = deterministic;
    comm::DeviceGroup group;
    group.info.name = "a test";
    group.info.abort = &abort_;
    group.info.world_ranks = {0, 1};
    group.wait_limit = moebius::testing::Slow(std::chrono::seconds(5));
    group.num_sharers = kVirtualRanks;
    for (const auto& rank : ranks_) {
      rank->memory = *DeviceExchange::Allocate(shape);
      group.bases.push_back(rank->memory.data());
    }
    for (const auto& rank : ranks_) {
      group.stream = rank->bench.ctx().device->stream;
      rank->exchange = *DeviceExchange::Create(shape, mode, group, &rank->memory);
      ++group.info.rank;
    }
  }
  // The results of all ranks' tokens, whose rows must come to the experts as `came`.
  std::vector<std::vector<uint8_t>> RunAll(WeightFormat read_by, int64_t most, DType came) {
    std::vector<Mat> outs;
    for (const auto& rank : ranks_) outs.push_back(rank->Run(read_by, most));
    std::vector<std::vector<uint8_t>> rows;
    for (size_t r = 0; r < outs.size(); ++r) {
      EXPECT_EQ(ranks_[r]->dtype, came);
      kernels::TestMat got(DType::kBF16, outs[r].rows, kColumns);
      ranks_[r]->bench.Get(outs[r], got);
      const Status status = ranks_[r]->exchange->status();
      EXPECT_TRUE(status) << status.error().message();
      for (int64_t t = 0; t < outs[r].rows; ++t) rows.push_back(got.RowCopy(t));
    }
    return rows;
  }

  kernels::Random random_{11};
  comm::AbortWord abort_;
  std::vector<std::unique_ptr<VirtualRank>> ranks_;
};

TEST_F(DeviceExchangeTest, RowsQuantisedBeforeTheyTravelGiveTheSameBits) {
  for (const ExchangeMode mode : {ExchangeMode::kLatency, ExchangeMode::kThroughput}) {
    for (const bool deterministic : {false, true}) {
      Connect(mode, deterministic);
      for (const auto& [first, second] :
           {std::pair(23, 0), std::pair(37, 5), std::pair(150, 200)}) {
        SCOPED_TRACE(fmt::format("{}{}, {} and {} tokens", ExchangeModeName(mode),
                                 deterministic ? " deterministic" : "", first, second));
        ranks_[0]->Draw(first, random_);
        ranks_[1]->Draw(second, random_);
        const int64_t most = std::max(first, second);
        // Each format after the other one, in the same regions. (Of so few rows that the tensor
        // cores are left alone those of bfloat16 stay as they are.)
        const auto want = RunAll(WeightFormat::kBF16, most, DType::kBF16);
        EXPECT_NE(want.front(), std::vector<uint8_t>(want.front().size()));
        EXPECT_EQ(RunAll(WeightFormat::kFp8Block, most, DType::kF8E4M3), want);
        EXPECT_EQ(RunAll(WeightFormat::kBF16, most, DType::kBF16), want);
        EXPECT_EQ(RunAll(WeightFormat::kFp8Block, most, DType::kF8E4M3), want);
      }
    }
  }
}

// Products that quantise nothing get the rows as they are.
TEST_F(DeviceExchangeTest, DeterministicProductsGetRowsAsTheyAre) {
  Connect(ExchangeMode::kAuto, /*deterministic=*/true);
  for (const auto& rank : ranks_) {
    rank->bench.ctx().device->deterministic = true;
    rank->Draw(20, random_);
  }
  EXPECT_EQ(RunAll(WeightFormat::kFp8Block, 20, DType::kBF16),
            RunAll(WeightFormat::kBF16, 20, DType::kBF16));
}

}  // namespace
}  // namespace moebius::moe
