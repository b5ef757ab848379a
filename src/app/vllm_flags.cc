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

constexpr const char* kServer = "it belongs to a server";
constexpr const char* kTextOnly = "only text is read";

constexpr NeutralKind kSwitch = NeutralKind::kSwitch;
constexpr NeutralKind kValue = NeutralKind::kValue;

constexpr NeutralFlag kNeutral[] = {
    {"--trust-remote-code", kSwitch, kNoCode},
    {"--compilation-config", kValue, kNoGraphs},
    {"--cuda-graph-sizes", kValue, kNoGraphs},
    {"--max-seq-len-to-capture", kValue, kNoGraphs},
    {"--swap-space", kValue, kNoGpu},
    {"--cpu-offload-gb", kValue, kNoGpu},
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
    {"--host", kValue, kServer},
    {"--port", kValue, kServer},
    {"--uvicorn-log-level", kValue, kServer},
    {"--api-key", kValue, kServer},
    {"--api-server-count", kValue, kServer},
    {"--data-parallel-address", kValue, kServer},
    {"--data-parallel-rpc-port", kValue, kServer},
    {"--data-parallel-backend", kValue, kServer},
    {"--data-parallel-rank", kValue, kServer},
    {"--data-parallel-start-rank", kValue, kServer},
    {"--reasoning-parser", kValue, kServer},
    {"--tool-call-parser", kValue, kServer},
    {"--tool-parser-plugin", kValue, kServer},
    {"--chat-template-content-format", kValue, kServer},
    {"--root-path", kValue, kServer},
    {"--enable-auto-tool-choice", kSwitch, kServer},
    {"--data-parallel-hybrid-lb", kSwitch, kServer},
    {"--data-parallel-external-lb", kSwitch, kServer},
    {"--headless", kSwitch, kServer},
    {"--disable-frontend-multiprocessing", kSwitch, kServer},
    {"--enable-request-id-headers", kSwitch, kServer},
    {"--disable-uvicorn-access-log", kSwitch, kServer},
    {"--optimization-level", kValue, kNoGraphs},
    {"--num-redundant-experts", kValue, kAllHere},
    {"--speculative-config", kValue, "no token is drafted here"},
    {"--kv-transfer-config", kValue, "prefill and decoding share one KV cache"},
    {"--limit-mm-per-prompt", kValue, kTextOnly},
    {"--language-model-only", kSwitch, kTextOnly},
    {"--mm-encoder-tp-mode", kValue, kTextOnly},
    {"--mm-processor-cache-gb", kValue, kTextOnly},
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
    {"-tp", "--tensor-parallel-size"},
    {"-pp", "--pipeline-parallel-size"},
    {"-dp", "--data-parallel-size"},
    {"-dpl", "--data-parallel-size-local"},
    {"-dpa", "--data-parallel-address"},
    {"-dpp", "--data-parallel-rpc-port"},
    {"-dpb", "--data-parallel-backend"},
    {"-dpn", "--data-parallel-rank"},
    {"-dph", "--data-parallel-hybrid-lb"},
    {"-dpe", "--data-parallel-external-lb"},
    {"-dpr", "--data-parallel-start-rank"},
    {"-asc", "--api-server-count"},
    {"-ep", "--enable-expert-parallel"},
    {"-q", "--quantization"},
    {"-dcp", "--decode-context-parallel-size"},
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

std::vector<std::string> LongNames(const std::string& arg) {
  for (const auto& [name, long_name] : kShort) {
    if (arg == name) return {long_name};
  }
  constexpr const char* kLevel = "--optimization-level";
  if (arg == "-O") return {kLevel};
  if (arg.size() == 3 && arg.rfind("-O", 0) == 0 && arg[2] >= '0' && arg[2] <= '9')
    return {std::string(kLevel) + "=" + arg[2]};
  return {arg};
}

}  // namespace moebius::app
