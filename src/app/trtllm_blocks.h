// Blocks of TensorRT-LLM's YAML files that mean something here: moe_config and kv_cache_config.
// Plain functions, any thread; JSON stays in the .cc file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/balance/options.h"
#include "plan/balance/placement_file.h"

namespace moebius::app {

struct MoeConfig {
  std::string backend;                    // empty: not said
  std::optional<int64_t> max_num_tokens;  // rows of all ranks that the experts take at once
  // The balancer that is wished for: none, a file, or what stands inline.
  bool has_load_balancer = false;
  std::string load_balancer_file;
  moe::BalanceOptions balance;
  std::vector<std::string> ignored;
};

struct KvCacheConfig {
  std::optional<double> free_gpu_memory_fraction;
  std::optional<bool> enable_block_reuse;
  std::optional<int64_t> tokens_per_block;
  std::optional<std::string> dtype;  // as --kv-cache-dtype has it
  std::vector<std::string> ignored;  // keys without a meaning here
};

// What a placement file asks for.
moe::BalanceOptions BalanceOf(const plan::PlacementFile& placement);

// Of a block's JSON text. kInvalidArgument names the key, what was found and what is expected, or
// the nearest key that there is.
Result<MoeConfig> ParseMoeConfig(const std::string& text);
Result<KvCacheConfig> ParseKvCacheConfig(const std::string& text);

// Whether the block of a flag (--moe-config) has the key, those of inner blocks behind a dot
// (load_balancer.num_slots). OK for flags that are no such block. The error has the nearest one.
Status CheckBlockKey(const std::string& flag, const std::string& key);

}  // namespace moebius::app
