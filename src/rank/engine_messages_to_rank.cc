#include <algorithm>

#include "kernels/backend.h"
#include "rank/engine_messages.h"
#include "rank/engine_messages.pb.h"
#include "rank/rank_process.h"

namespace moebius::rank {
namespace {

template <typename From, typename To>
void Append(const From& from, To* to) {
  to->Add(from.begin(), from.end());
}

template <typename T>
std::vector<T> ListOf(const google::protobuf::RepeatedField<T>& from) {
  return {from.begin(), from.end()};
}

template <typename Enum, typename Number>
Status SetEnum(const char* field, Number number, Enum last, Enum* value) {
  if (number < 0 || number > static_cast<Number>(last)) {
    return MakeError(ErrorCode::kCorrupt, "message: {} is {}, expected 0 to {}", field, number,
                     static_cast<Number>(last));
  }
  *value = static_cast<Enum>(number);
  return {};
}

void Put(const model::LoadOptions& from, proto::LoadOptions* to) {
  to->set_folder(from.folder);
  to->set_dtype(static_cast<int>(from.dtype));
  to->set_kv_cache_dtype(static_cast<int>(from.kv_cache_dtype));
  to->set_load_format(static_cast<int>(from.load_format));
  if (from.routing) {
    to->mutable_routing()->set_zipf_exponent(from.routing->zipf_exponent);
    to->mutable_routing()->set_hot_factor(from.routing->hot_factor);
  }
  to->set_hf_overrides(from.hf_overrides);
  to->set_moe_mode(static_cast<int>(from.moe_mode));
  to->set_mtp(from.mtp);
  if (from.backend != nullptr) to->set_backend(std::string(from.backend->name));
}

Status Take(const proto::LoadOptions& from, model::LoadOptions* to) {
  to->folder = from.folder();
  MOEBIUS_TRY(SetEnum("dtype", from.dtype(), model::DTypeChoice::kBFloat16, &to->dtype));
  MOEBIUS_TRY(SetEnum("kv_cache_dtype", from.kv_cache_dtype(), model::KvCacheDType::kFp8,
                      &to->kv_cache_dtype));
  MOEBIUS_TRY(
      SetEnum("load_format", from.load_format(), model::LoadFormat::kDummy, &to->load_format));
  MOEBIUS_TRY(SetEnum("moe_mode", from.moe_mode(), model::MoeMode::kDense, &to->moe_mode));
  if (from.has_routing()) {
    to->routing = moe::RoutingSpec{.zipf_exponent = from.routing().zipf_exponent(),
                                   .hot_factor = from.routing().hot_factor()};
  }
  to->hf_overrides = from.hf_overrides();
  to->mtp = from.mtp();
  if (from.backend().empty()) return {};
  const auto backends = kernels::AvailableBackends();
  const auto found = std::ranges::find_if(
      backends, [&](const kernels::Backend* backend) { return backend->name == from.backend(); });
  if (found != backends.end()) {
    to->backend = *found;
    return {};
  }
  const auto on_gpu = kernels::CudaBackend();
  if (!on_gpu || (*on_gpu)->name != from.backend()) {
    return MakeError(ErrorCode::kUnsupported, "back end '{}' is not available", from.backend());
  }
  to->backend = *on_gpu;
  return {};
}

void Put(const engine::EngineOptions& from, proto::EngineOptions* to) {
  to->set_block_size(from.block_size);
  if (from.num_kv_blocks) to->set_num_kv_blocks(*from.num_kv_blocks);
  if (from.kv_cache_bytes) to->set_kv_cache_bytes(*from.kv_cache_bytes);
  to->set_memory_fraction(from.memory_fraction);
  to->set_max_model_len(from.max_model_len);
  to->set_max_num_seqs(from.max_num_seqs);
  to->set_max_num_batched_tokens(from.max_num_batched_tokens);
  to->set_max_num_waiting(from.max_num_waiting);
  to->set_enable_prefix_caching(from.enable_prefix_caching);
  to->set_async_scheduling(from.async_scheduling);
  to->set_device_graphs(from.device_graphs);
  if (from.seed) to->set_seed(*from.seed);
  Append(from.eos_token_ids, to->mutable_eos_token_ids());
  to->set_step_timeout_ms(from.step_timeout.count());
  to->set_prefill_interval(from.prefill_interval);
  to->set_expert_statistics(from.expert_statistics);
}

void Take(const proto::EngineOptions& from, engine::EngineOptions* to) {
  to->block_size = from.block_size();
  if (from.has_num_kv_blocks()) to->num_kv_blocks = from.num_kv_blocks();
  if (from.has_kv_cache_bytes()) to->kv_cache_bytes = from.kv_cache_bytes();
  to->memory_fraction = from.memory_fraction();
  to->max_model_len = from.max_model_len();
  to->max_num_seqs = from.max_num_seqs();
  to->max_num_batched_tokens = from.max_num_batched_tokens();
  to->max_num_waiting = from.max_num_waiting();
  to->enable_prefix_caching = from.enable_prefix_caching();
  to->async_scheduling = from.async_scheduling();
  to->device_graphs = from.device_graphs();
  if (from.has_seed()) to->seed = from.seed();
  to->eos_token_ids = ListOf(from.eos_token_ids());
  to->step_timeout = std::chrono::milliseconds(from.step_timeout_ms());
  to->prefill_interval = from.prefill_interval();
  to->expert_statistics = from.expert_statistics();
}

void Put(const moe::OnlineBalance& from, proto::OnlineBalance* to) {
  to->set_layer_updates_per_iter(from.layer_updates_per_iter);
  to->set_step_interval(from.step_interval);
  to->set_min_gain(from.min_gain);
  to->set_num_staging(from.num_staging);
  to->set_bytes_per_second(from.bytes_per_second);
  to->set_host_pool(from.host_pool);
  to->set_is_random(from.is_random);
  to->set_seed(from.seed);
  to->set_min_tokens_per_expert(from.min_tokens_per_expert);
  to->set_flops_per_byte(from.flops_per_byte);
}

void Take(const proto::OnlineBalance& from, moe::OnlineBalance* to) {
  to->layer_updates_per_iter = from.layer_updates_per_iter();
  to->step_interval = from.step_interval();
  to->min_gain = from.min_gain();
  to->num_staging = from.num_staging();
  to->bytes_per_second = from.bytes_per_second();
  to->host_pool = from.host_pool();
  to->is_random = from.is_random();
  to->seed = from.seed();
  to->min_tokens_per_expert = from.min_tokens_per_expert();
  to->flops_per_byte = from.flops_per_byte();
}

void Put(const layout::ParallelConfig& from, proto::Parallel* to) {
  to->set_tensor(from.tensor_parallel_size);
  to->set_data(from.data_parallel_size);
  to->set_pipeline(from.pipeline_parallel_size);
  to->set_decode_context(from.decode_context_parallel_size);
  to->set_experts(from.enable_expert_parallel);
  to->set_all2all_backend(static_cast<int>(from.all2all_backend));
  to->set_exchange_kernel(static_cast<int>(from.exchange_kernel));
  to->set_enable_eplb(from.enable_eplb);
  to->set_num_redundant_experts(from.num_redundant_experts);
  to->set_enable_dbo(from.enable_dbo);
  to->set_dense_ffn(static_cast<int>(from.dense_ffn));
  to->set_lm_head(static_cast<int>(from.lm_head));
  to->set_gpus_per_node(from.gpus_per_node);
}

Status Take(const proto::Parallel& from, layout::ParallelConfig* to) {
  to->tensor_parallel_size = from.tensor();
  to->data_parallel_size = from.data();
  to->pipeline_parallel_size = from.pipeline();
  to->decode_context_parallel_size = from.decode_context();
  to->enable_expert_parallel = from.experts();
  MOEBIUS_TRY(SetEnum("all2all_backend", from.all2all_backend(), layout::ExchangeBackend::kAllToAll,
                      &to->all2all_backend));
  MOEBIUS_TRY(SetEnum("exchange_kernel", from.exchange_kernel(), layout::ExchangeKernel::kRemoved,
                      &to->exchange_kernel));
  to->enable_eplb = from.enable_eplb();
  to->num_redundant_experts = from.num_redundant_experts();
  to->enable_dbo = from.enable_dbo();
  MOEBIUS_TRY(SetEnum("dense_ffn", from.dense_ffn(), layout::PartPlacement::kDp, &to->dense_ffn));
  MOEBIUS_TRY(SetEnum("lm_head", from.lm_head(), layout::PartPlacement::kDp, &to->lm_head));
  to->gpus_per_node = from.gpus_per_node();
  for (const int size : {from.tensor(), from.data(), from.pipeline()}) {
    if (size < 1 || size > layout::kMaxGpus) {
      return MakeError(ErrorCode::kCorrupt, "message: a parallel size is {}, expected 1 to {}",
                       size, layout::kMaxGpus);
    }
  }
  if (to->wide_num_gpus() > layout::kMaxGpus) {
    return MakeError(ErrorCode::kCorrupt, "message: {} ranks, expected up to {}",
                     to->wide_num_gpus(), layout::kMaxGpus);
  }
  return {};
}

Result<ToRank> Take(const proto::Start& from) {
  StartMessage message;
  message.rank = from.rank();
  RankOptions& options = message.options;
  MOEBIUS_TRY(Take(from.load(), &options.load));
  Take(from.engine(), &options.engine);
  MOEBIUS_TRY(Take(from.parallel(), &options.parallel));
  if (message.rank < 0 || message.rank >= options.parallel.num_gpus()) {
    return MakeError(ErrorCode::kCorrupt, "message: rank is {}, expected 0 to {}", message.rank,
                     options.parallel.num_gpus() - 1);
  }
  options.deterministic = from.deterministic();
  options.max_num_tokens = from.max_num_tokens();
  options.threads_per_rank = from.threads_per_rank();
  options.step_timeout = std::chrono::milliseconds(from.step_timeout_ms());
  message.layout_hash = from.layout_hash();
  message.observes_steps = from.observes_steps();
  if (from.traces()) options.engine.trace.descriptor = kRankTrace;
  MOEBIUS_TRY(SetEnum("exchange_mode", from.exchange_mode(), moe::ExchangeMode::kThroughput,
                      &options.exchange_mode));
  options.slots.num_slots = from.num_slots();
  Take(from.online(), &options.online);
  for (const proto::Slots& layer : from.slots()) {
    options.slots.layers.push_back(ListOf(layer.experts()));
  }
  MOEBIUS_TRY(SetEnum("log_level", from.log_level(), LogLevel::kOff, &message.log_level));
  return message;
}

void Put(const engine::SamplingParams& from, proto::Sampling* to) {
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  to->set_repetition_penalty(from.repetition_penalty);
  to->set_presence_penalty(from.presence_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  if (from.seed) to->set_seed(*from.seed);
  if (from.max_tokens) to->set_max_tokens(*from.max_tokens);
  to->set_min_tokens(from.min_tokens);
  Append(from.stop_token_ids, to->mutable_stop_token_ids());
  to->set_ignore_eos(from.ignore_eos);
  to->set_num_logprobs(from.num_logprobs);
  to->set_num_prompt_logprobs(from.num_prompt_logprobs);
  for (const auto& [token, bias] : from.logit_bias) {
    proto::LogitBias* entry = to->add_logit_bias();
    entry->set_token(token);
    entry->set_bias(bias);
  }
  Append(from.allowed_token_ids, to->mutable_allowed_token_ids());
  for (const auto& word : from.bad_words) Append(word, to->add_bad_words()->mutable_ids());
}

void Take(const proto::Sampling& from, engine::SamplingParams* to) {
  to->temperature = from.temperature();
  to->top_k = from.top_k();
  to->top_p = from.top_p();
  to->min_p = from.min_p();
  to->repetition_penalty = from.repetition_penalty();
  to->presence_penalty = from.presence_penalty();
  to->frequency_penalty = from.frequency_penalty();
  if (from.has_seed()) to->seed = from.seed();
  if (from.has_max_tokens()) to->max_tokens = from.max_tokens();
  to->min_tokens = from.min_tokens();
  to->stop_token_ids = ListOf(from.stop_token_ids());
  to->ignore_eos = from.ignore_eos();
  to->num_logprobs = from.num_logprobs();
  to->num_prompt_logprobs = from.num_prompt_logprobs();
  for (const auto& entry : from.logit_bias())
    to->logit_bias.emplace_back(entry.token(), entry.bias());
  to->allowed_token_ids = ListOf(from.allowed_token_ids());
  for (const auto& word : from.bad_words()) to->bad_words.push_back(ListOf(word.ids()));
}

Result<ToRank> Take(const proto::Submit& from) {
  SubmitMessage message;
  message.request = from.request();
  message.input.prompt = ListOf(from.prompt());
  Take(from.sampling(), &message.input.sampling);
  message.input.cache_salt = from.cache_salt();
  message.input.priority = from.priority();
  message.input.arrival =
      std::chrono::steady_clock::time_point(std::chrono::nanoseconds(from.arrival_ns()));
  return message;
}

}  // namespace

std::string Encode(const StartMessage& message) {
  proto::ToRank out;
  proto::Start* start = out.mutable_start();
  const RankOptions& options = message.options;
  start->set_rank(message.rank);
  Put(options.load, start->mutable_load());
  Put(options.engine, start->mutable_engine());
  Put(options.parallel, start->mutable_parallel());
  start->set_deterministic(options.deterministic);
  start->set_max_num_tokens(options.max_num_tokens);
  start->set_threads_per_rank(options.threads_per_rank);
  start->set_step_timeout_ms(options.step_timeout.count());
  start->set_layout_hash(message.layout_hash);
  start->set_observes_steps(message.observes_steps);
  start->set_log_level(static_cast<int>(message.log_level));
  start->set_traces(options.engine.trace.is_on());
  start->set_exchange_mode(static_cast<int>(options.exchange_mode));
  start->set_num_slots(options.slots.num_slots);
  Put(options.online, start->mutable_online());
  for (const std::vector<int32_t>& layer : options.slots.layers) {
    Append(layer, start->add_slots()->mutable_experts());
  }
  return out.SerializeAsString();
}

std::string Encode(const SubmitMessage& message) {
  proto::ToRank out;
  proto::Submit* submit = out.mutable_submit();
  submit->set_request(message.request);
  Append(message.input.prompt, submit->mutable_prompt());
  Put(message.input.sampling, submit->mutable_sampling());
  submit->set_cache_salt(message.input.cache_salt);
  submit->set_priority(message.input.priority);
  const std::chrono::nanoseconds arrival = message.input.arrival.time_since_epoch();
  submit->set_arrival_ns(arrival.count());
  return out.SerializeAsString();
}

std::string Encode(const CancelMessage& message) {
  proto::ToRank out;
  out.mutable_cancel()->set_request(message.request);
  out.mutable_cancel()->set_reason(static_cast<int>(message.reason));
  return out.SerializeAsString();
}

std::string Encode(const StopMessage& /*message*/) {
  proto::ToRank out;
  out.mutable_stop();
  return out.SerializeAsString();
}

Result<ToRank> DecodeToRank(std::string_view frame) {
  proto::ToRank in;
  if (!in.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    return MakeError(ErrorCode::kCorrupt, "{} bytes that are no message to a rank", frame.size());
  }
  if (in.has_start()) return Take(in.start());
  if (in.has_submit()) return Take(in.submit());
  if (in.has_stop()) return StopMessage();
  if (in.has_cancel()) {
    CancelMessage message;
    message.request = in.cancel().request();
    MOEBIUS_TRY(
        SetEnum("reason", in.cancel().reason(), engine::FinishReason::kError, &message.reason));
    return message;
  }
  return MakeError(ErrorCode::kCorrupt, "{} bytes that are an empty message to a rank",
                   frame.size());
}

}  // namespace moebius::rank
