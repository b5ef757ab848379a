#include "app/vllm_env.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>

#include "app/vllm_notes.h"

namespace moebius::app {
namespace {

struct Variable {
  std::string_view name;  // one that ends in '_' stands for all that begin so
  const char* why;
};

constexpr const char* kOwnRanks =
    "the program starts its ranks itself and needs no address for them";
constexpr const char* kNoTransfer = "prefill and decoding share one KV cache";
constexpr const char* kNoDownload = "models are local folders, nothing is downloaded";
constexpr const char* kLog = "--log-level says what is logged";
constexpr const char* kNoReport = "nothing is ever reported to anybody";
constexpr const char* kDummy = "--load-format dummy takes --routing uniform, zipf:A or hot:F";

constexpr const char* kStepTimeout = "--step-timeout says how long a step may take";

constexpr Variable kVariables[] = {
    {"VLLM_ROCM_", kByCpu},
    {"VLLM_USE_AITER", kByCpu},
    {"VLLM_USE_DEEP_GEMM", kByCpu},
    {"VLLM_USE_DEEP_GEMM_E8M0", kByCpu},
    {"VLLM_DEEP_GEMM_", kByCpu},
    {"VLLM_SKIP_DEEP_GEMM_WARMUP", kByCpu},
    {"VLLM_USE_TRITON_FLASH_ATTN", kByCpu},
    {"VLLM_USE_TRITON_AWQ", kByCpu},
    {"VLLM_FLASH_ATTN_VERSION", kByCpu},
    {"VLLM_USE_FLASHINFER_", kByCpu},
    {"VLLM_FLASHINFER_", kByCpu},
    {"VLLM_HAS_FLASHINFER_CUBIN", kByCpu},
    {"VLLM_ATTENTION_BACKEND", kByCpu},
    {"VLLM_MLA_DISABLE", kByCpu},
    {"VLLM_USE_CUDNN_PREFILL", kByCpu},
    {"VLLM_USE_TRTLLM_", kByCpu},
    {"VLLM_FUSED_MOE_CHUNK_SIZE", kByCpu},
    {"VLLM_ENABLE_FUSED_MOE_ACTIVATION_CHUNKING", kByCpu},
    {"VLLM_MARLIN_USE_ATOMIC_ADD", kByCpu},
    {"VLLM_MOE_DP_CHUNK_SIZE",
     "a step is cut so that the exchange's buffers hold it; moebius plan shows their size"},
    {"VLLM_ENABLE_MOE_DP_CHUNK", "a step is cut so that the exchange's buffers hold it"},
    {"VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD", kByCpu},
    {"VLLM_DISABLE_SHARED_EXPERTS_STREAM", kByCpu},
    {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY", kDummy},
    {"VLLM_RANDOMIZE_DP_DUMMY_INPUTS", kDummy},
    {"VLLM_DEEPEP_", kSharedMemory},
    {"VLLM_DBO_COMM_SMS", kSharedMemory},
    {"VLLM_DP_", "--data-parallel-size says it, and one command starts all ranks"},
    {"VLLM_PP_LAYER_PARTITION", "pipeline stages have as many layers each as goes"},
    {"VLLM_RAY_", "there is no Ray here"},
    {"VLLM_USE_RAY_", "there is no Ray here"},
    {"VLLM_WORKER_MULTIPROC_METHOD", kOwnRanks},
    {"VLLM_ENABLE_V1_MULTIPROCESSING", kOwnRanks},
    {"VLLM_HOST_IP", kOwnRanks},
    {"VLLM_PORT", kOwnRanks},
    {"VLLM_RPC_", kOwnRanks},
    {"VLLM_LOOPBACK_IP", kOwnRanks},
    {"VLLM_ENGINE_ITERATION_TIMEOUT_S", kStepTimeout},
    {"VLLM_ENGINE_READY_TIMEOUT_S", "a rank may load for 30 minutes"},
    {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", kStepTimeout},
    {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "idle connections are closed after 75 s"},
    {"VLLM_SKIP_P2P_CHECK", kSharedMemory},
    {"VLLM_ALLREDUCE_USE_SYMM_MEM", kSharedMemory},
    {"VLLM_NCCL_", kSharedMemory},
    {"VLLM_DISABLE_PYNCCL", kSharedMemory},
    {"VLLM_NIXL_", kNoTransfer},
    {"VLLM_MOONCAKE_", kNoTransfer},
    {"VLLM_KV_", kNoTransfer},
    {"VLLM_P2P_", kNoTransfer},
    {"VLLM_TORCH_COMPILE_LEVEL", kNoGraphs},
    {"VLLM_DISABLE_COMPILE_CACHE", kNoGraphs},
    {"VLLM_USE_STANDALONE_COMPILE", kNoGraphs},
    {"VLLM_USE_AOT_COMPILE", kNoGraphs},
    {"VLLM_TORCH_PROFILER_", "--step-log FILE tells of every step"},
    {"VLLM_TRACE_FUNCTION", "--step-log FILE tells of every step"},
    {"VLLM_USE_MODELSCOPE", kNoDownload},
    {"VLLM_ASSETS_CACHE", kNoDownload},
    {"VLLM_CACHE_ROOT", "nothing is cached on disk"},
    {"VLLM_CONFIG_ROOT", "--config FILE names the configuration"},
    {"VLLM_LOGGING_", kLog},
    {"VLLM_CONFIGURE_LOGGING", kLog},
    {"VLLM_LOG_STATS_INTERVAL", "there is no periodic statistics line; /metrics has the figures"},
    {"VLLM_NO_USAGE_STATS", kNoReport},
    {"VLLM_DO_NOT_TRACK", kNoReport},
    {"VLLM_USAGE_", kNoReport},
    {"VLLM_USE_V1", "there is one engine"},
    {"VLLM_V1_", "there is one engine"},
    {"VLLM_USE_V2_MODEL_RUNNER", "there is one engine"},
    {"VLLM_SERVER_DEV_MODE", "there are no development endpoints"},
    {"VLLM_ALLOW_LONG_MAX_MODEL_LEN", "--max-model-len may be what the model's positions allow"},
    {"VLLM_ALLOW_RUNTIME_LORA_UPDATING", "LoRA adapters are not supported"},
    {"VLLM_PLUGINS", "there are no plug-ins"},
    {"VLLM_TARGET_DEVICE", "--device says what computes here"},
    {"VLLM_CPU_", "--threads and --kv-cache-memory-bytes say what the CPU back end takes"},
    {"VLLM_IMAGE_FETCH_TIMEOUT", "only text is read"},
    {"VLLM_VIDEO_FETCH_TIMEOUT", "only text is read"},
    {"VLLM_AUDIO_FETCH_TIMEOUT", "only text is read"},
    {"VLLM_MM_INPUT_CACHE_GIB", "only text is read"},
};

const Variable* Find(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kVariables), std::end(kVariables), [&](const Variable& variable) {
        return name == variable.name || (variable.name.back() == '_' &&
                                         name.substr(0, variable.name.size()) == variable.name);
      });
  return found == std::end(kVariables) ? nullptr : found;
}

}  // namespace

VllmEnvironment ReadVllmEnvironment(const std::vector<std::string>& environment) {
  VllmEnvironment read;
  for (const std::string& entry : environment) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals + 1 == entry.size()) continue;
    const std::string name = entry.substr(0, equals);
    const std::string value = entry.substr(equals + 1);
    if (name == "VLLM_API_KEY" || name == "MOEBIUS_API_KEY") {
      read.api_keys.push_back(value);
    } else if (name == "VLLM_ALL2ALL_BACKEND") {
      read.args.push_back("--all2all-backend=" + value);
      read.notes.push_back(fmt::format("{} is --all2all-backend {}", name, value));
    } else if (name.rfind("VLLM_", 0) == 0) {
      const Variable* variable = Find(name);
      read.notes.push_back(variable != nullptr
                               ? fmt::format("{} is ignored: {}", name, variable->why)
                               : fmt::format("{} is unknown and has no effect", name));
    }
  }
  std::sort(read.notes.begin(), read.notes.end());
  return read;
}

}  // namespace moebius::app
