#include "app/vllm_flags.h"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>

#include "app/vllm_notes.h"

namespace moebius::app {
namespace {

constexpr const char* kNoCode = "no code of a checkpoint is ever run";
constexpr const char* kNoGpu = "it is of vLLM's GPUs; --device says what computes here";
constexpr const char* kOneMachine =
    "ranks are processes of this machine, and one command starts all";
constexpr const char* kDeadlines = "every wait between ranks has its step's deadline";
constexpr const char* kNoOverlap = "two halves of a batch are not overlapped yet";
constexpr const char* kLocal = "models are local folders, nothing is downloaded";
constexpr const char* kAlways = "long prompts always run in chunks (--max-num-batched-tokens)";

constexpr const char* kOneTokenizer = "the tokeniser of MODEL's folder is used";
constexpr const char* kOneConfig = "config.json of MODEL's folder is read";
constexpr const char* kNoRequestLog = "requests are not logged";
constexpr const char* kNoStatistics = "there is no periodic statistics line";
constexpr const char* kMetrics = "there is no periodic statistics line; /metrics has the figures";

constexpr const char* kOfServer = "it belongs to a server";
constexpr const char* kTextOnly = "only text is read";
constexpr const char* kOneProcess =
    "one process speaks HTTP; --text-threads and --http-threads widen it";
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
    {"--disable-custom-all-reduce", kSwitch, kSharedMemory},
    {"--distributed-executor-backend", kValue, kOneMachine},
    {"--distributed-timeout-seconds", kValue, kDeadlines},
    {"--cpu-distributed-timeout-seconds", kValue, kDeadlines},
    {"--fully-sharded-loras", kSwitch, "LoRA adapters are not supported"},
    {"--numa-bind", kSwitch, "threads stay on the CPUs that the process may use (numactl)"},
    {"--numa-bind-nodes", kValue, "threads stay on the CPUs that the process may use (numactl)"},
    {"--numa-bind-cpus", kValue, "threads stay on the CPUs that the process may use (numactl)"},
    {"--disable-nccl-for-dp-synchronization", kSwitch, kSharedMemory},
    {"--node-rank", kValue, kOneMachine},
    {"--master-addr", kValue, kOneMachine},
    {"--master-port", kValue, kOneMachine},
    {"--worker-cls", kValue, "no Python is run here"},
    {"--worker-extension-cls", kValue, "no Python is run here"},
    {"--ray-workers-use-nsight", kSwitch, "there is no Ray here"},
    {"--dbo-decode-token-threshold", kValue, kNoOverlap},
    {"--dbo-prefill-token-threshold", kValue, kNoOverlap},
    {"--ubatch-size", kValue, kNoOverlap},
    {"--enable-elastic-ep", kSwitch, "the number of ranks stays what it is at the start"},
    {"--enable-ep-weight-filter", kSwitch, "a rank reads its own experts alone"},
    {"--expert-placement-strategy", kValue, "a rank holds experts that follow each other (linear)",
     "linear"},
    {"--moe-backend", kValue, kByCpu},
    {"--attention-backend", kValue, kByCpu},
    {"--attention-config", kValue, kByCpu},
    {"--calculate-kv-scales", kSwitch, "an fp8 cache gets its scales as it is written"},
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
    {"--host", kValue, kOfServer},
    {"--port", kValue, kOfServer},
    {"--api-key", kValue, kOfServer},
    {"--reasoning-parser", kValue, kOfServer},
    {"--uvicorn-log-level", kValue, kOfServer, nullptr, kThisLog},
    {"--log-config-file", kValue, kOfServer, nullptr, kThisLog},
    {"--log-error-stack", kSwitch, kOfServer, nullptr, kThisLog},
    {"--disable-uvicorn-access-log", kSwitch, kOfServer, nullptr,
     "requests are logged with --enable-log-requests alone"},
    {"--api-server-count", kValue, kOfServer, nullptr, kOneProcess},
    {"--disable-frontend-multiprocessing", kSwitch, kOfServer, nullptr, kOneProcess},
    {"--data-parallel-address", kValue, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-rpc-port", kValue, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-backend", kValue, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-rank", kValue, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-start-rank", kValue, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-hybrid-lb", kSwitch, kOfServer, nullptr, kOneMachine},
    {"--data-parallel-external-lb", kSwitch, kOfServer, nullptr, kOneMachine},
    {"--headless", kSwitch, kOfServer},
    {"--stream-interval", kValue, kOfServer, nullptr,
     "an event has whatever is new when it can be sent"},
    {"--enable-reasoning", kSwitch, kOfServer, nullptr, "--reasoning-parser says it"},
    {"--tool-call-parser", kValue, kOfServer, nullptr, kNoTools},
    {"--tool-parser-plugin", kValue, kOfServer, nullptr, kNoTools},
    {"--tool-server", kValue, kOfServer, nullptr, kNoTools},
    {"--enable-auto-tool-choice", kSwitch, kOfServer, nullptr, kNoTools},
    {"--exclude-tools-when-tool-choice-none", kSwitch, kOfServer, nullptr, kNoTools},
    {"--guided-decoding-backend", kValue, kOfServer, nullptr, kNoGrammar},
    {"--structured-outputs-config", kValue, kOfServer, nullptr, kNoGrammar},
    {"--chat-template-content-format", kValue, kOfServer, nullptr,
     "content may be a string or a list of parts"},
    {"--trust-request-chat-template", kSwitch, kOfServer, nullptr,
     "requests that bring a template are refused"},
    {"--tokens-only", kSwitch, kOfServer, nullptr, "requests may bring token ids, or text"},
    {"--response-role", kValue, kOfServer, nullptr, "answers come from the assistant"},
    {"--root-path", kValue, kOfServer, nullptr, "paths are served as they are"},
    {"--allow-credentials", kSwitch, kOfServer, nullptr,
     "keys are sent in headers, not in cookies"},
    {"--allowed-methods", kValue, kOfServer, nullptr, kAnyMethod},
    {"--allowed-headers", kValue, kOfServer, nullptr, kAnyMethod},
    {"--enable-request-id-headers", kSwitch, kOfServer, nullptr,
     "X-Request-Id is always sent back"},
    {"--enable-prompt-tokens-details", kSwitch, kOfServer, nullptr, "usage always tells them"},
    {"--enable-force-include-usage", kSwitch, kOfServer, nullptr,
     "streams end with usage where stream_options asks for it"},
    {"--enable-server-load-tracking", kSwitch, kOfServer, nullptr, "/load always tells"},
    {"--enable-tokenizer-info-endpoint", kSwitch, kOfServer, nullptr,
     "/tokenizer_info is always there"},
    {"--return-tokens-as-token-ids", kSwitch, kOfServer, nullptr, "requests ask for it themselves"},
    {"--disable-fastapi-docs", kSwitch, kOfServer, nullptr, "there are none"},
    {"--h11-max-incomplete-event-size", kValue, kOfServer, nullptr, "headers may take 64 KiB"},
    {"--h11-max-header-count", kValue, kOfServer, nullptr, "headers may take 64 KiB"},
    {"--otlp-traces-endpoint", kValue, kOfServer, nullptr, kNoTraces},
    {"--collect-detailed-traces", kValue, kOfServer, nullptr, kNoTraces},
    {"--show-hidden-metrics-for-version", kValue, kOfServer, nullptr, "/metrics hides none"},
    {"--kv-events-config", kValue, kOfServer, nullptr, "there are no KV events"},
    {"--enable-sleep-mode", kSwitch, kOfServer, nullptr, "a server that is not needed is stopped"},
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
    {"--cuda-graph-config", kValue, kNoGraphs},
    {"--attention-dp-config", kValue,
     "a data-parallel rank is chosen by the tokens that it has to compute"},
    {"--enable-lm-head-tp-in-adp", kSwitch, "a data-parallel rank has an LM head of its own"},
    {"--moe-cluster-parallel-size", kValue, kOneMachine, "1"},
    {"--gpus-per-node", kValue, kOneMachine},
    {"--context-parallel-size", kValue, "prompts are not cut over ranks", "1"},
    {"--cp-config", kValue, "prompts are not cut over ranks"},
    {"--max-beam-width", kValue, "there is no beam search", "1"},
    {"--allreduce-strategy", kValue, kSharedMemory},
    {"--scheduler-config", kValue, kAlways},
    {"--cache-transceiver-config", kValue, "prefill and decoding share one KV cache"},
    {"--num-postprocess-workers", kValue, kOfServer, nullptr, kOneProcess},
    {"--enable-autotuner", kSwitch, kByCpu},
    {"--enable-iter-perf-stats", kSwitch, kNoStatistics, nullptr,
     "--step-log FILE tells of every step"},
    {"--enable-iter-req-stats", kSwitch, kNoStatistics, nullptr, kMetrics},
    {"--batch-wait-timeout-ms", kValue, "a step starts as soon as there is work"},
    {"--batch-wait-timeout-iters", kValue, "a step starts as soon as there is work"},
    {"--prefill-context-parallel-size", kValue, "prompts are not cut over ranks", "1"},
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
