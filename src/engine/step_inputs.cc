#include "engine/step_inputs.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>

#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/mla_decode.h"

namespace moebius::engine {

using kernels::AttentionForm;
using kernels::cuda::DeviceSampleRow;

namespace {

template <typename T>
std::span<T> Take(Arena& arena, int64_t count) {
  return {arena.Alloc<T>(count), static_cast<size_t>(count)};
}

bool IsPenalised(const kernels::SampleRow& row) {
  return row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}

// The row of the step before whose draw sample i does not count yet, or -1.
int32_t PendingRow(const StepPlan& plan, size_t i) {
  const TokenId token = plan.tokens[static_cast<size_t>(plan.logit_rows[i])];
  return IsPreviousRow(token) ? RowOfPrevious(token) : -1;
}

// Appends to lists that share one array.
template <typename T>
class Appender {
 public:
  explicit Appender(std::span<T> all) : all_(all) {}
  template <typename U>
  void Add(std::span<U> values) {
    std::copy(values.begin(), values.end(), all_.begin() + end_);
    end_ += static_cast<int32_t>(values.size());
  }
  void AddFree(bool wanted) {
    if (wanted) all_[static_cast<size_t>(end_++)] = T{};
  }
  int32_t end() const { return end_; }

 private:
  std::span<T> all_;
  int32_t end_ = 0;
};

template <typename T>
std::span<const T> View(const std::vector<T>& all, int64_t begin, int64_t count) {
  return std::span(all).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
}

}  // namespace

int AttentionWorkers::MaxQueries(bool decode) const {
  return form == AttentionForm::kGqa
             ? kernels::cuda::GqaQueriesPerItem(shape.num_heads, shape.num_kv_heads, decode)
             : 1;
}

int AttentionWorkers::Count(bool decode) const {
  switch (form) {
    case AttentionForm::kGqa:
      return kernels::cuda::GqaWorkers(num_sms, shape.num_heads, shape.num_kv_heads,
                                       MaxQueries(decode), static_cast<int>(shape.head_dim));
    case AttentionForm::kMla:
      return kernels::cuda::MlaDecodeWorkers(num_sms, shape.num_heads);
    case AttentionForm::kAny:
      return 0;
  }
  return 0;
}

size_t AttentionWorkers::PartialBytes() const {
  if (form == AttentionForm::kAny) return 0;
  size_t most = 0;
  for (const bool decode : {false, true}) {
    const int64_t slots = kernels::MaxAttentionSlots(Count(decode));
    most = std::max(
        most, form == AttentionForm::kMla
                  ? kernels::cuda::MlaDecodeWorkspaceBytes(slots, shape.num_heads)
                  : kernels::cuda::GqaWorkspaceBytes(slots, MaxQueries(decode), shape.num_heads,
                                                     static_cast<int>(shape.head_dim)));
  }
  return most;
}

int64_t AttentionWorkers::NumArrivals() const {
  if (form != AttentionForm::kGqa) return 0;
  int64_t most = 0;
  for (const bool decode : {false, true}) {
    most = std::max(
        most, kernels::cuda::GqaArrivals(kernels::MaxAttentionSlots(Count(decode)),
                                         MaxQueries(decode), shape.num_heads, shape.num_kv_heads));
  }
  return most;
}

StepInputs::StepInputs(Arena& rows, Arena& draws, const StepSizes& s)
    : tokens(Take<TokenId>(rows, s.rows)),
      positions(Take<Position>(rows, s.rows)),
      kv_rows(Take<int64_t>(rows, s.rows)),
      logit_rows(Take<int32_t>(rows, s.logit_rows)),
      block_table(Take<int32_t>(rows, s.seqs * s.max_blocks)),
      segments(Take<kernels::AttentionSegment>(rows, s.segments)),
      worker_begin(Take<int32_t>(rows, s.workers + 1)),
      combine(Take<kernels::AttentionRow>(rows, s.combine)),
      items(Take<kernels::AttentionItem>(rows, s.items)),
      latent_sequences(Take<kernels::LatentSequence>(rows, s.latent_sequences)),
      latent_tiles(Take<kernels::LatentTile>(rows, s.latent_tiles)),
      wishes(Take<DeviceSampleRow>(draws, s.samples)),
      pending(Take<int32_t>(draws, s.samples)),
      bias_tokens(Take<int32_t>(draws, s.bias)),
      bias_values(Take<float>(draws, s.bias)),
      seen_tokens(Take<int32_t>(draws, s.seen)),
      output_tokens(Take<int32_t>(draws, s.output)),
      output_counts(Take<int32_t>(draws, s.output)),
      banned_tokens(Take<int32_t>(draws, s.banned)),
      allowed_masks(Take<uint32_t>(draws, s.mask_words)) {}

StepInputs::Bytes StepInputs::NumBytes(const StepSizes& sizes) {
  // Arenas that only count: nothing is ever written to what they give.
  Arena rows(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  Arena draws = rows;
  StepInputs(rows, draws, sizes);
  return {rows.used(), draws.used()};
}

StagedPlan::StagedPlan(const StepPlan& plan, const AttentionWorkers& workers, int64_t bucket_rows,
                       int64_t bucket_blocks)
    : plan_(plan) {
  const bool bucketed = bucket_rows > 0;
  sizes_.rows = bucketed ? bucket_rows : plan.num_rows();
  sizes_.seqs = bucketed ? bucket_rows : plan.num_seqs();
  sizes_.max_blocks = std::max(plan.max_blocks, bucket_blocks);
  sizes_.logit_rows = bucketed ? bucket_rows : static_cast<int64_t>(plan.logit_rows.size());

  PlanAttention(workers, bucketed);
  // A rank without rows draws nothing: what the step before drew is still wanted.
  sizes_.samples = bucketed && plan.num_rows() > 0 ? bucket_rows : plan.num_samples();
  CountLists();
}

void StagedPlan::CountLists() {
  const StepPlan& plan = plan_;
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const PlannedSample& sample = plan.samples[i];
    const kernels::SampleRow& row = sample.row;
    const int64_t free = PendingRow(plan, i) >= 0 ? 1 : 0;
    const bool penalised = row.repetition_penalty != 1.0f || IsPenalised(row);
    has_open_lists_ = has_open_lists_ || (free > 0 && penalised);
    const bool has_mask = sample.mask.count > 0 || !row.allowed_mask.empty();
    has_plain_draws_ = has_plain_draws_ && !penalised && !has_mask && row.logit_bias.empty() &&
                       row.seen_tokens.empty() && sample.output.count == 0 &&
                       sample.banned.count == 0 && row.num_logprobs < 0;
    sizes_.bias += static_cast<int64_t>(row.logit_bias.size());
    sizes_.seen += static_cast<int64_t>(row.seen_tokens.size()) + free;
    sizes_.output += sample.output.count + free;
    sizes_.banned += sample.banned.count;
    sizes_.mask_words +=
        sample.mask.count > 0 ? sample.mask.count : static_cast<int64_t>(row.allowed_mask.size());
    wants_logprobs_ = wants_logprobs_ || row.num_logprobs >= 0;
  }
  // Who has no penalties may have been given places for them.
  if (has_plain_draws_) sizes_.seen = sizes_.output = 0;
}

void StagedPlan::PlanAttention(const AttentionWorkers& workers, bool bucketed) {
  using kernels::AttentionItem;
  std::vector<AttentionItem> sequences =
      kernels::AttentionItems(plan_.query_start, plan_.context_len, INT32_MAX);
  if (workers.expands_latents) {
    std::ranges::copy_if(sequences, std::back_inserter(expanded_), [](const AttentionItem& s) {
      return kernels::PaysExpanded(s.queries, s.context);
    });
    latents_ = kernels::PlanLatentPasses(
        expanded_, {.num_heads = workers.shape.num_heads, .num_sms = workers.num_sms});
    sizes_.latent_sequences = std::ssize(latents_.sequences);
    sizes_.latent_tiles = std::ssize(latents_.tiles);
  }
  if (workers.tiles_prompts) {
    tiled_ = kernels::PlanGqaPrefill(sequences, workers.shape.num_heads, workers.num_sms);
    sizes_.items = std::ssize(tiled_.tiles);
  }
  const std::vector<AttentionItem>& apart = workers.tiles_prompts ? tiled_.sequences : expanded_;
  const auto is_apart = [&](const AttentionItem& item) {
    return std::ranges::binary_search(apart, item.seq, {}, &AttentionItem::seq);
  };
  std::erase_if(sequences, is_apart);
  // A rank without rows may be padded as those that generate are. Where a row's bits depend on
  // nothing else, the form does not depend on what others do in the step.
  const bool decode =
      !workers.whole_rows &&
      std::ranges::all_of(sequences, [](const AttentionItem& s) { return s.queries <= 1; });
  max_queries_ = workers.MaxQueries(decode);
  items_ = kernels::AttentionItems(plan_.query_start, plan_.context_len, max_queries_);
  std::erase_if(items_, is_apart);
  // Rows of padding see nothing: their output is zero.
  for (int64_t row = plan_.num_rows(); row < sizes_.rows; ++row) {
    items_.push_back({.row = static_cast<int32_t>(row), .seq = 0, .context = 0, .queries = 1});
  }
  if (workers.form == AttentionForm::kAny) {
    sizes_.items = static_cast<int64_t>(items_.size());
    return;
  }
  // Where all rows attend in tiles there is nothing to launch besides.
  if (items_.empty() && !tiled_.tiles.empty()) return;
  sizes_.workers = workers.Count(decode);
  const bool in_place = workers.form == AttentionForm::kGqa;
  splits_ = kernels::SplitAttention(items_, {.num_workers = static_cast<int>(sizes_.workers),
                                             .cut_cost = in_place ? 1 : 3,
                                             .whole = workers.whole_rows,
                                             .sums_in_place = in_place});
  sizes_.segments = bucketed ? kernels::MaxAttentionSegments(sizes_.rows, sizes_.workers)
                             : static_cast<int64_t>(splits_.segments.size());
  sizes_.combine =
      bucketed && !in_place ? sizes_.rows : static_cast<int64_t>(splits_.combine.size());
}

void StagedPlan::Write(const StepInputs& inputs) const {
  WriteRows(inputs);
  WriteAttention(inputs);
  WriteDraws(inputs);
}

void StagedPlan::WriteRows(const StepInputs& in) const {
  const auto num_rows = static_cast<size_t>(plan_.num_rows());
  std::ranges::copy(plan_.tokens, in.tokens.begin());
  std::ranges::fill(in.tokens.subspan(num_rows), kernels::cuda::kPaddingToken);
  std::ranges::copy(plan_.positions, in.positions.begin());
  std::ranges::fill(in.positions.subspan(num_rows), 0);
  std::ranges::copy(plan_.kv_rows, in.kv_rows.begin());
  std::ranges::fill(in.kv_rows.subspan(num_rows), -1);
  std::ranges::copy(plan_.logit_rows, in.logit_rows.begin());
  for (size_t i = plan_.logit_rows.size(); i < in.logit_rows.size(); ++i) {
    in.logit_rows[i] = static_cast<int32_t>(i);
  }
  for (int64_t seq = 0; seq < plan_.num_seqs(); ++seq) {
    const auto from = View(plan_.block_table, seq * plan_.max_blocks, plan_.max_blocks);
    const auto to = in.block_table.subspan(static_cast<size_t>(seq * sizes_.max_blocks),
                                           static_cast<size_t>(sizes_.max_blocks));
    std::ranges::copy(from, to.begin());
    std::ranges::fill(to.subspan(from.size()), -1);
  }
}

void StagedPlan::WriteAttention(const StepInputs& in) const {
  const auto copy = [](const auto& from, const auto& to) {
    std::ranges::copy(from, to.begin());
    std::ranges::fill(to.subspan(from.size()), typename std::decay_t<decltype(to)>::value_type{});
  };
  copy(splits_.segments, in.segments);
  copy(splits_.combine, in.combine);
  if (sizes_.workers > 0) copy(splits_.worker_begin, in.worker_begin);
  if (sizes_.items > 0) copy(tiled_.tiles.empty() ? items_ : tiled_.tiles, in.items);
  copy(latents_.sequences, in.latent_sequences);
  copy(latents_.tiles, in.latent_tiles);
}

void StagedPlan::WriteDraws(const StepInputs& in) const {
  Appender<int32_t> bias(in.bias_tokens);
  Appender<int32_t> seen(in.seen_tokens);
  Appender<int32_t> output(in.output_tokens);
  Appender<int32_t> counts(in.output_counts);
  Appender<int32_t> banned(in.banned_tokens);
  Appender<uint32_t> masks(in.allowed_masks);
  // Rows of padding: whatever is quickly drawn.
  DeviceSampleRow greedy;
  greedy.temperature = 0;
  std::ranges::fill(in.wishes.subspan(plan_.samples.size()), greedy);
  std::ranges::fill(in.pending.subspan(plan_.samples.size()), -1);
  for (size_t i = 0; i < plan_.samples.size(); ++i) {
    const PlannedSample& sample = plan_.samples[i];
    const kernels::SampleRow& row = sample.row;
    const int32_t pending = PendingRow(plan_, i);
    DeviceSampleRow wish;
    wish.temperature = row.temperature;
    wish.top_k = row.top_k;
    wish.top_p = row.top_p;
    wish.min_p = row.min_p;
    wish.repetition_penalty = row.repetition_penalty;
    wish.presence_penalty = row.presence_penalty;
    wish.frequency_penalty = row.frequency_penalty;
    wish.num_logprobs = std::min(row.num_logprobs, kernels::cuda::kMaxLogprobs);
    wish.seed = row.seed;
    wish.position = row.position;
    wish.given = row.given;
    wish.bias_begin = bias.end();
    for (const auto& [id, value] : row.logit_bias) {
      in.bias_values[static_cast<size_t>(bias.end())] = value;
      bias.Add(std::span(&id, 1));
    }
    wish.bias_end = bias.end();
    wish.seen_begin = seen.end();
    seen.Add(row.seen_tokens);
    seen.AddFree(pending >= 0 && row.repetition_penalty != 1.0f);
    wish.seen_end = seen.end();
    wish.output_begin = output.end();
    output.Add(View(plan_.ids, sample.output.begin, sample.output.count));
    counts.Add(View(plan_.counts, sample.counts_begin, sample.output.count));
    output.AddFree(pending >= 0 && IsPenalised(row));
    counts.AddFree(pending >= 0 && IsPenalised(row));
    wish.output_end = output.end();
    wish.banned_begin = banned.end();
    banned.Add(View(plan_.ids, sample.banned.begin, sample.banned.count));
    wish.banned_end = banned.end();
    const auto mask = sample.mask.count > 0
                          ? View(plan_.masks, sample.mask.begin, sample.mask.count)
                          : row.allowed_mask;
    if (!mask.empty()) wish.mask_begin = masks.end();
    masks.Add(mask);
    in.wishes[i] = wish;
    in.pending[i] = pending;
  }
}

bool IsDecode(const StepPlan& plan) {
  return plan.num_rows() > 0 && plan.num_rows() == plan.num_seqs() &&
         plan.num_samples() == plan.num_rows();
}

int64_t RowBucket(int64_t rows) {
  if (rows <= 8) return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  const int64_t step = rows <= 64 ? 8 : rows <= 256 ? 32 : 64;
  return (rows + step - 1) / step * step;
}

int64_t MaxStepRows(int64_t max_rows, int64_t max_seqs) {
  return std::max(max_rows, RowBucket(max_seqs));
}

int64_t BlockBucket(int64_t blocks) {
  return std::max<int64_t>(8, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(blocks))));
}

}  // namespace moebius::engine
