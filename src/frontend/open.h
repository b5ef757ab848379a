// From a model folder to a Frontend that answers: what the terminal and a server both do at start.
// Called once, from the main thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/trace.h"
#include "engine/engine_options.h"
#include "frontend/frontend.h"
#include "frontend/sampling_fields.h"
#include "layout/parallel_layout.h"
#include "model/load.h"
#include "model/model_config.h"
#include "moe/balance/options.h"
#include "moe/exchange/mode.h"
#include "platform/thread_pool.h"

namespace moebius::frontend {

// What decides how a model is loaded and run; the names are those of the flags.
struct OpenOptions {
  std::string model;           // a folder in the Hugging Face layout
  std::string dtype = "auto";  // of activations: auto (the checkpoint's), float32, bfloat16
  std::string kv_cache_dtype = "auto";  // auto: as activations; fp8: MLA's latents
  std::string load_format = "auto";     // auto, or dummy: random weights of the right shapes
  std::string routing;       // dummy only: uniform, zipf:A, hot:F; empty: what random weights give
  std::string hf_overrides;  // a JSON object merged into config.json; empty: none
  std::string moe_mode = "sparse";  // sparse, or dense: every token visits every expert
  std::string chat_template;        // a file instead of the folder's template; empty: the folder's
  std::string device = "cpu";       // cpu, or cuda: a GPU for each rank
  int threads = 0;  // of a rank; 0: every cpu this process may use, shared out to them
  engine::EngineOptions
      engine;         // of each data-parallel rank; eos_token_ids empty: the checkpoint's
  std::string trace;  // file of engine.trace; empty: none

  // More than one rank: each is a process of this program (or a thread of this one), and the rest
  // has a meaning. open_ranks.h says which layouts run.
  layout::ParallelConfig parallel;
  bool ranks_are_threads = false;
  bool deterministic = false;  // the bits of one rank
  moe::ExchangeMode exchange_mode = moe::ExchangeMode::kAuto;
  int64_t max_moe_tokens = 0;   // of all ranks, that the experts take at once; 0: what streams well
  moe::BalanceOptions balance;  // of whole experts on several ranks
};

// max_moe_tokens with what 0 means on the device; 0: what the model says (CPUs).
int64_t MoeTokensOf(const OpenOptions& options);

// The part of the options that says which weights and how they are read. kInvalidArgument names the
// option.
Result<model::LoadOptions> LoadOptionsOf(const OpenOptions& options);

// Pinned threads, the calling one the first; 0: one for every cpu that this process may use.
Result<std::unique_ptr<platform::ThreadPool>> MakePool(int num_threads);

// A folder of which all but the weights has been read and checked.
struct PreparedModel {
  OpenOptions options;
  model::LoadOptions load;
  model::ModelConfig config;
  PromptEncoder encoder;
  SamplingFields defaults;  // what the folder recommends
  // max_model_len is what was asked for or the model has; memory may allow less.
  engine::EngineLimits limits;
};

// Errors name the flag, file or field; those of a layout that does not fit are CheckRanks's. Warns
// of flags that have no effect on this model and of tokens beyond its vocabulary.
Result<PreparedModel> Prepare(const OpenOptions& options);

struct OpenedModel {
  std::optional<TraceFile> trace;  // of what follows, which writes to it
  std::unique_ptr<Frontend> frontend;
  model::ModelConfig config;
  SamplingFields defaults;
  double load_seconds = 0;
  size_t weight_bytes = 0;  // packed, of one copy
  int num_threads = 0;      // of all ranks
  layout::ParallelConfig parallel;
};

// Reads the weights and starts the engine, or all ranks. Errors name the flag, file, tensor or
// field, and the rank that had them.
Result<OpenedModel> Load(PreparedModel prepared);

}  // namespace moebius::frontend
