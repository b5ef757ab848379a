#include "frontend/open.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/inproc_engine_client.h"
#include "engine/kv_memory.h"
#include "frontend/open_ranks.h"
#include "kernels/backend.h"
#include "model/inspect.h"
#include "moe/forced_routing.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moebius::frontend {
namespace {

// Null without a tokenizer.json: such a folder still answers prompts of token ids.
Result<std::unique_ptr<text::Tokenizer>> LoadTokenizer(const std::string& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json", ignored)) {
    return std::unique_ptr<text::Tokenizer>();
  }
  return text::Tokenizer::Load(folder);
}

// The folder's template, or the file that stands in for it.
Result<text::ChatTemplate> LoadTemplate(const OpenOptions& options,
                                        const text::Tokenizer* tokenizer) {
  if (options.chat_template.empty()) return text::ChatTemplate::Load(options.model);
  std::ifstream file(options.chat_template);
  std::ostringstream source;
  if (!file || !(source << file.rdbuf())) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--chat-template: {} cannot be read, expected a file with a template",
                     options.chat_template);
  }
  text::jinja::Dict variables;
  if (tokenizer != nullptr) {
    for (const auto& [name, token] : {std::pair("bos_token", tokenizer->bos_token()),
                                      std::pair("eos_token", tokenizer->eos_token()),
                                      std::pair("pad_token", tokenizer->pad_token())}) {
      if (!token.empty()) variables.Set(name, text::jinja::Value::String(token));
    }
  }
  auto chat_template = text::ChatTemplate::FromSource(source.str(), std::move(variables));
  if (!chat_template) {
    return tl::unexpected(chat_template.error().WithContext(options.chat_template));
  }
  return chat_template;
}

// Ids that the model has no embedding of would fail one prompt after the other. (The reverse is
// usual: embeddings are padded.)
Status CheckVocabulary(const std::string& folder, const text::Tokenizer& tokenizer,
                       int64_t vocab_size) {
  if (tokenizer.model_vocab_size() > vocab_size) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "{}: tokenizer.json has {} entries, expected at most config.json's vocab_size, "
        "{}: they belong to different models",
        folder, tokenizer.model_vocab_size(), vocab_size);
  }
  if (tokenizer.vocab_size() > vocab_size) {
    LogWarning(
        "{}: added tokens of tokenizer.json have ids up to {}, the model's vocabulary {} entries: "
        "prompts with those beyond are refused",
        folder, tokenizer.vocab_size() - 1, vocab_size);
  }
  return {};
}

void WarnOfIdleSwitches(const OpenOptions& options, const model::ModelConfig& config) {
  if (config.moe.num_experts > 0) return;
  for (const auto& [flag, is_given] :
       {std::pair("--moe-mode dense", options.moe_mode == "dense"),
        std::pair("--routing", !options.routing.empty()),
        std::pair("--enable-expert-parallel", options.parallel.enable_expert_parallel),
        std::pair("the load balancer", options.balance.is_on)}) {
    if (is_given) LogWarning("{} has no effect: {} has no experts", flag, options.model);
  }
}

engine::EngineOptions WithEndTokens(engine::EngineOptions options, const model::ModelConfig& config,
                                    const text::Tokenizer* tokenizer) {
  if (options.eos_token_ids.empty()) options.eos_token_ids = config.eos_token_ids;
  if (options.eos_token_ids.empty() && tokenizer != nullptr && tokenizer->eos_id()) {
    options.eos_token_ids.push_back(*tokenizer->eos_id());
  }
  return options;
}

// Before weights are read, what is known of what requests must respect.
Result<engine::EngineLimits> LimitsOf(const engine::EngineOptions& options,
                                      const model::ModelConfig& config) {
  if (options.max_model_len > config.max_position) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--max-model-len is {}, expected at most {}, the positions the model has",
                     options.max_model_len, config.max_position);
  }
  engine::EngineLimits limits;
  limits.vocab_size = config.vocab_size;
  limits.max_model_len = options.max_model_len > 0 ? options.max_model_len : config.max_position;
  limits.max_num_seqs = options.max_num_seqs;
  limits.eos_token_ids = options.eos_token_ids;
  return limits;
}

}  // namespace

int64_t MoeTokensOf(const OpenOptions& options) {
  if (options.max_moe_tokens > 0) return options.max_moe_tokens;
  // Cut into smaller pieces, a prefill step would read the experts' weights again for each. With
  // hidden size 7168 and 8 experts a token about 4 GB, as plans for GPUs reckon
  // (plan/workspace.cc).
  constexpr int64_t kOnGpus = 8192;
  return options.device == "cuda" ? kOnGpus : 0;
}

Result<model::LoadOptions> LoadOptionsOf(const OpenOptions& options) {
  model::LoadOptions load;
  load.folder = options.model;
  MOEBIUS_ASSIGN(load.dtype, model::ParseDTypeChoice(options.dtype));
  MOEBIUS_ASSIGN(load.kv_cache_dtype, model::ParseKvCacheDType(options.kv_cache_dtype));
  MOEBIUS_ASSIGN(load.load_format, model::ParseLoadFormat(options.load_format));
  MOEBIUS_ASSIGN(load.moe_mode, model::ParseMoeMode(options.moe_mode));
  if (!options.routing.empty()) {
    MOEBIUS_ASSIGN(load.routing, moe::ParseRouting(options.routing));
  }
  load.hf_overrides = options.hf_overrides;
  return load;
}

Result<std::unique_ptr<platform::ThreadPool>> MakePool(int num_threads) {
  std::vector<int> cpus = platform::AllowedCpus();
  const int num_cpus = static_cast<int>(cpus.size());
  if (num_threads < 0 || num_threads > num_cpus) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--threads is {}, expected 1 to {} (the cpus of this process), or 0 for all",
                     num_threads, num_cpus);
  }
  if (num_threads > 0) cpus.resize(static_cast<size_t>(num_threads));
  return platform::ThreadPool::Create(std::move(cpus));
}

Result<PreparedModel> Prepare(const OpenOptions& options) {
  MOEBIUS_ASSIGN(model::LoadOptions load, LoadOptionsOf(options));
  load.mtp = false;  // nothing drafts with it yet: neither its weights nor its KV take memory
  MOEBIUS_TRY(Validate(options.engine));
  MOEBIUS_ASSIGN(model::ModelConfig config, model::LoadConfig(load));
  MOEBIUS_ASSIGN(std::unique_ptr<text::Tokenizer> tokenizer, LoadTokenizer(options.model));
  if (tokenizer != nullptr) {
    MOEBIUS_TRY(CheckVocabulary(options.model, *tokenizer, config.vocab_size));
  }
  WarnOfIdleSwitches(options, config);
  if (options.device != "cpu") MOEBIUS_TRY(CheckDeviceModel(options, config));
  MOEBIUS_TRY(CheckRanks(options, config));
  OpenOptions settled = options;
  settled.engine = WithEndTokens(options.engine, config, tokenizer.get());
  MOEBIUS_ASSIGN(engine::EngineLimits limits, LimitsOf(settled.engine, config));
  SamplingFields defaults = FieldsOf(config.generation);
  Result<text::ChatTemplate> chat_template = LoadTemplate(options, tokenizer.get());
  // One that was named must work, whether it is used or not.
  if (!options.chat_template.empty() && !chat_template) {
    return tl::unexpected(chat_template.error());
  }
  return PreparedModel{
      std::move(settled),  std::move(load),
      std::move(config),   PromptEncoder(std::move(tokenizer), std::move(chat_template)),
      std::move(defaults), std::move(limits)};
}

namespace {

// One rank, in this process.
Result<std::unique_ptr<engine::EngineClient>> StartOne(const PreparedModel& prepared,
                                                       OpenedModel* opened) {
  MOEBIUS_ASSIGN(std::unique_ptr<platform::ThreadPool> pool, MakePool(prepared.options.threads));
  opened->num_threads = pool->num_threads();
  model::LoadOptions load = prepared.load;
  load.shard.max_moe_rows = MoeTokensOf(prepared.options);
  MOEBIUS_ASSIGN(std::unique_ptr<model::Model> model, model::LoadModel(load, *pool));
  opened->config = model->config();
  opened->weight_bytes = model->weight_bytes();
  engine::EngineOptions engine = prepared.options.engine;
  // On a CPU every row's bits are its own.
  if (!load.backend->on_host) engine.deterministic = prepared.options.deterministic;
  return engine::InprocEngineClient::Create(std::move(model), load.backend, std::move(pool),
                                            engine);
}

Result<std::unique_ptr<engine::EngineClient>> StartMany(const PreparedModel& prepared,
                                                        OpenedModel* opened) {
  MOEBIUS_ASSIGN(const int threads, ThreadsOfRank(prepared.options));
  opened->num_threads = threads * prepared.options.parallel.num_gpus();
  MOEBIUS_ASSIGN(const model::Inspection inspection, model::InspectModel(prepared.load));
  opened->config = inspection.config;
  opened->weight_bytes = inspection.packed_bytes;
  return StartRanks(prepared.options, prepared.load);
}

}  // namespace

Result<OpenedModel> Load(PreparedModel prepared) {
  const auto start = std::chrono::steady_clock::now();
  const OpenOptions& options = prepared.options;
  MOEBIUS_ASSIGN(prepared.load.backend,
                 options.device == "cuda" ? kernels::CudaBackend() : kernels::ChooseBackend());
  OpenedModel opened;
  if (!options.trace.empty()) {
    auto file = TraceFile::Create(options.trace);
    if (!file) return tl::unexpected(file.error().WithContext("--trace"));
    opened.trace.emplace(std::move(*file));
    prepared.options.engine.trace.descriptor = opened.trace->descriptor();
  }
  opened.parallel = options.parallel;
  MOEBIUS_ASSIGN(std::unique_ptr<engine::EngineClient> engine, options.parallel.num_gpus() == 1
                                                                   ? StartOne(prepared, &opened)
                                                                   : StartMany(prepared, &opened));
  opened.defaults = std::move(prepared.defaults);
  if (const int64_t fits = engine->limits().max_model_len; fits < prepared.limits.max_model_len) {
    const bool unasked = fits == engine::kMostUnaskedModelLen;
    LogWarning("requests may have {} tokens, not the model's {}: {}", fits,
               prepared.limits.max_model_len,
               unasked ? "more must be asked for (--max-model-len)"
                       : "the KV cache holds no more (--num-kv-blocks, --kv-cache-memory-bytes, "
                         "--gpu-memory-utilization)");
  }
  opened.frontend = std::make_unique<Frontend>(std::move(engine), std::move(prepared.encoder));
  opened.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return opened;
}

}  // namespace moebius::frontend
