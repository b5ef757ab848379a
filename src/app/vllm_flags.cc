#include "app/vllm_flags.h"

#include <utility>

namespace moebius::app {
namespace {

constexpr const char* kNoCode = "no code of a checkpoint is ever run";
constexpr const char* kNoGraphs = "there are no CUDA graphs or compiled graphs here";
constexpr const char* kNoGpu = "this build computes on the CPU";
constexpr const char* kOneRank = "this build runs one rank";
constexpr const char* kLocal = "models are local folders, nothing is downloaded";
constexpr const char* kAlways = "long prompts always run in chunks (--max-num-batched-tokens)";

constexpr NeutralFlag kNeutral[] = {
    {"--trust-remote-code", false, kNoCode},
    {"--enforce-eager", false, kNoGraphs},
    {"--compilation-config", true, kNoGraphs},
    {"--cuda-graph-sizes", true, kNoGraphs},
    {"--max-seq-len-to-capture", true, kNoGraphs},
    {"--gpu-memory-utilization", true, kNoGpu},
    {"--swap-space", true, kNoGpu},
    {"--cpu-offload-gb", true, kNoGpu},
    {"--device", true, kNoGpu},
    {"--disable-custom-all-reduce", false, kOneRank},
    {"--distributed-executor-backend", true, kOneRank},
    {"--all2all-backend", true, kOneRank},
    {"--enable-expert-parallel", false, "one rank holds every expert"},
    {"--enable-eplb", false, "one rank holds every expert"},
    {"--enable-chunked-prefill", false, kAlways},
    {"--max-num-partial-prefills", true, kAlways},
    {"--tokenizer-mode", true, "there is one tokeniser"},
    {"--attention-backend", true, "kernels are chosen by the CPU; see moebius doctor"},
    {"--max-parallel-loading-workers", true, "weights are mapped and packed in place"},
    {"--download-dir", true, kLocal},
    {"--revision", true, kLocal},
    {"--tokenizer-revision", true, kLocal},
    {"--code-revision", true, kLocal},
    {"--disable-log-stats", false, "there is no periodic statistics line"},
    {"--disable-log-requests", false, "requests are not logged"},
    {"--no-enable-log-requests", false, "requests are not logged"},
};

constexpr const char* kParallel[] = {
    "--tensor-parallel-size",          "--pipeline-parallel-size",       "--data-parallel-size",
    "--prefill-context-parallel-size", "--decode-context-parallel-size",
};

constexpr std::pair<const char*, const char*> kShort[] = {
    {"-tp", "--tensor-parallel-size"},
    {"-pp", "--pipeline-parallel-size"},
    {"-dp", "--data-parallel-size"},
    {"-ep", "--enable-expert-parallel"},
};

}  // namespace

std::span<const NeutralFlag> NeutralFlags() { return kNeutral; }
std::span<const char* const> ParallelFlags() { return kParallel; }

const char* LongName(std::string_view short_name) {
  for (const auto& [name, long_name] : kShort) {
    if (short_name == name) return long_name;
  }
  return nullptr;
}

}  // namespace moebius::app
