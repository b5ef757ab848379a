#include "model/load.h"

#include <cstdlib>
#include <string>
#include <unordered_set>

#include "base/log.h"
#include "model/open_model.h"

namespace moebius::model {
namespace {

// MTP weights are often left out of a checkpoint whose configuration mentions them (transformers
// does so on saving): then the model is served without.
void SettleMtp(const Checkpoint& checkpoint, ModelConfig& config) {
  if (config.num_mtp_layers == 0) return;
  const std::string prefix =
      fmt::format("{}model.layers.{}.", config.tensor_prefix, config.num_layers);
  if (checkpoint.HasPrefix(prefix)) return;
  LogDebug("{}: no tensors named {}*: no MTP layer", checkpoint.folder(), prefix);
  config.num_mtp_layers = 0;
}

// Better a message than the system's killer halfway.
Status CheckMemory(const LoadOptions& options, const OpenModel& open) {
  const auto available = open.model->backend().memory->AvailableBytes();
  const size_t needed = open.plan->packed_bytes();
  if (!available || needed <= *available) return {};
  const auto gigabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  return MakeError(ErrorCode::kOutOfMemory,
                   "{}: the weights take {:.1f} GB, expected at most the {:.1f} GB of memory that "
                   "are available",
                   options.folder, gigabytes(needed), gigabytes(*available));
}

// A tensor inside a served layer that nobody reads (a bias, a norm, a second gate) is a part of the
// model that would be left out: its answers would be wrong without a word. What else a file may
// hold (vision towers, MTP layers that are not served) is not ours. Rotation frequencies follow
// from the configuration; fp8 checkpoints may bring scales of activations and of caches, which only
// fp8 arithmetic needs.
Status CheckAllRead(const OpenModel& open, const Shard& shard) {
  const ModelConfig& config = open.model->config();
  const std::string layers = config.tensor_prefix + "model.layers.";
  std::unordered_set<std::string> read;
  for (const DeclaredTensor& tensor : open.plan->tensors()) {
    read.insert(tensor.name);
    if (tensor.num_file_tensors > 1) read.insert(tensor.name + "_scale_inv");
  }
  for (const SafetensorsFile& file : open.checkpoint->files()) {
    for (const TensorInfo& tensor : file.tensors()) {
      const std::string& name = tensor.name;
      if (!name.starts_with(layers) || read.contains(name)) continue;
      const int64_t layer = std::atoll(name.c_str() + layers.size());
      if (layer < shard.first_layer || layer >= shard.end_layer) continue;
      const auto ends = [&](const char* suffix) { return name.ends_with(suffix); };
      if (ends(".inv_freq") || ends(".k_scale") || ends(".v_scale") || ends(".input_scale"))
        continue;
      return MakeError(ErrorCode::kUnsupported,
                       "{}: tensor '{}' is no part of a {} layer as served here, expected none "
                       "that would be left out",
                       file.path(), name, config.model_type);
    }
  }
  return {};
}

template <typename Enum>
struct Named {
  const char* name;
  Enum value;
};

template <typename Enum, size_t kCount>
Result<Enum> ParseNamed(const char* flag, const std::string& name,
                        const Named<Enum> (&values)[kCount]) {
  std::string names;
  for (const Named<Enum>& entry : values) {
    if (name == entry.name) return entry.value;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", entry.name);
  }
  return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected one of {}", flag, name,
                   names);
}

}  // namespace

Result<DTypeChoice> ParseDTypeChoice(const std::string& name) {
  static constexpr Named<DTypeChoice> kNames[] = {{"auto", DTypeChoice::kAuto},
                                                  {"float32", DTypeChoice::kFloat32},
                                                  {"bfloat16", DTypeChoice::kBFloat16}};
  return ParseNamed("--dtype", name, kNames);
}

Result<KvCacheDType> ParseKvCacheDType(const std::string& name) {
  static constexpr Named<KvCacheDType> kNames[] = {{"auto", KvCacheDType::kAuto},
                                                   {"bfloat16", KvCacheDType::kBFloat16},
                                                   {"fp8", KvCacheDType::kFp8}};
  return ParseNamed("--kv-cache-dtype", name, kNames);
}

Result<LoadFormat> ParseLoadFormat(const std::string& name) {
  static constexpr Named<LoadFormat> kNames[] = {{"auto", LoadFormat::kAuto},
                                                 {"dummy", LoadFormat::kDummy}};
  return ParseNamed("--load-format", name, kNames);
}

Result<MoeMode> ParseMoeMode(const std::string& name) {
  static constexpr Named<MoeMode> kNames[] = {{"sparse", MoeMode::kSparse},
                                              {"dense", MoeMode::kDense}};
  return ParseNamed("--moe-mode", name, kNames);
}

DType ActivationsOf(DTypeChoice choice, const ModelConfig& config) {
  if (choice == DTypeChoice::kFloat32) return DType::kF32;
  if (choice == DTypeChoice::kBFloat16) return DType::kBF16;
  return config.dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
}

Result<ModelConfig> LoadConfig(const LoadOptions& options) {
  if (options.routing && options.load_format != LoadFormat::kDummy) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--routing needs --load-format dummy: a trained router decides for itself");
  }
  MOEBIUS_ASSIGN(ModelConfig config, LoadModelConfig(options.folder, options.hf_overrides));
  if (options.kv_cache_dtype == KvCacheDType::kFp8 &&
      config.attention.kind != AttentionKind::kMla) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--kv-cache-dtype (kv_cache_config.dtype) is 'fp8', expected auto for a model "
                     "of kind {}: only MLA's "
                     "latents are kept in fp8, the keys and values of heads have the dtype of "
                     "activations (--dtype)",
                     config.model_type);
  }
  if (options.kv_cache_dtype == KvCacheDType::kBFloat16 &&
      ActivationsOf(options.dtype, config) != DType::kBF16) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--kv-cache-dtype (kv_cache_config.dtype) is 'bfloat16', expected auto where "
                     "activations are float32 "
                     "(--dtype)");
  }
  if (options.moe_mode == MoeMode::kDense) {
    config.moe.top_k = config.moe.num_experts;
    config.moe.num_top_groups = config.moe.num_groups;
  }
  return config;
}

std::unique_ptr<DecoderModel> MakeModel(const ModelConfig& config, const DecoderOptions& options,
                                        WeightPlan& plan) {
  switch (config.family) {
    case Family::kDeepseek:
      return MakeDeepseek(config, options, plan);
    case Family::kQwen:
      return MakeQwen(config, options, plan);
    case Family::kMixtral:
      return MakeMixtral(config, options, plan);
    case Family::kLlama:
      return MakeLlama(config, options, plan);
    case Family::kLlama4:
      return MakeLlama4(config, options, plan);
  }
  return nullptr;
}

Result<OpenModel> OpenModel::Open(const LoadOptions& options) {
  const bool dummy = options.load_format == LoadFormat::kDummy;
  OpenModel open;
  MOEBIUS_ASSIGN(ModelConfig config, LoadConfig(options));
  if (!options.mtp) config.num_mtp_layers = 0;
  if (dummy) {
    open.source = RandomSource(config);
  } else {
    MOEBIUS_ASSIGN(Checkpoint checkpoint, Checkpoint::Open(options.folder));
    open.checkpoint = std::make_unique<Checkpoint>(std::move(checkpoint));
    SettleMtp(*open.checkpoint, config);
    open.source = CheckpointSource(*open.checkpoint, config.fp8_blocks);
  }
  DecoderOptions decoder;
  decoder.act = ActivationsOf(options.dtype, config);
  decoder.fp8_latents = options.kv_cache_dtype == KvCacheDType::kFp8;
  MOEBIUS_ASSIGN(decoder.shard, CheckShard(config, options.shard));
  decoder.routing = options.routing;
  decoder.backend = options.backend != nullptr ? options.backend : &kernels::RefBackend();
  open.plan =
      std::make_unique<WeightPlan>(*open.source, decoder.act, decoder.backend->weight_layout);
  open.plan->set_show_progress(options.show_progress);
  open.model = MakeModel(config, decoder, *open.plan);
  MOEBIUS_TRY(open.plan->status());
  if (open.checkpoint != nullptr) MOEBIUS_TRY(CheckAllRead(open, decoder.shard));
  return open;
}

Result<std::unique_ptr<Model>> LoadModel(const LoadOptions& options, platform::ThreadPool& pool) {
  MOEBIUS_ASSIGN(OpenModel open, OpenModel::Open(options));
  MOEBIUS_TRY(CheckPeers(open.model->config(), options.shard));
  if (options.routing) {
    const moe::RoutedExperts experts = RoutedExpertsOf(open.model->config(), options.shard);
    MOEBIUS_TRY(moe::CheckRouting(*options.routing, experts));
  }
  MOEBIUS_TRY(CheckMemory(options, open));
  MOEBIUS_TRY(open.model->Load(*open.plan, pool));
  if (options.shard.num_staging > 0 && open.model->config().moe.num_experts > 0) {
    MOEBIUS_TRY(open.model->KeepSource(std::move(open.checkpoint), std::move(open.source)));
  }
  return std::move(open.model);
}

}  // namespace moebius::model
