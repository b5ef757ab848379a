// From a folder to a model that runs. Everything is checked before anything is allocated:
// configuration, the name, shape and dtype of every tensor. Called once,
// by the thread that owns the pool.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "kernels/backend.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/shard.h"
#include "moe/forced_routing.h"
#include "platform/thread_pool.h"

namespace moebius::model {

enum class DTypeChoice {
  kAuto,  // float32 for a float32 checkpoint, else bfloat16
  kFloat32,
  kBFloat16,
};
enum class KvCacheDType {
  kAuto,      // as activations
  kBFloat16,  // the same, said: an error where activations are float32
  kFp8,       // e4m3 latents with scales (kernels/latent_row.h): MLA alone
};
enum class LoadFormat {
  kAuto,   // the folder's safetensors
  kDummy,  // random weights of the right shapes: the folder needs config.json alone
};
enum class MoeMode {
  kSparse,
  // The dense twin of the same checkpoint: every expert runs on every token. Routing stays what the
  // model defines, with k = all experts and no group left out: softmax weights over all experts
  // (DeepSeek-V3: all sigmoid scores, normalised and scaled; Llama 4: each expert reads its input
  // scaled by its own sigmoid).
  kDense,
};

struct LoadOptions {
  std::string folder;
  DTypeChoice dtype = DTypeChoice::kAuto;  // of activations
  KvCacheDType kv_cache_dtype = KvCacheDType::kAuto;
  LoadFormat load_format = LoadFormat::kAuto;
  std::optional<moe::RoutingSpec> routing;  // kDummy only: experts are drawn from a distribution
  std::string hf_overrides;                 // a JSON object merged into config.json
  MoeMode moe_mode = MoeMode::kSparse;
  bool mtp = true;  // load the MTP layer where the checkpoint has one
  // That will run the model: decides where the weights go and how they lie there. Null: a CPU's.
  const kernels::Backend* backend = nullptr;
  Shard shard;  // the part that this rank holds; its peers may be missing where nothing runs
  bool show_progress = true;  // base/progress.h; of many ranks one is enough
};

// The names that flags take: "auto", "float32", "bfloat16"; "auto", "fp8"; "auto", "dummy";
// "sparse", "dense". kInvalidArgument lists them.
Result<DTypeChoice> ParseDTypeChoice(const std::string& name);
Result<KvCacheDType> ParseKvCacheDType(const std::string& name);
Result<LoadFormat> ParseLoadFormat(const std::string& name);
Result<MoeMode> ParseMoeMode(const std::string& name);

// The dtype of activations that a choice means: exchanges between ranks are made before the
// model.
DType ActivationsOf(DTypeChoice choice, const ModelConfig& config);

// Errors are those of LoadModelConfig and of the checkpoint's files, each naming field, tensor or
// file with what was found and expected; of the shard, where the model cannot be cut so or a peer
// is missing; kOutOfMemory where the weights exceed what is available.
Result<std::unique_ptr<Model>> LoadModel(const LoadOptions& options, platform::ThreadPool& pool);

// The configuration LoadModel would use, before the checkpoint's files are looked at.
// kInvalidArgument where the KV cache that was asked for is not this model's, or a routing was
// asked for with trained weights.
Result<ModelConfig> LoadConfig(const LoadOptions& options);

}  // namespace moebius::model
