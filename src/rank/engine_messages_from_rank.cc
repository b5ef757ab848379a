#include <algorithm>
#include <span>

#include "rank/engine_messages.h"
#include "rank/engine_messages.pb.h"

namespace moebius::rank {
namespace {

using engine::DurationStats;
using engine::EngineStats;
using engine::StepRecord;

constexpr int64_t EngineStats::* kNumbers[] = {
    &EngineStats::num_running,          &EngineStats::num_waiting,
    &EngineStats::num_kv_blocks,        &EngineStats::num_used_kv_blocks,
    &EngineStats::num_cached_kv_blocks, &EngineStats::num_steps,
    &EngineStats::num_failed_steps,     &EngineStats::num_prefill_tokens,
    &EngineStats::num_output_tokens,    &EngineStats::num_dropped_tokens,
    &EngineStats::num_prompt_tokens,    &EngineStats::num_cached_tokens,
    &EngineStats::num_preemptions,      &EngineStats::num_finished_stop,
    &EngineStats::num_finished_length,  &EngineStats::num_cancelled,
    &EngineStats::num_failed,           &EngineStats::num_corrupted,
};
constexpr Histogram EngineStats::* kHistograms[] = {
    &EngineStats::time_to_first_token,
    &EngineStats::inter_token_latency,
    &EngineStats::time_per_output_token,
    &EngineStats::e2e_latency,
    &EngineStats::queue_time,
    &EngineStats::prefill_time,
    &EngineStats::decode_time,
    &EngineStats::inference_time,
    &EngineStats::step_tokens,
    &EngineStats::prompt_length,
    &EngineStats::output_length,
    &EngineStats::max_tokens,
    &EngineStats::computed_prompt_tokens,
};
constexpr DurationStats EngineStats::* kDurations[] = {
    &EngineStats::plan_time, &EngineStats::device_time, &EngineStats::wait_time};
// A field that is added there must be added here.
static_assert(sizeof(EngineStats) == sizeof(kNumbers) / sizeof(*kNumbers) * sizeof(int64_t) +
                                         std::size(kHistograms) * sizeof(Histogram) +
                                         std::size(kDurations) * sizeof(DurationStats) +
                                         2 * sizeof(double));

constexpr int64_t StepRecord::* kStepNumbers[] = {
    &StepRecord::step_id,           &StepRecord::dp_rank,        &StepRecord::num_prefill_tokens,
    &StepRecord::num_decode_tokens, &StepRecord::num_requests,   &StepRecord::num_running,
    &StepRecord::num_waiting,       &StepRecord::num_kv_blocks,  &StepRecord::num_used_kv_blocks,
    &StepRecord::num_preemptions,   &StepRecord::dispatch_bytes, &StepRecord::combine_bytes,
    &StepRecord::exchange_mode,     &StepRecord::num_experts,    &StepRecord::num_expert_ranks,
    &StepRecord::experts_per_token, &StepRecord::epoch,
};
constexpr double StepRecord::* kStepSeconds[] = {&StepRecord::unix_time, &StepRecord::schedule,
                                                 &StepRecord::wait, &StepRecord::device};
static_assert(sizeof(StepRecord) ==
              (std::size(kStepNumbers) + std::size(kStepSeconds)) * sizeof(int64_t) +
                  sizeof(engine::StepParts) + sizeof(std::span<const int64_t>) +
                  sizeof(std::span<const int32_t>) +
                  sizeof(StepRecord::placement));  // which the receiver knows

tl::unexpected<Error> Wrong(const char* field, int64_t found, int64_t expected) {
  return MakeError(ErrorCode::kCorrupt, "message: {} has {} entries, expected {}", field, found,
                   expected);
}

void Put(const Error& from, proto::Error* to) {
  to->set_code(static_cast<int>(from.code()));
  to->set_message(from.message());
}

Error ErrorOf(const proto::Error& from) {
  const bool is_known = from.code() >= 0 && from.code() <= static_cast<int>(ErrorCode::kInternal);
  return {is_known ? static_cast<ErrorCode>(from.code()) : ErrorCode::kInternal, from.message()};
}

void Put(const EngineStats& from, proto::EngineStats* to) {
  for (const auto field : kNumbers) to->add_numbers(from.*field);
  for (const auto field : kHistograms) {
    const Histogram& histogram = from.*field;
    proto::Histogram* out = to->add_histograms();
    out->mutable_bounds()->Add(histogram.bounds().begin(), histogram.bounds().end());
    out->mutable_counts()->Add(histogram.counts().begin(), histogram.counts().end());
    out->set_sum(histogram.sum());
  }
  for (const auto field : kDurations) {
    const DurationStats& durations = from.*field;
    proto::Durations* out = to->add_durations();
    out->set_count(durations.count);
    out->set_sum(durations.sum);
    out->set_max(durations.max);
    out->mutable_buckets()->Add(std::begin(durations.buckets), std::end(durations.buckets));
  }
  to->set_has_work(from.has_work);
  to->set_seconds_without_progress(from.seconds_without_progress);
}

Status Take(const proto::EngineStats& from, EngineStats* to) {
  if (from.numbers_size() != std::ssize(kNumbers) ||
      from.histograms_size() != std::ssize(kHistograms) ||
      from.durations_size() != std::ssize(kDurations)) {
    return Wrong("stats", from.numbers_size() + from.histograms_size() + from.durations_size(),
                 std::ssize(kNumbers) + std::ssize(kHistograms) + std::ssize(kDurations));
  }
  int i = 0;
  for (const auto field : kNumbers) to->*field = from.numbers(i++);
  i = 0;
  for (const auto field : kHistograms) {
    const proto::Histogram& in = from.histograms(i++);
    if (in.counts_size() != in.bounds_size() + 1) {
      return Wrong("a histogram", in.counts_size(), in.bounds_size() + 1);
    }
    to->*field = Histogram({in.bounds().data(), static_cast<size_t>(in.bounds_size())},
                           {in.counts().data(), static_cast<size_t>(in.counts_size())}, in.sum());
  }
  i = 0;
  for (const auto field : kDurations) {
    const proto::Durations& in = from.durations(i++);
    if (in.buckets_size() != DurationStats::kNumBuckets) {
      return Wrong("durations", in.buckets_size(), DurationStats::kNumBuckets);
    }
    DurationStats& durations = to->*field;
    durations.count = in.count();
    durations.sum = in.sum();
    durations.max = in.max();
    std::copy(in.buckets().begin(), in.buckets().end(), durations.buckets);
  }
  to->has_work = from.has_work();
  to->seconds_without_progress = from.seconds_without_progress();
  return {};
}

void Put(std::span<const engine::TokenLogprobs> from, proto::Logprobs* to) {
  for (const engine::TokenLogprobs& entry : from) {
    to->add_tokens(entry.token);
    to->add_logprobs(entry.logprob);
    to->add_ranks(entry.rank);
    to->add_num_top(static_cast<int32_t>(entry.top_tokens.size()));
    to->mutable_top_tokens()->Add(entry.top_tokens.begin(), entry.top_tokens.end());
    to->mutable_top_logprobs()->Add(entry.top_logprobs.begin(), entry.top_logprobs.end());
  }
}

Status Take(const proto::Logprobs& from, std::vector<engine::LogprobEntry>* to) {
  if (from.logprobs_size() != from.tokens_size() || from.ranks_size() != from.tokens_size() ||
      from.num_top_size() != from.tokens_size()) {
    return Wrong("logprobs", from.logprobs_size(), from.tokens_size());
  }
  int64_t num_tops = 0;
  for (const int32_t count : from.num_top()) {
    if (count < 0) return Wrong("a list of best tokens", count, 0);
    num_tops += count;
  }
  if (from.top_tokens_size() != num_tops || from.top_logprobs_size() != num_tops) {
    return Wrong("best tokens", from.top_tokens_size(), num_tops);
  }
  auto token = from.top_tokens().begin();
  auto logprob = from.top_logprobs().begin();
  for (int i = 0; i < from.tokens_size(); ++i) {
    const int32_t count = from.num_top(i);
    to->push_back({from.tokens(i),
                   from.logprobs(i),
                   from.ranks(i),
                   {token, token + count},
                   {logprob, logprob + count}});
    token += count;
    logprob += count;
  }
  return {};
}

Result<FromRank> Take(const proto::Ready& from) {
  ReadyMessage message;
  message.limits.vocab_size = from.vocab_size();
  message.limits.max_model_len = from.max_model_len();
  message.limits.max_num_seqs = from.max_num_seqs();
  message.limits.max_num_waiting = from.max_num_waiting();
  message.limits.eos_token_ids.assign(from.eos_token_ids().begin(), from.eos_token_ids().end());
  MOEBIUS_TRY(Take(from.stats(), &message.stats));
  return message;
}

Result<FromRank> Take(const proto::Event& from) {
  EventMessage message;
  message.request = from.request();
  message.continues = from.continues();
  engine::TokenChunk& event = message.event;
  event.tokens.assign(from.tokens().begin(), from.tokens().end());
  MOEBIUS_TRY(Take(from.logprobs(), &event.logprobs));
  MOEBIUS_TRY(Take(from.prompt_logprobs(), &event.prompt_logprobs));
  if (from.has_finish()) {
    if (from.finish() < 0 || from.finish() > static_cast<int>(engine::FinishReason::kError)) {
      return MakeError(ErrorCode::kCorrupt, "message: finish is {}, expected 0 to {}",
                       from.finish(), static_cast<int>(engine::FinishReason::kError));
    }
    event.finish = static_cast<engine::FinishReason>(from.finish());
  }
  if (from.has_stop_token()) event.stop_token = from.stop_token();
  if (from.has_error()) event.error = ErrorOf(from.error());
  event.usage = {from.num_prompt_tokens(), from.num_cached_tokens(), from.num_output_tokens()};
  return message;
}

Result<FromRank> Take(const proto::Stats& from) {
  StatsMessage message;
  MOEBIUS_TRY(Take(from.stats(), &message.stats));
  if (from.num_layers() < 0 || from.num_experts() < 0 ||
      2 * int64_t{from.num_layers()} * from.num_experts() != from.expert_counts_size()) {
    return Wrong("expert_counts", from.expert_counts_size(),
                 2 * int64_t{from.num_layers()} * from.num_experts());
  }
  message.experts = moe::ExpertStats(from.num_layers(), from.num_experts());
  std::copy(from.expert_counts().begin(), from.expert_counts().end(),
            message.experts.counts().begin());
  if (from.has_health()) message.fault = ErrorOf(from.health());
  return message;
}

Result<FromRank> Take(const proto::Step& from) {
  if (from.numbers_size() != std::ssize(kStepNumbers) ||
      from.seconds_size() != std::ssize(kStepSeconds) + engine::kNumStepParts) {
    return Wrong("a step", from.numbers_size() + from.seconds_size(),
                 std::ssize(kStepNumbers) + std::ssize(kStepSeconds) + engine::kNumStepParts);
  }
  StepReport message;
  int i = 0;
  for (const auto field : kStepNumbers) message.record.*field = from.numbers(i++);
  i = 0;
  for (const auto field : kStepSeconds) message.record.*field = from.seconds(i++);
  for (const engine::StepPart& part : engine::kStepParts) {
    message.record.parts.*part.seconds = from.seconds(i++);
  }
  message.dp_rows.assign(from.dp_rows().begin(), from.dp_rows().end());
  message.expert_counts.assign(from.expert_counts().begin(), from.expert_counts().end());
  return message;
}

// How many of the first entries come to about max_logprobs, but at least one.
size_t NumThatFit(std::span<const engine::TokenLogprobs> entries, size_t max_logprobs) {
  size_t num_logprobs = 0;
  size_t count = 0;
  while (count < entries.size() && num_logprobs < max_logprobs) {
    num_logprobs += 1 + entries[count++].top_tokens.size();
  }
  return count;
}

}  // namespace

std::string Encode(const ReadyMessage& message) {
  proto::FromRank out;
  proto::Ready* ready = out.mutable_ready();
  ready->set_vocab_size(message.limits.vocab_size);
  ready->set_max_model_len(message.limits.max_model_len);
  ready->set_max_num_seqs(message.limits.max_num_seqs);
  ready->set_max_num_waiting(message.limits.max_num_waiting);
  ready->mutable_eos_token_ids()->Add(message.limits.eos_token_ids.begin(),
                                      message.limits.eos_token_ids.end());
  Put(message.stats, ready->mutable_stats());
  return out.SerializeAsString();
}

std::string Encode(const RefusedMessage& message) {
  proto::FromRank out;
  out.mutable_refused()->set_request(message.request);
  Put(message.error, out.mutable_refused()->mutable_error());
  return out.SerializeAsString();
}

std::vector<std::string> EncodeEvent(int64_t request, const engine::TokenEvent& whole,
                                     size_t max_logprobs) {
  std::vector<std::string> frames;
  engine::TokenEvent event = whole;
  for (size_t count = 0;
       (count = NumThatFit(event.prompt_logprobs, max_logprobs)) < event.prompt_logprobs.size();) {
    proto::FromRank message;
    message.mutable_event()->set_request(request);
    message.mutable_event()->set_continues(true);
    Put(event.prompt_logprobs.first(count), message.mutable_event()->mutable_prompt_logprobs());
    frames.push_back(message.SerializeAsString());
    event.prompt_logprobs = event.prompt_logprobs.subspan(count);
  }
  proto::FromRank message;
  proto::Event* out = message.mutable_event();
  out->set_request(request);
  out->mutable_tokens()->Add(event.tokens.begin(), event.tokens.end());
  if (!event.logprobs.empty()) Put(event.logprobs, out->mutable_logprobs());
  if (!event.prompt_logprobs.empty()) Put(event.prompt_logprobs, out->mutable_prompt_logprobs());
  if (event.finish) out->set_finish(static_cast<int>(*event.finish));
  if (event.stop_token) out->set_stop_token(*event.stop_token);
  if (event.error != nullptr) Put(*event.error, out->mutable_error());
  out->set_num_prompt_tokens(event.usage.num_prompt_tokens);
  out->set_num_cached_tokens(event.usage.num_cached_tokens);
  out->set_num_output_tokens(event.usage.num_output_tokens);
  frames.push_back(message.SerializeAsString());
  return frames;
}

std::string Encode(const StatsMessage& message) {
  proto::FromRank out;
  proto::Stats* stats = out.mutable_stats();
  Put(message.stats, stats->mutable_stats());
  stats->set_num_layers(message.experts.num_layers());
  stats->set_num_experts(message.experts.num_experts());
  const std::span<const int64_t> counts = message.experts.counts();
  stats->mutable_expert_counts()->Add(counts.begin(), counts.end());
  if (message.fault) Put(*message.fault, stats->mutable_health());
  return out.SerializeAsString();
}

std::string EncodeStep(const StepRecord& record) {
  proto::FromRank out;
  proto::Step* step = out.mutable_step();
  for (const auto field : kStepNumbers) step->add_numbers(record.*field);
  for (const auto field : kStepSeconds) step->add_seconds(record.*field);
  for (const engine::StepPart& part : engine::kStepParts) {
    step->add_seconds(record.parts.*part.seconds);
  }
  step->mutable_dp_rows()->Add(record.dp_rows.begin(), record.dp_rows.end());
  step->mutable_expert_counts()->Add(record.expert_counts.begin(), record.expert_counts.end());
  return out.SerializeAsString();
}

Result<FromRank> DecodeFromRank(std::string_view frame) {
  proto::FromRank in;
  if (!in.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    return MakeError(ErrorCode::kCorrupt, "{} bytes that are no message of a rank", frame.size());
  }
  if (in.has_ready()) return Take(in.ready());
  if (in.has_event()) return Take(in.event());
  if (in.has_stats()) return Take(in.stats());
  if (in.has_step()) return Take(in.step());
  if (in.has_refused()) {
    return RefusedMessage{in.refused().request(), ErrorOf(in.refused().error())};
  }
  return MakeError(ErrorCode::kCorrupt, "{} bytes that are an empty message of a rank",
                   frame.size());
}

}  // namespace moebius::rank
