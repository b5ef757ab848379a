#include "engine/kv_memory.h"

#include <algorithm>

#include "base/math.h"

namespace moebius::engine {
namespace {

std::string Size(uint64_t bytes) {
  double size = static_cast<double>(bytes) / 1024;
  const char* unit = "KiB";
  for (const char* larger : {"MiB", "GiB"}) {
    if (size < 1024) break;
    size /= 1024;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", size, unit);
}

// A product that may be too large for any machine, and then for 64 bits.
uint64_t Saturating(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

size_t CacheBytes(DType dtype, int64_t num_rows, int64_t width) {
  constexpr size_t kAlignment = 256;
  return RoundUp(static_cast<size_t>(num_rows * width) * SizeOf(dtype), kAlignment);
}

}  // namespace

std::string KvMemoryPlan::Describe(int64_t block_size) const {
  return fmt::format(
      "KV cache {} ({} blocks of {} tokens), workspace {}, requests of up to {} tokens",
      Size(kv_bytes), num_blocks, block_size, Size(workspace_bytes), max_model_len);
}

uint64_t KvBlockBytes(std::span<const model::KvLayerSpec> layers, int64_t block_size) {
  uint64_t bytes = 0;
  for (const model::KvLayerSpec& layer : layers) {
    bytes += static_cast<uint64_t>(layer.bytes() * block_size);
  }
  return bytes;
}

size_t KvCacheBytes(std::span<const model::KvLayerSpec> layers, int64_t num_rows) {
  size_t bytes = 0;
  for (const model::KvLayerSpec& layer : layers) {
    bytes += CacheBytes(layer.dtype, num_rows, layer.width_k);
    bytes += CacheBytes(layer.dtype, num_rows, layer.width_v);
  }
  return bytes;
}

std::vector<model::Model::KvLayer> LayOutKv(std::byte* memory,
                                            std::span<const model::KvLayerSpec> layers,
                                            int64_t num_rows) {
  const auto take = [&](DType dtype, int64_t width) {
    if (width == 0) return Mat();
    const Mat cache(memory, dtype, num_rows, width);
    memory += CacheBytes(dtype, num_rows, width);
    return cache;
  };
  std::vector<model::Model::KvLayer> caches;
  for (const model::KvLayerSpec& layer : layers) {
    const Mat k = take(layer.dtype, layer.width_k);
    caches.push_back({k, take(layer.dtype, layer.width_v)});
  }
  return caches;
}

Result<KvMemoryPlan> PlanKvMemory(const KvMemoryInput& input, const EngineOptions& options) {
  if (options.max_model_len > input.max_position) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--max-model-len is {}, expected at most {}, the positions the model has",
                     options.max_model_len, input.max_position);
  }
  KvMemoryPlan plan;
  plan.workspace_bytes = input.workspace_bytes;
  plan.max_model_len = options.max_model_len > 0
                           ? options.max_model_len
                           : std::min(input.max_position, kMostUnaskedModelLen);
  const int64_t blocks_a_seq = (plan.max_model_len + options.block_size - 1) / options.block_size;
  // max_position may be huge; 2^31 blocks are more than ids can name.
  const int64_t most = std::min<int64_t>(blocks_a_seq, (int64_t{1} << 31) / options.max_num_seqs) *
                       options.max_num_seqs;
  const uint64_t usable =
      static_cast<uint64_t>(static_cast<double>(input.available_bytes) * options.memory_fraction);
  const uint64_t left = usable - std::min(usable, input.workspace_bytes);
  if (options.num_kv_blocks) {
    plan.num_blocks = *options.num_kv_blocks;
  } else {
    const uint64_t bytes = options.kv_cache_bytes.value_or(left);
    plan.num_blocks =
        static_cast<int64_t>(std::min(bytes / input.block_bytes, static_cast<uint64_t>(most)));
  }
  plan.num_blocks = std::min<int64_t>(plan.num_blocks, (int64_t{1} << 31) - 8);
  plan.kv_bytes = Saturating(static_cast<uint64_t>(plan.num_blocks), input.block_bytes);
  const uint64_t room =
      input.available_bytes - std::min(input.available_bytes, plan.workspace_bytes);
  if (plan.workspace_bytes > input.available_bytes || plan.kv_bytes > room) {
    return MakeError(ErrorCode::kOutOfMemory,
                     "the KV cache of {} and the workspace of {} do not fit into the {} that are "
                     "available: lower --kv-cache-memory-bytes or --num-kv-blocks, or "
                     "--max-num-batched-tokens ({}) or --max-num-seqs ({})",
                     Size(plan.kv_bytes), Size(plan.workspace_bytes), Size(input.available_bytes),
                     options.max_num_batched_tokens, options.max_num_seqs);
  }
  const int64_t num_tokens = plan.num_blocks * options.block_size;
  const bool is_length_ours = options.max_model_len == 0;
  if (num_tokens < (is_length_ours ? 2 : plan.max_model_len)) {
    return MakeError(ErrorCode::kOutOfMemory,
                     "the KV cache has room for {} tokens ({} of {} available), but one request of "
                     "--max-model-len {} needs {}: lower that, or raise --kv-cache-memory-bytes, "
                     "--num-kv-blocks or --gpu-memory-utilization ({})",
                     num_tokens, Size(plan.kv_bytes), Size(input.available_bytes),
                     plan.max_model_len,
                     Size(Saturating(static_cast<uint64_t>(blocks_a_seq), input.block_bytes)),
                     options.memory_fraction);
  }
  plan.max_model_len = std::min(plan.max_model_len, num_tokens);
  return plan;
}

}  // namespace moebius::engine
