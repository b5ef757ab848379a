#include "plan/launch.h"

#include <fmt/core.h>
#include <cctype>

#include <algorithm>
#include <cctype>
#include <iterator>

namespace moebius::plan {
namespace {

using layout::ParallelConfig;

// A word for a shell.
std::string Quoted(const std::string& word) {
  const bool plain = !word.empty() && word.find_first_not_of(
                                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789-_./:=,+@") == std::string::npos;
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// JSON without spaces between its tokens: a long line may break at a space.
std::string Compact(const std::string& json) {
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (!in_string && std::isspace(static_cast<unsigned char>(c))) continue;
    out += c;
    if (in_string && c == '\\' && i + 1 < json.size())
      out += json[++i];
    else if (c == '"')
      in_string = !in_string;
  }
  return out;
}

class Command {
 public:
  explicit Command(std::string text) : text_(std::move(text)) {}
  template <typename T>
  Command& Add(const char* flag, const T& value) {
    text_ += fmt::format(" {} {}", flag, value);
    return *this;
  }
  Command& Add(const char* flag) {
    text_ += fmt::format(" {}", flag);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Only vLLM has it.
void AddDecodeContext(const ParallelConfig& config, Command& command) {
  if (config.decode_context_parallel_size > 1) {
    command.Add("--decode-context-parallel-size", config.decode_context_parallel_size);
  }
}

// What both programs spell alike.
void AddSizes(const ParallelConfig& config, Command& command) {
  if (config.tensor_parallel_size > 1) {
    command.Add("--tensor-parallel-size", config.tensor_parallel_size);
  }
  if (config.pipeline_parallel_size > 1) {
    command.Add("--pipeline-parallel-size", config.pipeline_parallel_size);
  }
  if (config.data_parallel_size > 1) {
    command.Add("--data-parallel-size", config.data_parallel_size);
  }
  if (config.expert_parallel_active()) command.Add("--enable-expert-parallel");
}

void AddEngine(const PlanInput& input, const Estimate& estimate, Command& command) {
  const ParallelConfig& config = estimate.layout.config;
  if (!input.model.hf_overrides.empty()) {
    command.Add("--hf-overrides", Quoted(Compact(input.model.hf_overrides)));
  }
  if (config.enable_eplb) {
    command.Add("--enable-eplb");
    if (config.num_redundant_experts > 0) {
      command.Add("--eplb-config", Quoted(fmt::format("{{\"num_redundant_experts\":{}}}",
                                                      config.num_redundant_experts)));
    }
  }
  if (config.enable_dbo) command.Add("--enable-dbo");
  if (input.kv_element_bytes < 2) command.Add("--kv-cache-dtype", "fp8");
  command.Add("--gpu-memory-utilization", fmt::format("{:g}", input.gpu_memory_utilization));
  command.Add("--max-model-len", input.isl + input.osl);
  command.Add("--max-num-seqs", estimate.requests_per_rank);
  command.Add("--max-num-batched-tokens", input.max_batched_tokens);
}

// DeepEP's low-latency kernels exist for these hidden sizes.
bool DeepEpHidden(int64_t hidden) {
  constexpr int64_t kSizes[] = {2048, 2560, 3072, 4096, 5120, 6144, 7168, 8192};
  return std::find(std::begin(kSizes), std::end(kSizes), hidden) != std::end(kSizes);
}

std::string VllmBackend(const PlanInput& input, const ParallelConfig& config) {
  if (config.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter) {
    return "allgather_reducescatter";
  }
  if (config.exchange_kernel != layout::ExchangeKernel::kOwn) return layout::BackendName(config);
  if (input.device.name.rfind("mi3", 0) == 0) return "mori_low_latency";
  return DeepEpHidden(input.model.numbers.hidden_size) ? "deepep_low_latency"
                                                       : "deepep_high_throughput";
}

std::string ServedModel(const PlanInput& input) {
  if (!input.model.served.empty()) return Quoted(input.model.served);
  return Quoted(input.model_argument.empty() ? input.model.name : input.model_argument);
}

std::vector<std::string> VllmCommands(const PlanInput& input, const Estimate& estimate) {
  const ParallelConfig& config = estimate.layout.config;
  Command base("vllm serve " + ServedModel(input));
  AddSizes(config, base);
  AddDecodeContext(config, base);
  if (estimate.layout.exchanges) base.Add("--all2all-backend", VllmBackend(input, config));
  AddEngine(input, estimate, base);
  const int nodes = config.num_nodes();
  if (nodes == 1) return {base.text()};

  Command first = base;
  Command other = base;
  const int engine = config.tensor_parallel_size * config.pipeline_parallel_size;
  if (engine <= config.gpus_per_node && config.data_parallel_size > 1) {
    const int local = config.data_parallel_size / nodes;
    for (Command* command : {&first, &other}) {
      command->Add("--data-parallel-size-local", local)
          .Add("--data-parallel-address", "NODE0")
          .Add("--data-parallel-rpc-port", 13345);
    }
    other.Add("--data-parallel-start-rank", local).Add("--headless");
    return {first.text(), other.text()};
  }
  if (config.data_parallel_size == 1) {
    first.Add("--nnodes", nodes).Add("--node-rank", 0).Add("--master-addr", "NODE0");
    other.Add("--nnodes", nodes)
        .Add("--node-rank", 1)
        .Add("--master-addr", "NODE0")
        .Add("--headless");
    return {first.text(), other.text()};
  }
  // An engine larger than a node, several times: only Ray starts that.
  first.Add("--data-parallel-backend", "ray").Add("--distributed-executor-backend", "ray");
  return {first.text()};
}

}  // namespace

Launch LaunchCommands(const PlanInput& input, const Estimate& estimate) {
  const ParallelConfig& config = estimate.layout.config;
  // Of an fp8 cache we have MLA's latents alone.
  const bool refused = input.kv_element_bytes < 2 && !input.model.numbers.mla;
  if (refused || config.decode_context_parallel_size > 1) {
    return {{}, VllmCommands(input, estimate)};
  }
  Command ours("moebius serve " + ServedModel(input));
  AddSizes(config, ours);
  if (estimate.layout.exchanges) ours.Add("--all2all-backend", layout::BackendName(config));
  if (config.data_parallel_size > 1) {
    using layout::PartPlacement;
    if (config.dense_ffn != PartPlacement::kAuto) {
      ours.Add("--dense-ffn", layout::PartPlacementName(config.dense_ffn));
    }
    if (config.lm_head != PartPlacement::kAuto) {
      ours.Add("--lm-head", layout::PartPlacementName(config.lm_head));
    }
  }
  AddEngine(input, estimate, ours);
  const std::vector<int64_t>& slots = estimate.layout.slots_per_rank;
  if (config.enable_eplb && !slots.empty() && slots.front() != slots.back()) {
    return {{ours.text()}, {}};
  }
  return {{ours.text()}, VllmCommands(input, estimate)};
}

std::string LayoutFlags(const ParallelConfig& config) {
  Command flags("");
  AddSizes(config, flags);
  AddDecodeContext(config, flags);
  if (config.num_gpus() == 1) flags.Add("--tensor-parallel-size", 1);
  if (config.enable_eplb) flags.Add("--enable-eplb");
  if (config.num_redundant_experts > 0) {
    flags.Add("--num-redundant-experts", config.num_redundant_experts);
  }
  if (config.enable_dbo) flags.Add("--enable-dbo");
  return flags.text().substr(1);
}

}  // namespace moebius::plan
