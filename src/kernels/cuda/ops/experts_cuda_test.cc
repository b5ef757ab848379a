// What the GPU does for experts that are in several slots and for those that move, against the
// host. Skipped without a GPU.
#include <algorithm>
#include <cstring>

#include "kernels/cuda/moe/checksum.h"
#include "kernels/cuda/ops/device_test_util.h"

namespace moebius::kernels {
namespace {

class CudaExperts : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto backend = CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    bench_ = std::make_unique<DeviceBench>(*backend, /*library=*/false);
  }
  DeviceBench& bench() { return *bench_; }
  ExecContext& device() { return bench_->ctx(); }
  ExecContext& host() { return host_.ctx(); }
  std::vector<int32_t> RandomInts(int64_t count, int64_t below) {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(static_cast<int32_t>(random_.Below(below)));
    }
    return values;
  }

  Random random_{7};
  std::unique_ptr<DeviceBench> bench_;
  TestContext host_{&RefBackend()};
};

TEST_F(CudaExperts, Checksum) {
  for (const size_t size : {0, 1, 8, 21, 4096, 70001, 3 << 20}) {
    bench().Reset();
    std::vector<uint8_t> bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_.Below(256));
    uint64_t want = 77;  // added to
    for (size_t i = 0; 8 * i < size; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + 8 * i, std::min<size_t>(8, size - 8 * i));
      want += cuda::ChecksumPart(i, word);
    }
    const std::span<uint8_t> on_device = bench().Put(bytes);
    const std::span<uint64_t> sum = bench().Put(std::vector<uint64_t>{77});
    ASSERT_EQ(cuda::LaunchChecksum(reinterpret_cast<const std::byte*>(on_device.data()), size,
                                   sum.data(), device().device->stream),
              0);
    EXPECT_EQ(bench().Get(sum).front(), want) << size;
  }
}

// Experts in slots of some ranks, some of them several times.
struct CopyTable {
  CopyTable(Random& random, int64_t num_experts, int32_t num_ranks, int32_t slots_per_rank)
      : slots_per_rank(slots_per_rank) {
    std::vector<std::vector<int32_t>> of_expert(static_cast<size_t>(num_experts));
    for (int32_t slot = 0; slot < num_ranks * slots_per_rank; ++slot) {
      const int64_t e = slot < num_experts ? slot : random.Below(random.Below(num_experts) + 1);
      of_expert[static_cast<size_t>(e)].push_back(slot);
    }
    for (const std::vector<int32_t>& copies : of_expert) {
      slots.insert(slots.end(), copies.begin(), copies.end());
      begin.push_back(static_cast<int32_t>(slots.size()));
    }
    // Room for more, as tables have that change while graphs read them.
    slots.push_back(-9);
  }

  int32_t slots_per_rank;
  std::vector<int32_t> begin = {0};
  std::vector<int32_t> slots;
};

TEST_F(CudaExperts, ChoosesTheSameCopies) {
  for (const auto& [experts, ranks, slots, k] :
       {std::tuple(4, 4, 3, 2), std::tuple(32, 2, 20, 4), std::tuple(256, 32, 9, 8),
        std::tuple(40, 8, 16, 32)}) {
    for (const int32_t home : {-1, 0, ranks - 1}) {
      SCOPED_TRACE(fmt::format("{} experts, {} x {} slots, home {}", experts, ranks, slots, home));
      bench().Reset();
      constexpr int64_t kRows = 333;
      const CopyTable table(random_, experts, ranks, slots);
      const TestMat logits = TestMat(DType::kF32, kRows, experts).Fill(random_);
      const size_t pairs = static_cast<size_t>(kRows * k);
      std::vector<int32_t> chosen(pairs), want(pairs, 99), got(pairs, 98);
      std::vector<float> weights(pairs);
      std::vector<TokenId> tokens = RandomInts(kRows, 200000);
      const std::vector<Position> positions = RandomInts(kRows, 5000);
      for (size_t t = 0; t < tokens.size(); t += 7) tokens[t] = -1;
      std::vector<int64_t> counts(static_cast<size_t>(experts), 3);
      std::vector<int64_t> prompt_counts(static_cast<size_t>(experts), 4);
      const auto d_counts = bench().Put(counts);
      const auto d_prompt_counts = bench().Put(prompt_counts);
      const SlotChoice on_host = {.first_slot = {},
                                  .counts = counts,
                                  .prompt_counts = prompt_counts,
                                  .num_decodes = 100,
                                  .replicas = {.begin = table.begin,
                                               .slots = table.slots,
                                               .slots_per_rank = slots,
                                               .home = home},
                                  .positions = positions};
      SlotChoice on_device = on_host;
      on_device.counts = d_counts;
      on_device.prompt_counts = d_prompt_counts;
      on_device.replicas.begin = bench().Put(table.begin);
      on_device.replicas.slots = bench().Put(table.slots);
      on_device.positions = bench().Put(positions);
      const auto d_tokens = bench().Put(tokens);
      const auto d_slots = bench().Put(got);
      RouteTopKArgs route = {.logits = bench().Put(logits),
                             .k = k,
                             .normalize = true,
                             .experts = bench().Put(chosen),
                             .weights = bench().Put(weights)};
      RouteToSlots(device(),
                   {.route = route, .tokens = d_tokens, .choice = on_device, .slots = d_slots});
      const std::vector<int32_t> routed = bench().Get(d_slots);
      ChooseSlots(device(), {.experts = route.experts,
                             .tokens = d_tokens,
                             .k = k,
                             .choice = on_device,
                             .slots = d_slots});
      chosen = bench().Get(route.experts);
      for (int i = 0; i < 2; ++i) {
        ChooseSlots(
            host(),
            {.experts = chosen, .tokens = tokens, .k = k, .choice = on_host, .slots = want});
      }
      EXPECT_EQ(routed, want);
      EXPECT_EQ(bench().Get(d_slots), want);
      EXPECT_EQ(bench().Get(d_counts), counts);
      EXPECT_EQ(bench().Get(d_prompt_counts), prompt_counts);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
