#include "engine/kv_memory.h"

#include <gtest/gtest.h>

namespace moebius::engine {
namespace {

constexpr uint64_t kMiB = 1 << 20;

KvMemoryInput Input() {
  KvMemoryInput input;
  input.block_bytes = 64 << 10;  // 16 tokens of 4 KiB
  input.workspace_bytes = 100 * kMiB;
  input.available_bytes = 1100 * kMiB;
  input.max_position = 4096;
  return input;
}

TEST(KvMemory, ABlockHoldsAllLayers) {
  const model::KvLayerSpec layers[] = {
      {64, 64, DType::kBF16}, {576, 0, DType::kF32}, {656, 0, DType::kF8E4M3}};
  EXPECT_EQ(KvBlockBytes(layers, 16), ((64u + 64) * 2 + 576 * 4 + 656) * 16);
}

TEST(KvMemory, TakesAFractionOfWhatIsAvailable) {
  const auto plan = PlanKvMemory(Input(), {});
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->num_blocks, (1100 * 9 / 10 - 100) * 16);
  EXPECT_EQ(plan->kv_bytes, 890 * kMiB);
  EXPECT_EQ(plan->max_model_len, 4096);
  EXPECT_EQ(plan->Describe(16),
            "KV cache 890.0 MiB (14240 blocks of 16 tokens), workspace 100.0 MiB, requests of up "
            "to 4096 tokens");
}

TEST(KvMemory, NeverMoreThanTheRequestsCanUse) {
  EngineOptions options;
  options.max_num_seqs = 3;
  options.max_model_len = 100;
  EXPECT_EQ(PlanKvMemory(Input(), options)->num_blocks, 3 * 7);
  options.kv_cache_bytes = 900 * kMiB;
  EXPECT_EQ(PlanKvMemory(Input(), options)->num_blocks, 3 * 7);
  options.num_kv_blocks = 50;  // but an exact number is an exact number
  EXPECT_EQ(PlanKvMemory(Input(), options)->num_blocks, 50);
}

TEST(KvMemory, MillionsOfPositionsMustBeAskedFor) {
  KvMemoryInput input = Input();
  input.max_position = 10 << 20;
  input.block_bytes = 64;
  EXPECT_EQ(PlanKvMemory(input, {})->max_model_len, kMostUnaskedModelLen);
  EngineOptions options;
  options.max_model_len = 1 << 20;
  EXPECT_EQ(PlanKvMemory(input, options)->max_model_len, 1 << 20);
}

TEST(KvMemory, ALengthThatNobodyAskedForGivesWay) {
  EngineOptions options;
  options.kv_cache_bytes = 10 * kMiB;
  EXPECT_EQ(PlanKvMemory(Input(), options)->max_model_len, 2560);
}

TEST(KvMemory, ALengthThatWasAskedForIsRefusedWithTheFigures) {
  EngineOptions options;
  options.kv_cache_bytes = 10 * kMiB;
  options.max_model_len = 4096;
  const auto plan = PlanKvMemory(Input(), options);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(
      plan.error().message(),
      "the KV cache has room for 2560 tokens (10.0 MiB of 1.1 GiB available), but one request "
      "of --max-model-len 4096 needs 16.0 MiB: lower that, or raise --kv-cache-memory-bytes, "
      "--num-kv-blocks or --gpu-memory-utilization (0.9)");
}

TEST(KvMemory, MoreThanThereIsIsRefused) {
  EngineOptions options;
  options.num_kv_blocks = 16 * 1001;
  const auto plan = PlanKvMemory(Input(), options);
  ASSERT_FALSE(plan.has_value());
  EXPECT_NE(plan.error().message().find("lower --kv-cache-memory-bytes or --num-kv-blocks"),
            std::string::npos);
  // A product of more than 64 bits is no small one.
  KvMemoryInput huge = Input();
  huge.block_bytes = uint64_t{1} << 36;
  options.num_kv_blocks = int64_t{1} << 28;
  EXPECT_EQ(PlanKvMemory(huge, options).error().code(), ErrorCode::kOutOfMemory);
  KvMemoryInput tiny = Input();
  tiny.available_bytes = 50 * kMiB;
  EXPECT_EQ(PlanKvMemory(tiny, {}).error().code(), ErrorCode::kOutOfMemory);
}

// Every cache has its place, at a multiple of 256 bytes, and the last ends where the memory does.
TEST(KvMemory, CachesLieOneAfterTheOther) {
  const std::vector<model::KvLayerSpec> layers = {
      {.width_k = 24, .width_v = 40, .dtype = DType::kBF16}, {.width_k = 7, .dtype = DType::kBF16}};
  constexpr int64_t kRows = 5;
  alignas(256) static std::byte memory[2048];
  const size_t num_bytes = KvCacheBytes(layers, kRows);
  EXPECT_EQ(num_bytes, size_t{256 + 512 + 256});  // 240, 400 and 70 bytes
  const auto caches = LayOutKv(memory, layers, kRows);
  ASSERT_EQ(caches.size(), 2U);
  EXPECT_EQ(caches[0].k.data, memory);
  EXPECT_EQ(caches[0].v.data, memory + 256);
  EXPECT_EQ(caches[1].k.data, memory + 768);
  EXPECT_EQ(caches[1].v.data, nullptr);
  EXPECT_EQ(caches[0].v.rows, kRows);
  EXPECT_EQ(caches[0].v.cols, 40);
}

}  // namespace
}  // namespace moebius::engine
