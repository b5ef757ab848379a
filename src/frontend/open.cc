#include "frontend/open.h"

#include <chrono>
#include <filesystem>
#include <utility>
#include <vector>

#include "engine/inproc_engine_client.h"
#include "kernels/backend.h"
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

engine::EngineOptions WithEndTokens(engine::EngineOptions options, const model::ModelConfig& config,
                                    const text::Tokenizer* tokenizer) {
  if (options.eos_token_ids.empty()) options.eos_token_ids = config.eos_token_ids;
  if (options.eos_token_ids.empty() && tokenizer != nullptr && tokenizer->eos_id()) {
    options.eos_token_ids.push_back(*tokenizer->eos_id());
  }
  return options;
}

}  // namespace

Result<model::LoadOptions> LoadOptionsOf(const OpenOptions& options) {
  model::LoadOptions load;
  load.folder = options.model;
  MOEBIUS_ASSIGN(load.dtype, model::ParseDTypeChoice(options.dtype));
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
                     "threads is {}, expected 1 to {} (the cpus of this process), or 0 for all",
                     num_threads, num_cpus);
  }
  if (num_threads > 0) cpus.resize(static_cast<size_t>(num_threads));
  return platform::ThreadPool::Create(std::move(cpus));
}

Result<OpenedModel> Open(const OpenOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  MOEBIUS_ASSIGN(const model::LoadOptions load, LoadOptionsOf(options));
  // The cheap things first: what is wrong with them should not wait for the weights.
  MOEBIUS_TRY(Validate(options.engine));
  MOEBIUS_TRY(model::LoadConfig(load).map([](const model::ModelConfig&) {}));
  MOEBIUS_ASSIGN(std::unique_ptr<text::Tokenizer> tokenizer, LoadTokenizer(options.model));
  Result<text::ChatTemplate> chat_template = text::ChatTemplate::Load(options.model);
  MOEBIUS_ASSIGN(const kernels::Backend* backend, kernels::ChooseBackend());
  MOEBIUS_ASSIGN(std::unique_ptr<platform::ThreadPool> pool, MakePool(options.threads));

  OpenedModel opened;
  opened.num_threads = pool->num_threads();
  MOEBIUS_ASSIGN(std::unique_ptr<model::Model> model, model::LoadModel(load, *pool));
  opened.config = model->config();
  opened.weight_bytes = model->weight_bytes();
  opened.defaults = FieldsOf(opened.config.generation);
  MOEBIUS_ASSIGN(std::unique_ptr<engine::InprocEngineClient> engine,
                 engine::InprocEngineClient::Create(
                     std::move(model), backend, std::move(pool),
                     WithEndTokens(options.engine, opened.config, tokenizer.get())));
  opened.frontend =
      std::make_unique<Frontend>(std::move(engine), std::move(tokenizer), std::move(chat_template));
  opened.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return opened;
}

}  // namespace moebius::frontend
