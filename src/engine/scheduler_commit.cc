// The scheduler's other half: what happens when a step is done, has failed or is taken back, and
// how requests end.
#include <algorithm>

#include "base/check.h"
#include "engine/scheduler.h"

namespace moebius::engine {

StepRows Scheduler::Commit(const StepOutput& output) {
  MOEBIUS_CHECK_GT(num_steps_, 0);
  const Step& step = Oldest();
  MOEBIUS_CHECK_EQ(output.step_id, step.plan.step_id);
  MOEBIUS_CHECK_EQ(static_cast<int64_t>(output.sampled.size()), step.plan.num_samples());
  ++stats_.num_steps;
  commit_time_ = RequestTimes::TimePoint::clock::now();
  StepRows rows;
  rows.requests = static_cast<int64_t>(step.items.size());
  for (const PlanItem& item : step.items) {
    const bool is_prefill = item.num_rows > 1 || item.first_row < item.sequence->num_prompt;
    (is_prefill ? rows.prefill : rows.decode) += item.num_rows;
    CommitItem(item, output);
  }
  stats_.num_prefill_tokens += rows.prefill;
  stats_.step_tokens.Observe(static_cast<double>(rows.prefill + rows.decode));
  first_step_ = (first_step_ + 1) % max_steps_in_flight();
  --num_steps_;
  return rows;
}

void Scheduler::CommitItem(const PlanItem& item, const StepOutput& output) {
  Sequence& sequence = *item.sequence;
  if (sequence.state == Sequence::State::kEnded) {
    if (item.sample >= 0) ++stats_.num_dropped_tokens;
    LeaveStep(sequence);
    return;
  }
  sequence.num_committed = item.first_row + item.num_rows;
  PublishFullBlocks(sequence);
  for (int64_t p = item.score_begin; p < item.score_end; ++p) {
    MOEBIUS_CHECK_EQ(p, sequence.prompt_scores->size());
    const int64_t sample = item.first_score + p - item.score_begin;
    sequence.prompt_scores->Add(output.sampled[static_cast<size_t>(sample)], output);
  }
  if (item.sample >= 0) {
    --sequence.num_pending;
    const SampledToken& sampled = output.sampled[static_cast<size_t>(item.sample)];
    // The request may end here, before it leaves the step: its blocks stay until then.
    if (sampled.token < 0 || sampled.token >= config_.vocab_size) {
      EndWithoutToken(item);
    } else {
      AppendToken(sequence, sampled, output);
    }
  }
  LeaveStep(sequence);
}

// Nothing could be drawn. Either the request forbids everything, or the model is broken.
void Scheduler::EndWithoutToken(const PlanItem& item) {
  const StepPlan& plan = Oldest().plan;
  const bool is_corrupt =
      AllowsAnyToken(plan, plan.samples[static_cast<size_t>(item.sample)], config_.vocab_size);
  if (is_corrupt) ++stats_.num_corrupted;
  const Error error(
      is_corrupt ? ErrorCode::kInternal : ErrorCode::kInvalidArgument,
      fmt::format("no token could be drawn at position {}: {}", item.sequence->tokens.size(),
                  is_corrupt ? "the model's logits there are not numbers"
                             : "allowed_token_ids, bad_words, min_tokens and the constraint "
                               "together forbid every token"));
  End(*item.sequence, FinishReason::kError, &error, {});
}

void Scheduler::AppendToken(Sequence& sequence, const SampledToken& sampled,
                            const StepOutput& output) {
  const TokenId token = sampled.token;
  const bool may_end = sequence.num_output() >= sequence.sampling.min_tokens;
  sequence.tokens.push_back(token);
  if (sequence.token_counts) sequence.token_counts->AddOutput(token);
  if (sequence.constraint) sequence.constraint->Accept(token);
  ++stats_.num_output_tokens;
  ObserveToken(commit_time_, &sequence.times, &stats_);

  TokenLogprobs logprobs;
  std::vector<TokenLogprobs> prompt_logprobs;
  TokenEvent event;
  event.tokens = std::span(&token, 1);
  if (sequence.sampling.num_logprobs >= 0) {
    logprobs = ViewLogprobs(sampled, output.top_tokens, output.top_logprobs);
    event.logprobs = std::span(&logprobs, 1);
  }
  if (sequence.prompt_scores && sequence.num_output() == 1) {
    prompt_logprobs = sequence.prompt_scores->Views();
    event.prompt_logprobs = prompt_logprobs;
  }
  if (may_end && std::ranges::find(sequence.end_tokens, token) != sequence.end_tokens.end()) {
    event.stop_token = token;
    End(sequence, FinishReason::kStop, nullptr, event);
  } else if (sequence.num_output() >= sequence.max_output) {
    End(sequence, FinishReason::kLength, nullptr, event);
  } else {
    event.request = sequence.id;
    event.usage = sequence.usage();
    sequence.sink(event);
    if (!prompt_logprobs.empty()) sequence.prompt_scores->Drop();
  }
}

void Scheduler::PublishFullBlocks(Sequence& sequence) {
  const size_t block_size = static_cast<size_t>(config_.block_size);
  for (; (sequence.num_published + 1) * config_.block_size <= sequence.num_committed;
       ++sequence.num_published) {
    const size_t block = static_cast<size_t>(sequence.num_published);
    cache_.Publish(sequence.cursor,
                   std::span(sequence.tokens).subspan(block * block_size, block_size),
                   sequence.blocks[block]);
  }
}

// One step less uses the sequence; what waited for that happens now.
void Scheduler::LeaveStep(Sequence& sequence) {
  if (--sequence.num_in_flight > 0) return;
  if (sequence.state == Sequence::State::kEnded) {
    ReleaseBlocks(sequence);
    sequences_.erase(sequence.id);
  } else if (sequence.state == Sequence::State::kDraining) {
    Requeue(sequence);
  }
}

void Scheduler::Fail(const Error& error) {
  MOEBIUS_CHECK_EQ(num_steps_, 1);
  ++stats_.num_failed_steps;
  for (const PlanItem& item : Oldest().items) {
    Sequence& sequence = *item.sequence;
    if (sequence.state != Sequence::State::kEnded) {
      End(sequence, FinishReason::kError, &error, {});
    }
    LeaveStep(sequence);
  }
  num_steps_ = 0;
}

void Scheduler::TakeBack() {
  MOEBIUS_CHECK_GT(num_steps_, 0);
  Step& step = Youngest();
  for (auto it = step.items.rbegin(); it != step.items.rend(); ++it) {
    Sequence& sequence = *it->sequence;
    if (sequence.state != Sequence::State::kEnded) {
      sequence.num_planned = it->first_row;
      if (it->sample >= 0) {
        --sequence.num_pending;
        sequence.pending_row = it->input_row;
      }
      const size_t num_new = static_cast<size_t>(it->num_new_blocks);
      cache_.Release(std::span(sequence.blocks).last(num_new));
      sequence.blocks.resize(sequence.blocks.size() - num_new);
    }
    const bool goes_back = it->is_admission && sequence.state == Sequence::State::kRunning;
    LeaveStep(sequence);
    if (goes_back) {
      RemoveFromRunning(sequence);
      Requeue(sequence);
    }
  }
  --num_steps_;
  next_step_id_ = step.plan.step_id;
}

// Sends the last event, whose tokens the caller may have set, and lets go of everything that no
// step in flight uses. A sequence that is in no step is gone after this.
void Scheduler::End(Sequence& sequence, FinishReason reason, const Error* error, TokenEvent event) {
  if (sequence.state == Sequence::State::kEnded) return;
  switch (reason) {
    case FinishReason::kStop:
      ++stats_.num_finished_stop;
      break;
    case FinishReason::kLength:
      ++stats_.num_finished_length;
      break;
    case FinishReason::kCancelled:
      ++stats_.num_cancelled;
      break;
    case FinishReason::kError:
      ++stats_.num_failed;
      break;
  }
  const int64_t max_tokens = sequence.sampling.max_tokens.value_or(sequence.max_output);
  ObserveEnd(RequestTimes::TimePoint::clock::now(), sequence.times, sequence.usage(), max_tokens,
             &stats_);
  event.request = sequence.id;
  event.finish = reason;
  event.error = error;
  event.usage = sequence.usage();
  sequence.sink(event);

  if (sequence.state == Sequence::State::kWaiting) waiting_.erase(sequence.precedence);
  if (sequence.state == Sequence::State::kRunning) RemoveFromRunning(sequence);
  if (sequence.num_in_flight > 0) {
    BeginDraining(sequence, Sequence::State::kEnded);
  } else {
    ReleaseBlocks(sequence);
    sequences_.erase(sequence.id);
  }
}

void Scheduler::BeginDraining(Sequence& sequence, Sequence::State state) {
  sequence.state = state;
  if (sequence.num_draining > 0) return;
  sequence.num_draining = std::ranges::count_if(
      sequence.blocks, [&](BlockId block) { return cache_.refs(block) == 1; });
  num_draining_blocks_ += sequence.num_draining;
}

// Back to the queue, at its old place; what it computed may still be found when it returns.
void Scheduler::Requeue(Sequence& sequence) {
  ReleaseBlocks(sequence);
  sequence.num_planned = sequence.num_committed = 0;
  sequence.pending_row = -1;
  MOEBIUS_CHECK_EQ(sequence.num_pending, 0);
  sequence.state = Sequence::State::kWaiting;
  waiting_.emplace(sequence.precedence, &sequence);
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  cache_.Release(sequence.blocks);
  sequence.blocks.clear();
  sequence.num_published = 0;
  num_draining_blocks_ -= sequence.num_draining;
  sequence.num_draining = 0;
}

void Scheduler::RemoveFromRunning(Sequence& sequence) {
  const auto it = std::ranges::lower_bound(running_, &sequence, [](const auto* a, const auto* b) {
    return a->precedence < b->precedence;
  });
  MOEBIUS_CHECK(it != running_.end() && *it == &sequence);
  running_.erase(it);
}

void Scheduler::ReadStats(EngineStats* stats) const {
  *stats = stats_;
  stats->num_running = static_cast<int64_t>(running_.size());
  stats->num_waiting = num_waiting();
  stats->num_kv_blocks = cache_.num_blocks();
  stats->num_used_kv_blocks = cache_.num_blocks() - cache_.num_free();
  stats->num_cached_kv_blocks = cache_.num_cached();
  stats->has_work = num_requests() > 0;
}

EngineStats Scheduler::Stats() const {
  EngineStats stats;
  ReadStats(&stats);
  return stats;
}

void Scheduler::CheckInvariants() const {
  std::vector<int32_t> holders(static_cast<size_t>(cache_.num_blocks()));
  std::vector<int32_t> writers(holders.size());
  int64_t num_draining = 0;
  for (const auto& [id, owned] : sequences_) {
    const Sequence& s = *owned;
    num_draining += s.num_draining;
    for (size_t i = 0; i < s.blocks.size(); ++i) {
      ++holders[s.blocks[i].Index()];
      // A block that this sequence may still write to.
      if (static_cast<int64_t>(i) >= s.num_published) ++writers[s.blocks[i].Index()];
    }
    MOEBIUS_CHECK_LE(s.num_committed, s.num_planned);
    MOEBIUS_CHECK_LE(s.num_planned, s.length());
    MOEBIUS_CHECK_LE(s.num_in_flight, num_steps_);
    MOEBIUS_CHECK_LE(s.num_planned, static_cast<int64_t>(s.blocks.size()) * config_.block_size);
    const bool holds_nothing = s.blocks.empty() && s.num_in_flight == 0 && s.num_planned == 0;
    MOEBIUS_CHECK(s.state != Sequence::State::kWaiting || holds_nothing);
  }
  MOEBIUS_CHECK_EQ(num_draining, num_draining_blocks_);
  int64_t num_used = 0;
  for (size_t block = 0; block < holders.size(); ++block) {
    MOEBIUS_CHECK_EQ(holders[block], cache_.refs(BlockId(static_cast<int32_t>(block))));
    MOEBIUS_CHECK(writers[block] == 0 || holders[block] == 1);
    if (holders[block] > 0) ++num_used;
  }
  MOEBIUS_CHECK_EQ(num_used, cache_.num_blocks() - cache_.num_free());
  MOEBIUS_CHECK(
      std::ranges::is_sorted(running_, {}, [](const Sequence* s) { return s->precedence; }));
}

}  // namespace moebius::engine
