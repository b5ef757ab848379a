// The flags that spread a model over ranks, for every command that runs one: vLLM's, Moebius's own
// and TensorRT-LLM's words for the same. CLI11 stays in the .cc file.
#pragma once

#include <string>
#include <vector>

#include "app/options.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace moebius::app {

constexpr const char* kRanksGroup = "Ranks";

// `plans`: the command has --dry-run, so that help shows what only a plan uses, too.
void AddParallelFlags(CLI::App* app, ParallelOptions& options, bool plans = false);

// TensorRT-LLM's words for flags that AddParallelFlags and the engine have under vLLM's names. To
// be called before those are added: the last that is added counts.
void AddTrtllmFlags(CLI::App* app, ParallelOptions& options, frontend::OpenOptions& open,
                    std::vector<std::string>& notes);

// TensorRT-LLM's sizes as vLLM's: attention data parallelism makes data-parallel ranks of the
// tensor-parallel ones; and num_redundant_experts. kInvalidArgument: they contradict each other, or
// no rank can hold that.
Status SettleSizes(ParallelOptions& options);

// What the flags mean for ranks that run, into `open`, after SettleSizes. kInvalidArgument names
// the flag that asks for what does not run here; `notes` gets a line for each that means something
// else here, or nothing.
Status SettleParallel(const ParallelOptions& options, frontend::OpenOptions& open,
                      std::vector<std::string>& notes);

// Of that, the balancer alone (moe_config's, or else vLLM's) into `open.balance`, for the layout in
// `open.parallel`.
Status SettleBalance(const ParallelOptions& options, frontend::OpenOptions& open,
                     std::vector<std::string>& notes);

}  // namespace moebius::app
