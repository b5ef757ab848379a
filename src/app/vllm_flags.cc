#include "app/vllm_flags.h"

#include <algorithm>
#include <iterator>
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
constexpr const char* kOneConfig = "config.json of MODEL's folder is read";
constexpr const char* kByCpu = "kernels are chosen by the CPU; see moebius doctor";
constexpr const char* kNoRequestLog = "requests are not logged";
constexpr const char* kNoStatistics = "there is no periodic statistics line";
constexpr const char* kMetrics = "there is no periodic statistics line; /metrics has the figures";

constexpr const char* kServer = "it belongs to a server";
constexpr const char* kTextOnly = "only text is read";
constexpr const char* kOneProcess =
    "one process serves; --text-threads and --http-threads widen it";
constexpr const char* kNoTools =
    "tools are not supported yet, requests that bring some are refused";
constexpr const char* kNoGrammar = "structured output is not supported yet";
constexpr const char* kNoTraces = "there are no traces; --step-log tells of every step";
constexpr const char* kThisLog = "--log-level says what is logged";
constexpr const char* kAnyMethod = "what the API has is allowed to every allowed origin";

constexpr NeutralKind kSwitch = NeutralKind::kSwitch;
constexpr NeutralKind kValue = NeutralKind::kValue;

constexpr NeutralFlag kNeutral[] = {
    {"--trust-remote-code", kSwitch, kNoCode},
    {"--compilation-config", kValue, kNoGraphs},
    {"--cuda-graph-sizes", kValue, kNoGraphs},
    {"--cudagraph-capture-sizes", kValue, kNoGraphs},
    {"--max-seq-len-to-capture", kValue, kNoGraphs},
    {"--optimization-level", kValue, kNoGraphs},
    {"--swap-space", kValue, kNoGpu},
    {"--kv-offloading-size", kValue, "KV that is thrown out is computed anew"},
    {"--kv-offloading-backend", kValue, "KV that is thrown out is computed anew"},
    {"--cpu-offload-gb", kValue, kNoGpu},
    {"--disable-custom-all-reduce", kSwitch, kOneRank},
    {"--distributed-executor-backend", kValue, kOneRank},
    {"--distributed-timeout-seconds", kValue, kOneRank},
    {"--cpu-distributed-timeout-seconds", kValue, kOneRank},
    {"--fully-sharded-loras", kSwitch, "LoRA adapters are not supported"},
    {"--numa-bind", kSwitch, "threads stay on the CPUs that the process may use (numactl)"},
    {"--numa-bind-nodes", kValue, "threads stay on the CPUs that the process may use (numactl)"},
    {"--numa-bind-cpus", kValue, "threads stay on the CPUs that the process may use (numactl)"},
    {"--disable-nccl-for-dp-synchronization", kSwitch, kOneRank},
    {"--all2all-backend", kValue, kOneRank},
    {"--node-rank", kValue, kOneRank},
    {"--master-addr", kValue, kOneRank},
    {"--master-port", kValue, kOneRank},
    {"--worker-cls", kValue, kOneRank},
    {"--worker-extension-cls", kValue, kOneRank},
    {"--ray-workers-use-nsight", kSwitch, kOneRank},
    {"--enable-dbo", kSwitch, "one rank has no exchange to hide behind computation"},
    {"--dbo-decode-token-threshold", kValue, "one rank has no exchange to hide"},
    {"--dbo-prefill-token-threshold", kValue, "one rank has no exchange to hide"},
    {"--ubatch-size", kValue, "one rank has no exchange to hide"},
    {"--enable-expert-parallel", kSwitch, kAllHere},
    {"--enable-elastic-ep", kSwitch, kAllHere},
    {"--enable-ep-weight-filter", kSwitch, kAllHere},
    {"--expert-placement-strategy", kValue, kAllHere},
    {"--enable-eplb", kSwitch, kAllHere},
    {"--eplb-config", kValue, kAllHere},
    {"--num-redundant-experts", kValue, kAllHere},
    {"--moe-backend", kValue, kByCpu},
    {"--attention-backend", kValue, kByCpu},
    {"--attention-config", kValue, kByCpu},
    {"--kv-cache-dtype", kValue, "the KV cache has the dtype of activations (--dtype)", "auto"},
    {"--calculate-kv-scales", kSwitch, "the KV cache has the dtype of activations (--dtype)"},
    {"--quantization", kValue, "weights are run as the checkpoint has them", "auto none fp8"},
    {"--enable-chunked-prefill", kSwitch, kAlways},
    {"--max-num-partial-prefills", kValue, kAlways},
    {"--max-long-partial-prefills", kValue, kAlways},
    {"--long-prefill-token-threshold", kValue, kAlways},
    {"--scheduling-policy", kValue, "a request's priority always counts, smaller is sooner",
     "fcfs priority"},
    {"--prefix-caching-hash-algo", kValue, "the prefix cache compares hashes and lengths"},
    {"--disable-cascade-attn", kSwitch, kByCpu},
    {"--disable-hybrid-kv-cache-manager", kSwitch, "every layer keeps the KV of all tokens"},
    {"--hf-config-path", kValue, kOneConfig},
    {"--config-format", kValue, kOneConfig},
    {"--tokenizer", kValue, kOneTokenizer},
    {"--tokenizer-mode", kValue, kOneTokenizer},
    {"--skip-tokenizer-init", kSwitch, kOneTokenizer},
    {"--served-model-name", kValue, "nobody asks for a model by name here"},
    {"--max-logprobs", kValue, "--logprobs may be 0 to 20"},
    {"--logprobs-mode", kValue, "log probabilities are those before sampling", "raw_logprobs"},
    {"--max-parallel-loading-workers", kValue, "weights are mapped and packed in place"},
    {"--model-loader-extra-config", kValue, "weights are mapped and packed in place"},
    {"--safetensors-load-strategy", kValue, "weights are mapped and packed in place"},
    {"--use-tqdm-on-load", kSwitch, "weights are mapped and packed in place"},
    {"--download-dir", kValue, kLocal},
    {"--revision", kValue, kLocal},
    {"--tokenizer-revision", kValue, kLocal},
    {"--code-revision", kValue, kLocal},
    {"--hf-token", kValue, kLocal},
    {"--ignore-patterns", kValue, kLocal},
    {"--task", kValue, "text is generated, nothing else", "auto generate"},
    {"--runner", kValue, "text is generated, nothing else", "auto generate"},
    {"--model-impl", kValue, "a model family has one implementation here"},
    {"--enable-mfu-metrics", kSwitch, kNoStatistics, nullptr,
     "/metrics has no share of peak FLOPs"},
    {"--disable-log-stats", kSwitch, kNoStatistics, nullptr, kMetrics},
    {"--disable-log-requests", kSwitch, kNoRequestLog, nullptr,
     "requests are logged with --enable-log-requests alone"},
    {"--enable-log-requests", kSwitch, kNoRequestLog},
    {"--enable-log-outputs", kSwitch, kNoRequestLog, nullptr, "what answers say is never logged"},
    {"--max-log-len", kValue, kNoRequestLog, nullptr, "what requests say is never logged"},
    {"--print-iter-log", kSwitch, kNoStatistics, nullptr, "--step-log FILE tells of every step"},
    {"--host", kValue, kServer},
    {"--port", kValue, kServer},
    {"--api-key", kValue, kServer},
    {"--reasoning-parser", kValue, kServer},
    {"--uvicorn-log-level", kValue, kServer, nullptr, kThisLog},
    {"--log-config-file", kValue, kServer, nullptr, kThisLog},
    {"--log-error-stack", kSwitch, kServer, nullptr, kThisLog},
    {"--disable-uvicorn-access-log", kSwitch, kServer, nullptr,
     "requests are logged with --enable-log-requests alone"},
    {"--api-server-count", kValue, kServer, nullptr, kOneProcess},
    {"--disable-frontend-multiprocessing", kSwitch, kServer, nullptr, kOneProcess},
    {"--data-parallel-address", kValue, kServer, nullptr, kOneRank},
    {"--data-parallel-rpc-port", kValue, kServer, nullptr, kOneRank},
    {"--data-parallel-backend", kValue, kServer, nullptr, kOneRank},
    {"--data-parallel-rank", kValue, kServer, nullptr, kOneRank},
    {"--data-parallel-start-rank", kValue, kServer, nullptr, kOneRank},
    {"--data-parallel-hybrid-lb", kSwitch, kServer, nullptr, kOneRank},
    {"--data-parallel-external-lb", kSwitch, kServer, nullptr, kOneRank},
    {"--headless", kSwitch, kServer},
    {"--stream-interval", kValue, kServer, nullptr,
     "an event has whatever is new when it can be sent"},
    {"--enable-reasoning", kSwitch, kServer, nullptr, "--reasoning-parser says it"},
    {"--tool-call-parser", kValue, kServer, nullptr, kNoTools},
    {"--tool-parser-plugin", kValue, kServer, nullptr, kNoTools},
    {"--tool-server", kValue, kServer, nullptr, kNoTools},
    {"--enable-auto-tool-choice", kSwitch, kServer, nullptr, kNoTools},
    {"--exclude-tools-when-tool-choice-none", kSwitch, kServer, nullptr, kNoTools},
    {"--guided-decoding-backend", kValue, kServer, nullptr, kNoGrammar},
    {"--structured-outputs-config", kValue, kServer, nullptr, kNoGrammar},
    {"--chat-template-content-format", kValue, kServer, nullptr,
     "content may be a string or a list of parts"},
    {"--trust-request-chat-template", kSwitch, kServer, nullptr,
     "requests that bring a template are refused"},
    {"--tokens-only", kSwitch, kServer, nullptr, "requests may bring token ids, or text"},
    {"--response-role", kValue, kServer, nullptr, "answers come from the assistant"},
    {"--root-path", kValue, kServer, nullptr, "paths are served as they are"},
    {"--allow-credentials", kSwitch, kServer, nullptr, "keys are sent in headers, not in cookies"},
    {"--allowed-methods", kValue, kServer, nullptr, kAnyMethod},
    {"--allowed-headers", kValue, kServer, nullptr, kAnyMethod},
    {"--enable-request-id-headers", kSwitch, kServer, nullptr, "X-Request-Id is always sent back"},
    {"--enable-prompt-tokens-details", kSwitch, kServer, nullptr, "usage always tells them"},
    {"--enable-force-include-usage", kSwitch, kServer, nullptr,
     "streams end with usage where stream_options asks for it"},
    {"--enable-server-load-tracking", kSwitch, kServer, nullptr, "/load always tells"},
    {"--enable-tokenizer-info-endpoint", kSwitch, kServer, nullptr,
     "/tokenizer_info is always there"},
    {"--return-tokens-as-token-ids", kSwitch, kServer, nullptr, "requests ask for it themselves"},
    {"--disable-fastapi-docs", kSwitch, kServer, nullptr, "there are none"},
    {"--h11-max-incomplete-event-size", kValue, kServer, nullptr, "headers may take 64 KiB"},
    {"--h11-max-header-count", kValue, kServer, nullptr, "headers may take 64 KiB"},
    {"--otlp-traces-endpoint", kValue, kServer, nullptr, kNoTraces},
    {"--collect-detailed-traces", kValue, kServer, nullptr, kNoTraces},
    {"--show-hidden-metrics-for-version", kValue, kServer, nullptr, "/metrics hides none"},
    {"--kv-events-config", kValue, kServer, nullptr, "there are no KV events"},
    {"--enable-sleep-mode", kSwitch, kServer, nullptr, "a server that is not needed is stopped"},
    {"--speculative-config", kValue, "no token is drafted here"},
    {"--kv-transfer-config", kValue, "prefill and decoding share one KV cache"},
    {"--additional-config", kValue, "there is no plug-in that reads it"},
    {"--limit-mm-per-prompt", kValue, kTextOnly},
    {"--language-model-only", kSwitch, kTextOnly},
    {"--mm-encoder-tp-mode", kValue, kTextOnly},
    {"--mm-processor-cache-gb", kValue, kTextOnly},
    {"--mm-processor-kwargs", kValue, kTextOnly},
    {"--disable-mm-preprocessor-cache", kSwitch, kTextOnly},
    {"--allowed-local-media-path", kValue, kTextOnly},
    // Blocks of TensorRT-LLM's YAML files.
    {"--moe-config", kValue,
     "the CPU's expert kernels are used, and one rank has no experts to balance"},
    {"--cuda-graph-config", kValue, kNoGraphs},
    {"--enable-attention-dp", kSwitch, kOneRank},
};

constexpr const char* kNoTls = "TLS is not spoken here; put a proxy that does before the server";
constexpr const char* kNoLora = "LoRA adapters are not supported";

constexpr const char* kByOverrides =
    "it would change every answer; say it in config.json's words with --hf-overrides, such as "
    "--hf-overrides '{\"rope_scaling\": {...}}'";

constexpr RefusedFlag kRefused[] = {
    {"--ssl-keyfile", kNoTls},
    {"--ssl-certfile", kNoTls},
    {"--ssl-ca-certs", kNoTls},
    {"--ssl-cert-reqs", kNoTls},
    {"--enable-ssl-refresh", kNoTls},
    {"--uds", "the server listens on TCP alone (--host, --port)"},
    {"--middleware", "no Python is run here"},
    {"--logits-processors", "no Python is run here"},
    {"--rope-scaling", kByOverrides},
    {"--rope-theta", kByOverrides},
    {"--default-chat-template-kwargs",
     "it would change every answer; requests say it themselves (chat_template_kwargs)"},
    {"--enable-lora", kNoLora},
    {"--lora-modules", kNoLora},
};

constexpr const char* kParallel[] = {
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--prefill-context-parallel-size",
    "--decode-context-parallel-size",
    "--nnodes",
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
    {"-pcp", "--prefill-context-parallel-size"},
    {"-n", "--nnodes"},
    {"-r", "--node-rank"},
    {"-cc", "--compilation-config"},
    {"-sc", "--speculative-config"},
    {"-ac", "--attention-config"},
};

// Of several whole numbers, one word each.
constexpr std::string_view kLists[] = {"--cudagraph-capture-sizes", "--cuda-graph-sizes",
                                       "--numa-bind-nodes"};

bool IsWhole(std::string_view word) {
  return !word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos;
}

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
std::span<const RefusedFlag> RefusedFlags() { return kRefused; }
std::span<const char* const> ParallelFlags() { return kParallel; }

std::string JoinNumbers(const std::vector<std::string>& args, size_t& at) {
  std::string joined = args[at];
  if (std::find(std::begin(kLists), std::end(kLists), joined) == std::end(kLists)) return joined;
  char before = '=';
  for (; at + 1 < args.size() && IsWhole(args[at + 1]); before = ' ') {
    joined += before + args[++at];
  }
  return joined;
}

std::string LongName(const std::string& arg) {
  const std::string word = arg.substr(0, arg.find_first_of("=."));
  for (const auto& [name, long_name] : kShort) {
    if (word == name) return long_name + arg.substr(word.size());
  }
  constexpr const char* kLevel = "--optimization-level";
  if (arg == "-O") return kLevel;
  if (arg.rfind("-O.", 0) == 0) return "--compilation-config" + arg.substr(2);
  if (arg.size() == 3 && arg.rfind("-O", 0) == 0 && arg[2] >= '0' && arg[2] <= '9')
    return std::string(kLevel) + "=" + arg[2];
  return arg;
}

}  // namespace moebius::app
