// What a model is, from the files of a Hugging Face folder: config.json in every spelling users
// meet, and generation_config.json. One plain description for all families, with one entry a layer,
// so that nothing after this file asks how a field was spelled. Plain values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "tensor/dtype.h"

namespace moebius::model {

enum class Family { kDeepseek, kQwen, kMixtral, kLlama, kLlama4 };
const char* FamilyName(Family family);

enum class RopeType { kDefault, kLinear, kYarn, kLlama3 };
const char* RopeTypeName(RopeType type);

// Rotary embedding; rope.h turns it into tables.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                // all but kDefault
  int64_t original_max_position = 0;  // kYarn, kLlama3
  double low_freq_factor = 1.0;       // kLlama3
  double high_freq_factor = 4.0;
  double beta_fast = 32.0;  // kYarn
  double beta_slow = 1.0;
  bool truncate = true;
  std::optional<double> attention_factor;
  double mscale = 0.0;  // 0: not given
  double mscale_all_dim = 0.0;
};

enum class AttentionKind { kGqa, kMla };
enum class QkNorm {
  kNone,
  kRms,          // per head, weighted, before the rotation (Qwen 3)
  kL2AfterRope,  // per head, unweighted, after it (Llama 4)
};

struct AttentionConfig {
  AttentionKind kind = AttentionKind::kGqa;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;  // kGqa
  QkNorm qk_norm = QkNorm::kNone;
  int64_t q_lora_rank = 0;  // kMla; 0: queries are projected at once
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  bool rope_interleaved = false;
  // Llama 4, layers without rotation: queries scale with log1p(floor((position + 1) / floor_scale))
  // * attn_scale + 1.
  bool temperature_tuning = false;
  double attn_scale = 0.1;
  double floor_scale = 8192;

  int64_t rope_dim() const { return kind == AttentionKind::kMla ? qk_rope_head_dim : head_dim; }
};

enum class RouterKind {
  kSoftmax,       // Qwen 3, Mixtral, DeepSeek-V2
  kSigmoidBias,   // DeepSeek-V3: sigmoid, chosen with a correction bias
  kSigmoidInput,  // Llama 4: sigmoid of the chosen logit scales the expert's input
};

struct MoeConfig {
  int64_t num_experts = 0;  // 0: a dense model
  int64_t top_k = 0;
  int64_t intermediate_size = 0;         // of one expert
  int64_t shared_intermediate_size = 0;  // of all shared experts together; 0: none
  RouterKind router = RouterKind::kSoftmax;
  int64_t num_groups = 1;
  int64_t num_top_groups = 1;
  bool normalize = false;
  double scale = 1.0;
};

struct LayerConfig {
  bool moe = false;
  bool rope = true;
  int64_t window = 0;  // > 0: attends to the last `window` positions
  int64_t chunk = 0;   // > 0: attends within its chunk of positions
};

// What generation_config.json recommends; absent fields are the server's to choose.
struct GenerationDefaults {
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

struct ModelConfig {
  std::string model_type;    // as the file says: "deepseek_v3", "kimi_k2", ...
  std::string architecture;  // architectures[0], or empty
  Family family = Family::kLlama;
  std::string tensor_prefix;  // before every tensor name: "language_model." in multimodal folders

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;         // without MTP layers
  int64_t intermediate_size = 0;  // of a dense layer's MLP; 0 where no layer is dense
  int64_t max_position = 0;       // positions the rotation tables (and so requests) may use
  double rms_norm_eps = 1e-6;
  bool tie_embeddings = false;
  int64_t num_mtp_layers = 0;  // 0 or 1; LoadModel sets 0 where the checkpoint holds none
  DType dtype = DType::kBF16;  // of the checkpoint
  bool fp8_blocks = false;     // weights may be fp8 e4m3 with 128 x 128 block scales

  AttentionConfig attention;
  RopeConfig rope;
  MoeConfig moe;
  std::vector<LayerConfig> layers;  // num_layers

  std::vector<TokenId> eos_token_ids;
  std::optional<TokenId> bos_token_id;
  GenerationDefaults generation;

  int64_t num_moe_layers() const;  // without MTP layers
};

// Reads <folder>/config.json and, where it exists, generation_config.json. `hf_overrides`, unless
// empty, is a JSON object merged into config.json first (objects merge, other values replace).
// Errors name file, field, what was found and what was expected: kNotFound, kCorrupt,
// kInvalidArgument, or kUnsupported for what is well-formed but not served here.
Result<ModelConfig> LoadModelConfig(const std::string& folder,
                                    const std::string& hf_overrides = "");

// The same from texts (`generation_json` may be empty); `where` names the folder in errors.
Result<ModelConfig> ParseModelConfig(const std::string& config_json,
                                     const std::string& generation_json,
                                     const std::string& hf_overrides, const std::string& where);

}  // namespace moebius::model
