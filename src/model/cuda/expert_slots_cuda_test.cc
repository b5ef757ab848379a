// Experts that change slots in a GPU's memory: fetched from another slot or from the checkpoint
// they have the same bytes, and the routing table that kernels read says so. Skipped without a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/backend.h"
#include "model/expert_slots.h"
#include "model/load.h"
#include "moe/migrate/cuda/device_copies.h"
#include "platform/cuda/device_memory_space.h"

namespace moebius::model {
namespace {

using DeviceBytes = std::vector<std::byte>;

DeviceBytes BytesOfSlot(const moe::ExpertStore& store, int slot) {
  DeviceBytes bytes(store.ExpertBytes(0));
  store.Read(0, slot, 0, bytes);
  return bytes;
}

// One slot to spare, which becomes the place of one expert after the other.
void ExpectSpareSlotTakesAll(const LoadOptions& wishes, moe::ExpertCopies& copies) {
  LoadOptions options = wishes;
  const auto num_experts = static_cast<int>(LoadConfig(options)->moe.num_experts);
  options.shard.slots.num_slots = num_experts + 1;
  options.shard.num_staging = 1;
  options.shard.copies = &copies;
  const auto pool = platform::ThreadPool::Create();
  const auto model = LoadModel(options, *pool);
  ASSERT_TRUE(model) << model.error().message();
  moe::ExpertStore& store = *(*model)->expert_store();
  std::vector<int32_t> experts = moe::LinearSlots(num_experts, 1, num_experts + 1);
  for (int e = 1; e < num_experts; ++e) {
    const DeviceBytes want = BytesOfSlot(store, e);
    ASSERT_NE(want, BytesOfSlot(store, num_experts)) << "or nothing would show";
    if (e % 2 == 0) {
      store.Write(0, 0, want);
    } else {
      for (size_t offset = 0; offset < want.size();) {
        const auto part = store.FromCheckpoint(0, ExpertId(e), offset);
        ASSERT_TRUE(part) << part.error().message();
        store.Write(0, offset, part->bytes);
        offset += part->bytes.size();
      }
    }
    experts.back() = e;
    const Status prepared =
        store.Prepare({{.layer = 0, .experts = experts, .slots = {{num_experts, 0}}}});
    ASSERT_TRUE(prepared) << prepared.error().message();
    store.Flip();
    ASSERT_EQ(BytesOfSlot(store, num_experts), want) << "expert " << e;
  }
  EXPECT_TRUE(copies.status());
}

TEST(CudaExpertSlots, TakeExpertsFromSlotsAndTheCheckpoint) {
  const auto backend = kernels::CudaBackend();
  if (!backend) GTEST_SKIP() << backend.error().message();
  const platform::cuda::Stream steps = *platform::cuda::Stream::Create(/*high_priority=*/true);
  const auto copies = moe::DeviceCopies::Create(0, steps);
  ASSERT_TRUE(copies) << copies.error().message();
  for (const char* name : {"deepseek_v3_fp8", "llama4_nested", "qwen3_moe_old", "kimi_k2_mtp"}) {
    for (const DTypeChoice dtype : {DTypeChoice::kFloat32, DTypeChoice::kBFloat16}) {
      SCOPED_TRACE(name);
      const char* root = std::getenv("MOEBIUS_ROOT");
      LoadOptions options;
      options.folder =
          std::string(root != nullptr ? root : MOEBIUS_SOURCE_DIR) + "/tests/golden/" + name;
      options.dtype = dtype;
      options.mtp = false;
      options.backend = *backend;
      options.show_progress = false;
      ExpectSpareSlotTakesAll(options, **copies);
    }
  }
}

// What was queued in the steps' order comes before what is copied beside.
TEST(CudaExpertSlots, CopiesBesideWaitForThoseBetweenSteps) {
  if (const auto backend = kernels::CudaBackend(); !backend) {
    GTEST_SKIP() << backend.error().message();
  }
  const platform::cuda::Stream steps = *platform::cuda::Stream::Create();
  const auto copies = *moe::DeviceCopies::Create(0, steps);
  constexpr size_t kBytes = size_t{8} << 20;
  const auto memory = *platform::cuda::DeviceMemory::Allocate(3 * kBytes);
  std::byte* const from = memory.data();
  std::byte* const to = from + kBytes;
  std::byte* const beside = to + kBytes;
  DeviceBytes host(kBytes);
  for (int round = 1; round < 5; ++round) {
    std::ranges::fill(host, static_cast<std::byte>(round));
    copies->Copy(from, host.data(), kBytes);
    copies->Wait();
    for (int i = 0; i < 100; ++i) copies->Queue(to, from, kBytes);
    copies->EndOfQueue();
    copies->Copy(beside, to, kBytes);
    EXPECT_EQ(copies->ChecksumOf({beside, kBytes}), copies->ChecksumOf({from, kBytes}));
    copies->Copy(host.data(), beside, kBytes);
    copies->Wait();
    EXPECT_TRUE(
        std::ranges::all_of(host, [&](auto b) { return b == static_cast<std::byte>(round); }));
  }
  EXPECT_TRUE(copies->status());
}

}  // namespace
}  // namespace moebius::model
