#include "app/vllm_flags.h"

#include <sstream>
#include <string>
#include <utility>

namespace moebius::app {
namespace {

constexpr const char* kNoCode = "no code of a checkpoint is ever run";
constexpr const char* kNoGraphs = "there are no CUDA graphs or compiled graphs here";
constexpr const char* kNoGpu = "this build computes on the CPU";
constexpr const char* kOneRank = "this build runs one rank";
constexpr const char* kLocal = "models are local folders, nothing is downloaded";
constexpr const char* kAlways = "long prompts always run in chunks (--max-num-batched-tokens)";

constexpr const char* kAllHere = "one rank holds every expert";
constexpr const char* kOneTokenizer = "the tokeniser of MODEL's folder is used";
constexpr const char* kByCpu = "kernels are chosen by the CPU; see moebius doctor";
constexpr const char* kNoRequestLog = "requests are not logged";

constexpr NeutralKind kSwitch = NeutralKind::kSwitch;
constexpr NeutralKind kValue = NeutralKind::kValue;

constexpr NeutralFlag kNeutral[] = {
    {"--trust-remote-code", kSwitch, kNoCode},
    {"--enforce-eager", kSwitch, kNoGraphs},
    {"--compilation-config", kValue, kNoGraphs},
    {"--cuda-graph-sizes", kValue, kNoGraphs},
    {"--max-seq-len-to-capture", kValue, kNoGraphs},
    {"--swap-space", kValue, kNoGpu},
    {"--cpu-offload-gb", kValue, kNoGpu},
    {"--device", kValue, kNoGpu},
    {"--disable-custom-all-reduce", kSwitch, kOneRank},
    {"--distributed-executor-backend", kValue, kOneRank},
    {"--all2all-backend", kValue, kOneRank},
    {"--enable-dbo", kSwitch, "one rank has no exchange to hide behind computation"},
    {"--enable-expert-parallel", kSwitch, kAllHere},
    {"--enable-eplb", kSwitch, kAllHere},
    {"--eplb-config", kValue, kAllHere},
    {"--moe-backend", kValue, kByCpu},
    {"--attention-backend", kValue, kByCpu},
    {"--kv-cache-dtype", kValue, "the KV cache has the dtype of activations (--dtype)", "auto"},
    {"--quantization", kValue, "weights are run as the checkpoint has them", "auto none fp8"},
    {"--enable-chunked-prefill", kSwitch, kAlways},
    {"--max-num-partial-prefills", kValue, kAlways},
    {"--tokenizer", kValue, kOneTokenizer},
    {"--tokenizer-mode", kValue, kOneTokenizer},
    {"--served-model-name", kValue, "nobody asks for a model by name here"},
    {"--max-logprobs", kValue, "--logprobs may be 0 to 20"},
    {"--max-parallel-loading-workers", kValue, "weights are mapped and packed in place"},
    {"--download-dir", kValue, kLocal},
    {"--revision", kValue, kLocal},
    {"--tokenizer-revision", kValue, kLocal},
    {"--code-revision", kValue, kLocal},
    {"--disable-log-stats", kSwitch, "there is no periodic statistics line"},
    {"--disable-log-requests", kSwitch, kNoRequestLog},
    {"--enable-log-requests", kSwitch, kNoRequestLog},
    // Blocks of TensorRT-LLM's YAML files.
    {"--moe-config", kValue,
     "the CPU's expert kernels are used, and one rank has no experts to balance"},
    {"--cuda-graph-config", kValue, kNoGraphs},
    {"--enable-attention-dp", kSwitch, kOneRank},
    {"--print-iter-log", kSwitch, "there is no periodic statistics line"},
};

constexpr const char* kParallel[] = {
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--prefill-context-parallel-size",
    "--decode-context-parallel-size",
};

constexpr std::pair<const char*, const char*> kShort[] = {
    {"-tp", "--tensor-parallel-size"},   {"-pp", "--pipeline-parallel-size"},
    {"-dp", "--data-parallel-size"},     {"-dpl", "--data-parallel-size-local"},
    {"-ep", "--enable-expert-parallel"}, {"-dcp", "--decode-context-parallel-size"},
    {"-q", "--quantization"},
};

}  // namespace

bool IsAccepted(const NeutralFlag& flag, std::string_view value) {
  if (flag.only == nullptr) return true;
  std::istringstream words(flag.only);
  for (std::string word; words >> word;) {
    if (word == value) return true;
  }
  return false;
}

std::span<const NeutralFlag> NeutralFlags() { return kNeutral; }
std::span<const char* const> ParallelFlags() { return kParallel; }

const char* LongName(std::string_view short_name) {
  for (const auto& [name, long_name] : kShort) {
    if (short_name == name) return long_name;
  }
  return nullptr;
}

}  // namespace moebius::app
