#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace moebius::engine {
namespace {

// Steele and others, "Fast splittable pseudorandom number generators", 2014: neighbouring requests
// get unrelated seeds.
uint64_t SplitMix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A bit a token; empty: all may come.
std::vector<uint32_t> MaskOf(const std::vector<TokenId>& allowed, int64_t vocab_size) {
  if (allowed.empty()) return {};
  std::vector<uint32_t> mask(static_cast<size_t>((vocab_size + 31) / 32));
  for (const TokenId token : allowed) {
    mask[static_cast<size_t>(token / 32)] |= uint32_t{1} << (token % 32);
  }
  return mask;
}

bool Precedes(const Sequence* a, const Sequence* b) { return a->precedence < b->precedence; }

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config),
      cache_(config.num_blocks, config.block_size, config.enable_prefix_caching),
      steps_(static_cast<size_t>(std::max(config.num_micro_batches, kMaxStepsInFlight))) {
  MOEBIUS_CHECK_GE(config.max_num_batched_tokens, config.max_num_seqs);
  MOEBIUS_CHECK_GE(config.num_blocks * config.block_size, config.max_model_len);
  SetBounds(config.max_model_len, &stats_);
}

void Scheduler::Add(RequestId id, RequestInput input, TokenSink sink) {
  auto owned = std::make_unique<Sequence>();
  Sequence& sequence = *owned;
  sequence.id = id;
  sequence.precedence = {num_arrivals_ + input.priority * kPriorityArrivals, num_arrivals_};
  sequence.seed =
      input.sampling.seed.value_or(SplitMix(config_.seed + static_cast<uint64_t>(num_arrivals_)));
  ++num_arrivals_;
  sequence.sampling = std::move(input.sampling);
  sequence.salt = std::move(input.cache_salt);
  sequence.cursor = kv::PrefixCursor(sequence.salt);
  sequence.constraint = std::move(input.constraint);
  sequence.sink = std::move(sink);
  sequence.times.arrival = input.arrival;
  sequence.end_tokens = sequence.sampling.stop_token_ids;
  if (!sequence.sampling.ignore_eos) {
    sequence.end_tokens.insert(sequence.end_tokens.end(), config_.eos_token_ids.begin(),
                               config_.eos_token_ids.end());
  }
  sequence.allowed_mask = MaskOf(sequence.sampling.allowed_token_ids, config_.vocab_size);
  sequence.needs_last_token =
      sequence.constraint != nullptr ||
      std::ranges::any_of(sequence.sampling.bad_words, [](const auto& w) { return w.size() > 1; });
  if (sequence.sampling.num_prompt_logprobs >= 0) sequence.prompt_scores.emplace();
  sequence.num_prompt = static_cast<int64_t>(input.prompt.size());
  sequence.tokens = std::move(input.prompt);
  sequence.max_output = config_.max_model_len - sequence.num_prompt;
  if (sequence.sampling.max_tokens) {
    sequence.max_output = std::min<int64_t>(sequence.max_output, *sequence.sampling.max_tokens);
  }
  MOEBIUS_CHECK_GT(sequence.num_prompt, 0);
  MOEBIUS_CHECK_GT(sequence.max_output, 0);
  if (sequence.sampling.has_penalties()) {
    sequence.token_counts.emplace(sequence.tokens, sequence.num_prompt + sequence.max_output);
  }
  waiting_.emplace(sequence.precedence, &sequence);
  sequences_.emplace(id, std::move(owned));
}

void Scheduler::Cancel(RequestId id, FinishReason reason) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  End(*it->second, reason, nullptr, {});
}

void Scheduler::EndAll(FinishReason reason, const Error* error) {
  std::vector<Sequence*> all;
  for (const auto& [id, sequence] : sequences_) all.push_back(sequence.get());
  std::ranges::sort(all, Precedes);
  for (Sequence* sequence : all) End(*sequence, reason, error, {});
}

const StepPlan* Scheduler::Plan(bool with_prefill) {
  MOEBIUS_CHECK_LT(num_steps_, max_steps_in_flight());
  ++num_steps_;
  Step& step = Youngest();
  step.items.clear();
  step.num_samples = 0;
  is_short_of_blocks_ = false;
  int64_t budget = config_.max_num_batched_tokens;
  SelectDecodes(step, &budget);
  const size_t num_decodes = step.items.size();
  if (with_prefill || !AnyoneDraws()) {
    SelectPrefills(step, &budget);
    // Blocks that become free belong to those who run already.
    if (!is_short_of_blocks_) Admit(step, &budget);
  }
  if (step.items.empty()) {
    --num_steps_;
    return nullptr;
  }
  BuildPlan(step.items, config_.vocab_size, config_.block_size, &step.plan);
  step.plan.step_id = next_step_id_++;
  step.plan.previous_step = step.plan.step_id - 1;
  step.plan.has_prefill = step.items.size() > num_decodes;
  return &step.plan;
}

// Of so many requests, those of one micro-batch.
int64_t Scheduler::ShareOf(int64_t count) const {
  return (count + config_.num_micro_batches - 1) / config_.num_micro_batches;
}

bool Scheduler::AnyoneDraws() const {
  return std::ranges::any_of(running_, [](const Sequence* sequence) {
    return sequence->num_pending > 0 || sequence->num_unplanned() == 1;
  });
}

void Scheduler::SelectDecodes(Step& step, int64_t* budget) {
  const bool is_shared_out = config_.num_micro_batches > 1;
  const int64_t share = ShareOf(static_cast<int64_t>(running_.size()));
  // By index: making room removes sequences from the end.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.num_unplanned() != 1 || sequence.is_full()) continue;
    if ((sequence.needs_last_token || is_shared_out) && sequence.num_pending > 0) continue;
    if (static_cast<int64_t>(step.items.size()) == share) return;
    const int64_t num_new = cache_.NumBlocksFor(sequence.num_planned + 1) -
                            static_cast<int64_t>(sequence.blocks.size());
    if (num_new > 0 && !MakeRoom(sequence, num_new)) continue;
    AddItem(step, sequence, 1, std::max<int64_t>(num_new, 0), false);
    --*budget;
  }
}

void Scheduler::SelectPrefills(Step& step, int64_t* budget) {
  for (Sequence* sequence : running_) {
    if (*budget == 0) return;
    if (sequence->num_unplanned() <= 1) continue;
    const int64_t num_rows = std::min(sequence->num_unplanned(), *budget);
    AddItem(step, *sequence, num_rows, 0, false);
    *budget -= num_rows;
  }
}

void Scheduler::Admit(Step& step, int64_t* budget) {
  const int64_t num_requests = static_cast<int64_t>(running_.size() + waiting_.size());
  const int64_t share = ShareOf(std::min(num_requests, config_.max_num_seqs));
  while (*budget > 0 && !waiting_.empty() && static_cast<int64_t>(step.items.size()) < share &&
         static_cast<int64_t>(running_.size()) < config_.max_num_seqs) {
    Sequence& sequence = *waiting_.begin()->second;
    if (!TryAdmit(sequence)) return;
    const int64_t num_rows = std::min(sequence.num_unplanned(), *budget);
    AddItem(step, sequence, num_rows, 0, true);
    *budget -= num_rows;
  }
}

// The last token is always computed: somebody must give the logits. So is every row of a prompt
// whose score has not come in yet.
std::vector<BlockId> Scheduler::FindCached(const Sequence& sequence, kv::PrefixCursor* cursor) {
  size_t num_usable = sequence.tokens.size() - 1;
  if (sequence.prompt_scores && sequence.prompt_scores->size() < sequence.num_prompt - 1) {
    num_usable = static_cast<size_t>(sequence.prompt_scores->size());
  }
  return cache_.Find(*cursor, std::span(sequence.tokens).first(num_usable));
}

// All blocks for the tokens known so far are taken at once, so that a prefill never stops half-way.
bool Scheduler::TryAdmit(Sequence& sequence) {
  // Each sequence that runs may soon need one more; with none running, everything is ours.
  const int64_t margin = cache_.num_free() - static_cast<int64_t>(running_.size());
  // Looking up a long prompt at every step would cost more than the step.
  if (sequence.id == blocked_ && margin <= blocked_margin_) return false;
  const int64_t num_needed = cache_.NumBlocksFor(sequence.length());
  kv::PrefixCursor cursor(sequence.salt);
  const std::vector<BlockId> hits = FindCached(sequence, &cursor);
  const int64_t num_hits = static_cast<int64_t>(hits.size());
  const int64_t num_free_hits =
      std::ranges::count_if(hits, [&](BlockId block) { return cache_.refs(block) == 0; });
  if (margin < num_needed - num_hits + num_free_hits) {
    blocked_ = sequence.id;
    blocked_margin_ = margin;
    return false;
  }
  blocked_ = RequestId();

  cache_.Hold(hits);
  sequence.blocks = hits;
  MOEBIUS_CHECK(cache_.Take(num_needed - num_hits, &sequence.blocks));
  sequence.cursor = cursor;
  sequence.num_published = num_hits;
  sequence.num_planned = sequence.num_committed = num_hits * config_.block_size;
  waiting_.erase(sequence.precedence);
  sequence.state = Sequence::State::kRunning;
  running_.insert(std::ranges::lower_bound(running_, &sequence, Precedes), &sequence);
  if (!sequence.was_admitted) {
    sequence.was_admitted = true;
    sequence.times.admission = RequestTimes::TimePoint::clock::now();
    sequence.num_cached_prompt = std::min(sequence.num_planned, sequence.num_prompt);
    stats_.num_prompt_tokens += sequence.num_prompt;
    stats_.num_cached_tokens += sequence.num_cached_prompt;
  }
  return true;
}

// Takes `num_blocks` for a running sequence, from those behind it if need be. False: not in this
// step (it waits for blocks in flight, or has itself been preempted).
bool Scheduler::MakeRoom(Sequence& sequence, int64_t num_blocks) {
  while (!cache_.Take(num_blocks, &sequence.blocks)) {
    is_short_of_blocks_ = true;
    if (cache_.num_free() + num_draining_blocks_ >= num_blocks) return false;
    Sequence& victim = *running_.back();
    Preempt(victim);
    if (&victim == &sequence) return false;
  }
  return true;
}

void Scheduler::Preempt(Sequence& sequence) {
  ++stats_.num_preemptions;
  RemoveFromRunning(sequence);
  if (sequence.num_in_flight > 0) {
    BeginDraining(sequence, Sequence::State::kDraining);
  } else {
    Requeue(sequence);
  }
}

void Scheduler::AddItem(Step& step, Sequence& sequence, int64_t num_rows, int64_t num_new_blocks,
                        bool is_admission) {
  PlanItem item;
  item.sequence = &sequence;
  item.first_row = sequence.num_planned;
  item.num_rows = num_rows;
  item.input_row = sequence.pending_row;
  item.num_output_planned = sequence.length() - sequence.num_prompt;
  item.num_new_blocks = num_new_blocks;
  item.is_admission = is_admission;
  if (sequence.prompt_scores) {
    item.score_begin = std::max(item.first_row, sequence.prompt_scores->size());
    item.score_end =
        std::max(item.score_begin, std::min(item.first_row + num_rows, sequence.num_prompt - 1));
    item.first_score = step.num_samples;
    step.num_samples += static_cast<int32_t>(item.score_end - item.score_begin);
  }
  if (num_rows == sequence.num_unplanned()) {
    item.sample = step.num_samples++;
    sequence.pending_row = item.sample;
    ++sequence.num_pending;
  }
  sequence.num_planned += num_rows;
  ++sequence.num_in_flight;
  step.items.push_back(item);
}

}  // namespace moebius::engine
