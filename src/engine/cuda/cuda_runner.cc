#include "engine/cuda/cuda_runner.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/kv_memory.h"
#include "kernels/cuda/rows/sample.h"
#include "model/model_config.h"
#include "moe/exchange/exchange.h"
#include "platform/cuda/device.h"
#include "platform/cuda/trace_range.h"

namespace moebius::engine {

using platform::cuda::CopyAsync;
using platform::cuda::DeviceMemory;
using platform::cuda::PinnedMemory;
using platform::cuda::TraceRange;

namespace {

// Logits come in pieces of so many rows where prompt tokens are scored.
constexpr int64_t kMinLogitRows = 32;

AttentionWorkers WorkersOf(const model::Model& model, const ModelRunnerOptions& options,
                           int num_sms) {
  const model::AttentionConfig& attention = model.config().attention;
  const bool mla = attention.kind == model::AttentionKind::kMla;
  AttentionWorkers workers;
  workers.num_sms = num_sms;
  workers.shape.mla = mla;
  workers.shape.act = model.activations();
  const int64_t parts = model.num_head_parts();
  workers.shape.num_heads = static_cast<int>(attention.num_heads / parts);
  workers.shape.num_kv_heads =
      mla ? 1 : static_cast<int>(std::max<int64_t>(1, attention.num_kv_heads / parts));
  workers.shape.head_dim =
      mla ? attention.kv_lora_rank + attention.qk_rope_head_dim : attention.head_dim;
  workers.shape.v_head_dim = mla ? attention.kv_lora_rank : attention.head_dim;
  workers.shape.block_size = options.block_size;
  workers.shape.nope_dim = attention.qk_nope_head_dim;
  workers.shape.value_dim = attention.v_head_dim;
  workers.form = kernels::ChooseAttentionForm(workers.shape);
  // Rounded elsewhere than absorbed, and chosen by the length of a chunk.
  workers.expands_latents = mla && !options.deterministic && kernels::FitsExpanded(workers.shape) &&
                            model.backend().mla_prefill != nullptr;
  return workers;
}

StepSizes MostSizes(const ModelRunnerOptions& options, const AttentionWorkers& workers,
                    int64_t rows, int64_t seqs) {
  StepSizes most;
  most.rows = rows;
  most.seqs = seqs;
  most.max_blocks =
      BlockBucket((options.max_model_len + options.block_size - 1) / options.block_size);
  most.logit_rows = rows;
  most.workers = std::max(workers.Count(true), workers.Count(false));
  most.segments = kernels::MaxAttentionSegments(rows, most.workers);
  most.combine = rows;
  most.items = rows;
  most.latent_sequences = rows;
  most.latent_tiles = rows;
  most.samples = rows;
  return most;
}

template <typename T>
std::span<T> Take(Arena& arena, int64_t count) {
  return {arena.Alloc<T>(count), static_cast<size_t>(count)};
}

Arena ArenaOf(const auto& memory) { return Arena(memory.data(), memory.size()); }

// In the device's memory: pointers are followed there alone.
kernels::cuda::StagedAttention StageAttention(const StagedPlan& staged, const StepInputs& in,
                                              const ModelRunnerOptions& options, void* partials) {
  kernels::cuda::StagedAttention attention;
  attention.block_table = in.block_table.data();
  attention.max_blocks = staged.sizes().max_blocks;
  attention.block_size = static_cast<int>(options.block_size);
  attention.max_queries = staged.max_queries();
  attention.segments = in.segments.data();
  attention.worker_begin = in.worker_begin.data();
  attention.num_workers = static_cast<int>(staged.sizes().workers);
  attention.combine = in.combine.data();
  attention.num_combine = staged.sizes().combine;
  attention.partials = partials;
  attention.max_slots = kernels::MaxAttentionSlots(staged.sizes().workers);
  attention.items = in.items.data();
  attention.num_items = staged.sizes().items;
  attention.sequences = in.latent_sequences.data();
  attention.tiles = in.latent_tiles.data();
  attention.passes = staged.latent_passes();
  return attention;
}

}  // namespace

CudaRunner::Drawn::Drawn(Arena& arena, int64_t draws)
    : tokens(Take<int32_t>(arena, draws)),
      logprobs(Take<float>(arena, draws)),
      ranks(Take<int32_t>(arena, draws)),
      top_tokens(Take<int32_t>(arena, draws * kernels::cuda::kMaxLogprobs)),
      top_logprobs(Take<float>(arena, draws * kernels::cuda::kMaxLogprobs)) {}

CudaRunner::Sizes CudaRunner::SizesOf(const model::Model& model, const ModelRunnerOptions& options,
                                      int num_sms) {
  const AttentionWorkers workers = WorkersOf(model, options, num_sms);
  Sizes sizes;
  sizes.rows = MaxStepRows(options.max_rows, options.max_samples);
  if (model.has_head()) {
    sizes.logit_rows =
        std::min(sizes.rows, std::max(RowBucket(options.max_samples), kMinLogitRows));
  }
  sizes.draws = sizes.rows;
  sizes.workspace_bytes =
      model.WorkspaceBytes(sizes.rows, sizes.logit_rows, workers.expands_latents) +
      Arena::kAlignment;
  sizes.logits_bytes = static_cast<size_t>(sizes.logit_rows * options.vocab_size) * sizeof(float);
  const StepInputs::Bytes inputs =
      StepInputs::NumBytes(MostSizes(options, workers, sizes.rows, sizes.rows));
  sizes.input_bytes = inputs.rows + Arena::kAlignment + inputs.draws;
  sizes.partial_bytes = workers.PartialBytes();
  Arena counting(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  Drawn(counting, sizes.draws);
  sizes.output_bytes = counting.used();
  return sizes;
}

CudaRunner::CudaRunner(std::unique_ptr<model::Model> model,
                       std::unique_ptr<platform::ThreadPool> pool,
                       const ModelRunnerOptions& options, DeviceRank rank)
    : options_(options),
      rank_(std::move(rank)),
      pool_(std::move(pool)),
      model_(std::move(model)),
      counters_(rank_.counters != nullptr ? *rank_.counters : own_counters_) {}

CudaRunner::~CudaRunner() {
  // Nothing is freed that the device still uses; what it has to say about it no longer matters.
  if (stream().get() != nullptr) (void)stream().Synchronize();
  if (num_replays_ == 0) return;
  const auto us = [&](double seconds) { return seconds / static_cast<double>(num_replays_) * 1e6; };
  const QueueTimes& t = replay_times_;
  LogDebug(
      "{} of {} steps were replays of {} graphs, each queued in {:.0f} us of the host: staging "
      "{:.1f}, copies in {:.1f}, graph {:.1f}, draws and copies out {:.1f}",
      num_replays_, num_launched_, graphs_.size(), us(t.staging + t.inputs + t.graph + t.outputs),
      us(t.staging), us(t.inputs), us(t.graph), us(t.outputs));
}

Status CudaRunner::Allocate() {
  MOEBIUS_ASSIGN(const platform::cuda::DeviceInfo info, platform::cuda::CurrentDevice());
  workers_ = WorkersOf(*model_, options_, info.num_multiprocessors);
  sizes_ = SizesOf(*model_, options_, info.num_multiprocessors);
  if (rank_.stream == nullptr) {
    MOEBIUS_ASSIGN(own_stream_, platform::cuda::Stream::Create());
  }
  auto dense = kernels::cuda::DenseProducts::Create();
  if (dense) {
    dense_ = std::move(*dense);
  } else {
    LogWarning("dense products are slow: {}", dense.error().message());
  }
  device_.stream = stream().get();
  device_.num_sms = info.num_multiprocessors;
  device_.dense = dense_.get();
  device_.deterministic = options_.deterministic;
  MOEBIUS_ASSIGN(workspace_memory_, DeviceMemory::Allocate(sizes_.workspace_bytes));
  workspace_ = ArenaOf(workspace_memory_);
  context_ = {&model_->backend(), pool_.get(), &workspace_, &device_};
  MOEBIUS_ASSIGN(logits_, DeviceMemory::Allocate(sizes_.logits_bytes));
  MOEBIUS_ASSIGN(raw_logits_, DeviceMemory::Allocate(sizes_.logits_bytes));
  MOEBIUS_ASSIGN(rows_, DeviceMemory::Allocate(sizes_.input_bytes));
  MOEBIUS_ASSIGN(partials_, DeviceMemory::Allocate(sizes_.partial_bytes));
  MOEBIUS_ASSIGN(outputs_, DeviceMemory::Allocate(sizes_.output_bytes));
  // The first step may read what a step before it would have drawn.
  MOEBIUS_TRY(platform::cuda::FillAsync(outputs_.data(), 0, sizes_.output_bytes, stream()));
  MOEBIUS_TRY(AllocateSlots());
  MOEBIUS_TRY(GrowDraws(size_t{1} << 20));
  MOEBIUS_TRY(model_->PreparePositions(options_.max_model_len, *pool_));
  return AllocateKv();
}

Status CudaRunner::AllocateSlots() {
  const size_t count_bytes = model_->expert_stats().counts().size_bytes();
  for (Slot& slot : slots_) {
    MOEBIUS_ASSIGN(slot.rows, PinnedMemory::Allocate(sizes_.input_bytes));
    MOEBIUS_ASSIGN(slot.outputs, PinnedMemory::Allocate(sizes_.output_bytes));
    MOEBIUS_ASSIGN(slot.counts, PinnedMemory::Allocate(options_.counts_experts ? count_bytes : 0));
    MOEBIUS_ASSIGN(slot.begin, platform::cuda::Event::Create(/*timing=*/true));
    MOEBIUS_ASSIGN(slot.end, platform::cuda::Event::Create(/*timing=*/true));
  }
  return {};
}

// Lists of penalties and masks have no bound worth reserving for: the blocks grow when they must,
// and only then a step waits.
Status CudaRunner::GrowDraws(size_t num_bytes) {
  if (num_bytes <= draws_.size()) return {};
  MOEBIUS_TRY(stream().Synchronize());
  const size_t room = std::max(num_bytes, 2 * draws_.size());
  MOEBIUS_ASSIGN(draws_, DeviceMemory::Allocate(room));
  for (Slot& slot : slots_) {
    MOEBIUS_ASSIGN(slot.draws, PinnedMemory::Allocate(room));
  }
  return {};
}

Status CudaRunner::AllocateKv() {
  const int64_t num_rows = options_.num_blocks * options_.block_size;
  const std::vector<model::KvLayerSpec> layers = model_->KvLayers();
  MOEBIUS_ASSIGN(kv_, DeviceMemory::Allocate(KvCacheBytes(layers, num_rows)));
  model_->BindKv(LayOutKv(kv_.data(), layers, num_rows));
  return {};
}

StepHandle CudaRunner::Launch(const StepPlan& plan) { return Launch(plan, nullptr); }

StepHandle CudaRunner::Launch(const StepPlan& plan, const SharedStep* shared) {
  MOEBIUS_CHECK_LT(num_launched_ - num_waited_, kMaxStepsInFlight);
  Slot& slot = SlotAt(num_launched_);
  slot.plan = &plan;
  slot.step = shared != nullptr ? shared->step : plan.step_id;
  slot.dp_rows = shared != nullptr ? shared->dp_rows : std::vector<int64_t>();
  slot.epoch = shared != nullptr ? shared->epoch : 0;
  const int64_t num_replays = num_replays_;
  QueueTimes times;
  SetShared(shared);
  slot.queued = Queue(plan, slot, times);
  if (slot.queued) slot.queued = device_.TakeError();
  if (num_replays_ > num_replays) replay_times_.Add(times);
  ++num_launched_;
  if (plan.num_rows() > 0) last_step_ = plan.step_id;  // a peer's is nobody's previous one
  return {plan.step_id};
}

// What the passes of the step are told of the peers' rows. Padded to a bucket that holds the
// fullest rank's, whatever this one has: a graph then serves all steps of that size, and all ranks
// take the same number of chunks. Where the peers must know rows exactly, this rank's are padded to
// that bucket, too.
void CudaRunner::SetShared(const SharedStep* shared) {
  pads_ = rank_.pads || (shared != nullptr && shared->pads);
  peer_rows_.clear();
  moe_chunks_ = 0;
  if (shared == nullptr || shared->dp_rows.empty()) return;
  peer_rows_ = shared->dp_rows;
  const int64_t most = std::ranges::max(peer_rows_);
  const int64_t padded = pads_ ? std::min(RowBucket(most), sizes_.rows) : most;
  if (pads_) std::ranges::fill(peer_rows_, padded);
  moe_chunks_ = model_->NumMoeChunks(padded);
}

Status CudaRunner::Queue(const StepPlan& plan, Slot& slot, QueueTimes& times) {
  const TraceRange range(IsDecode(plan) ? "queue decode step" : "queue step with prompts");
  auto since = std::chrono::steady_clock::now();
  const auto lap = [&] {
    const auto begin = std::exchange(since, std::chrono::steady_clock::now());
    return std::chrono::duration<double>(since - begin).count();
  };
  const bool has_previous = std::ranges::any_of(plan.tokens, IsPreviousRow);
  if (has_previous) MOEBIUS_CHECK_EQ(plan.previous_step, last_step_);
  // A rank without rows takes part in its peers' step, by a graph of its own. Where a peer's rows
  // are those of prompts no two steps are alike.
  const int64_t peer_rows = peer_rows_.empty() ? 0 : peer_rows_.front();
  const bool decode = options_.device_graphs && rank_.graphs && pads_ &&
                      peer_rows <= RowBucket(options_.max_samples) &&
                      (IsDecode(plan) || plan.num_rows() == 0);
  const int64_t own_rows = plan.num_rows() == 0 ? 0 : RowBucket(plan.num_rows());
  GraphKey key = {.rows = rank_.pads ? own_rows : peer_rows,
                  .is_idle = plan.num_rows() == 0,
                  .blocks = BlockBucket(plan.max_blocks),
                  .peer_rows = peer_rows};
  const StagedPlan staged(plan, workers_, decode ? key.rows : 0, decode ? key.blocks : 0);
  const StepInputs::Bytes bytes = StepInputs::NumBytes(staged.sizes());
  MOEBIUS_CHECK_LE(bytes.rows, rows_.size());
  // Draws without lists fit behind the rows, and one copy takes both.
  const bool together = bytes.rows + Arena::kAlignment + bytes.draws <= rows_.size();
  if (!together) MOEBIUS_TRY(GrowDraws(bytes.draws));
  const bool is_whole = decode && together && staged.has_plain_draws();
  if (is_whole) key.slot = num_launched_ % kMaxStepsInFlight;
  Arena host_rows = ArenaOf(slot.rows);
  Arena host_draws = ArenaOf(slot.draws);
  staged.Write(StepInputs(host_rows, together ? host_rows : host_draws, staged.sizes()));
  Arena rows = ArenaOf(rows_);
  Arena draws = ArenaOf(draws_);
  const StepInputs device(rows, together ? rows : draws, staged.sizes());
  times.staging = lap();

  const auto inputs = [&]() -> Status {
    MOEBIUS_TRY(CopyAsync(rows_.data(), slot.rows.data(), rows.used(), stream()));
    MOEBIUS_TRY(CopyAsync(draws_.data(), slot.draws.data(), draws.used(), stream()));
    return QueueResolve(staged, device);
  };
  const auto forward = [&]() -> Status {
    MOEBIUS_TRY(Forward(staged, device, /*samples_inside=*/!decode));
    slot.mode = ModeOfPass();
    return {};
  };
  const auto outputs = [&]() -> Status {
    if (decode) {
      Draw(staged, device, 0,
           Mat(logits_.data(), DType::kF32, staged.sizes().samples, options_.vocab_size));
    }
    return QueueOutputs(staged, slot);
  };
  const auto whole = [&]() -> Status {
    MOEBIUS_TRY(inputs());
    MOEBIUS_TRY(forward());
    return outputs();
  };
  MOEBIUS_TRY(slot.begin.Record(stream()));
  if (is_whole) {
    MOEBIUS_TRY(RunGraph(key, whole, slot));
    times.graph = lap();
  } else if (decode) {
    MOEBIUS_TRY(inputs());
    times.inputs = lap();
    MOEBIUS_TRY(RunGraph(key, forward, slot));
    times.graph = lap();
    MOEBIUS_TRY(outputs());
  } else {
    MOEBIUS_TRY(whole());
  }
  MOEBIUS_TRY(slot.end.Record(stream()));
  times.outputs = lap();
  return {};
}

Status CudaRunner::QueueResolve(const StagedPlan& staged, const StepInputs& device) {
  Arena arena = ArenaOf(outputs_);
  const Drawn drawn(arena, sizes_.draws);
  kernels::cuda::ResolveLaunch resolve;
  resolve.tokens = device.tokens.data();
  resolve.rows = staged.sizes().rows;
  resolve.sampled = drawn.tokens.data();
  resolve.pending = device.pending.data();
  resolve.samples = staged.has_open_lists() ? staged.sizes().samples : 0;
  resolve.wishes = device.wishes.data();
  resolve.seen_tokens = device.seen_tokens.data();
  resolve.output_tokens = device.output_tokens.data();
  resolve.output_counts = device.output_counts.data();
  return platform::cuda::ToStatus(kernels::cuda::LaunchResolve(resolve, stream().get()),
                                  "putting drawn tokens in place");
}

Status CudaRunner::Forward(const StagedPlan& staged, const StepInputs& device,
                           bool samples_inside) {
  const kernels::cuda::StagedAttention attention =
      StageAttention(staged, device, options_, partials_.data());
  model::ForwardBatch batch;
  batch.tokens = device.tokens;
  batch.positions = device.positions;
  batch.kv_rows = device.kv_rows;
  batch.attention.block_size = options_.block_size;
  batch.attention.staged = &attention;
  batch.attention.expanded = staged.expanded();
  batch.logit_rows = device.logit_rows;
  batch.dp_rows = peer_rows_;
  batch.moe_chunks = moe_chunks_;
  batch.counts_experts = options_.expert_statistics;
  // A graph's rows are all of requests that generate, however many of its bucket a plan fills.
  batch.num_decodes =
      samples_inside ? staged.num_decodes() : static_cast<int64_t>(device.tokens.size());
  int64_t logit_rows = static_cast<int64_t>(device.logit_rows.size());
  if (samples_inside) {
    logit_rows = std::min(logit_rows, sizes_.logit_rows);
    batch.take_logits = [&](int64_t first, Mat logits) { Draw(staged, device, first, logits); };
  }
  const ArenaScope scope(workspace_);
  model_->Forward(context_, batch,
                  Mat(logits_.data(), DType::kF32, logit_rows, options_.vocab_size), Mat());
  return device_.TakeError();
}

Status CudaRunner::RunGraph(const GraphKey& key, const std::function<Status()>& work, Slot& slot) {
  if (const auto it = graphs_.find(key); it != graphs_.end()) {
    const TraceRange range("replay graph");
    ++num_replays_;
    slot.mode = it->second.mode;
    return it->second.graph.Launch(stream());
  }
  // The first time kernels are loaded, which a capture does not allow.
  GraphKey of_any_slot = key;
  of_any_slot.slot = -1;
  if (seen_keys_.insert(of_any_slot).second) return work();
  const TraceRange range("capture graph");
  MOEBIUS_ASSIGN(platform::cuda::Graph graph, platform::cuda::Graph::Capture(stream(), work));
  const auto made = graphs_.emplace(key, Captured{std::move(graph), slot.mode}).first;
  return made->second.graph.Launch(stream());
}

moe::ExchangeMode CudaRunner::ModeOfPass() const {
  const moe::Exchange* const exchange = model_->exchange();
  return exchange != nullptr ? exchange->mode() : moe::ExchangeMode::kAuto;
}

// A stream's parts are not told apart: all of it counts as one.
void CudaRunner::Count(const Slot& slot, double seconds) {
  const int64_t rows = slot.plan->num_rows();
  counters_.Add({.num_steps = 1,
                 .num_empty_steps = rows == 0 ? 1 : 0,
                 .num_rows = rows,
                 .num_latency_steps = slot.mode == moe::ExchangeMode::kLatency ? 1 : 0,
                 .num_throughput_steps = slot.mode == moe::ExchangeMode::kThroughput ? 1 : 0,
                 .last_step = slot.step,
                 .seconds = seconds,
                 .parts = {.other = seconds}});
}

void CudaRunner::Draw(const StagedPlan& staged, const StepInputs& device, int64_t first,
                      Mat logits) {
  if (!rank_.draws) return;
  Arena arena = ArenaOf(outputs_);
  const Drawn drawn(arena, sizes_.draws);
  kernels::cuda::StagedSample sample;
  sample.launch.wishes = device.wishes.data() + first;
  sample.launch.bias_tokens = device.bias_tokens.data();
  sample.launch.bias_values = device.bias_values.data();
  sample.launch.seen_tokens = device.seen_tokens.data();
  sample.launch.output_tokens = device.output_tokens.data();
  sample.launch.output_counts = device.output_counts.data();
  sample.launch.banned_tokens = device.banned_tokens.data();
  sample.launch.allowed_masks = device.allowed_masks.data();
  sample.launch.raw = reinterpret_cast<float*>(raw_logits_.data());
  sample.launch.tokens = drawn.tokens.data() + first;
  sample.launch.logprobs = drawn.logprobs.data() + first;
  sample.launch.ranks = drawn.ranks.data() + first;
  sample.launch.top_tokens = drawn.top_tokens.data() + first * kernels::cuda::kMaxLogprobs;
  sample.launch.top_logprobs = drawn.top_logprobs.data() + first * kernels::cuda::kMaxLogprobs;
  sample.launch.top_stride = kernels::cuda::kMaxLogprobs;
  kernels::SampleArgs args;
  args.logits = logits;
  args.staged = &sample;
  kernels::Sample(context_, args);
}

Status CudaRunner::QueueOutputs(const StagedPlan& staged, const Slot& slot) {
  Arena from_arena = ArenaOf(outputs_);
  Arena to_arena = ArenaOf(slot.outputs);
  const Drawn from(from_arena, sizes_.draws);
  const Drawn to(to_arena, sizes_.draws);
  // Where log probabilities are wanted no graph needs all of its bucket.
  const auto count = static_cast<size_t>(staged.wants_logprobs() ? slot.plan->num_samples()
                                                                 : staged.sizes().samples);
  const auto copy = [&](auto to_list, auto from_list, size_t length) {
    return CopyAsync(to_list.data(), from_list.data(), from_list.first(length).size_bytes(),
                     stream());
  };
  if (rank_.draws) MOEBIUS_TRY(copy(to.tokens, from.tokens, count));
  if (rank_.draws && staged.wants_logprobs()) {
    MOEBIUS_TRY(copy(to.logprobs, from.logprobs, count));
    MOEBIUS_TRY(copy(to.ranks, from.ranks, count));
    MOEBIUS_TRY(copy(to.top_tokens, from.top_tokens, count * kernels::cuda::kMaxLogprobs));
    MOEBIUS_TRY(copy(to.top_logprobs, from.top_logprobs, count * kernels::cuda::kMaxLogprobs));
  }
  const std::span<const int64_t> counts = model_->expert_counts();
  if (slot.counts.size() == 0) return {};
  return CopyAsync(slot.counts.data(), counts.data(), counts.size_bytes(), stream());
}

Result<StepOutput> CudaRunner::Wait(StepHandle step, std::chrono::milliseconds timeout) {
  const TraceRange range("wait for step");
  MOEBIUS_CHECK_LT(num_waited_, num_launched_);
  Slot& slot = SlotAt(num_waited_);
  MOEBIUS_CHECK_EQ(slot.plan->step_id, step.step_id);
  Result<StepOutput> output = StepOutput();
  if (num_waited_ < num_skipped_) {
    output = MakeError(ErrorCode::kCancelled, "step {} was not run: a step before it failed",
                       step.step_id);
  } else if (!slot.queued) {
    output = tl::unexpected(slot.queued.error());
  } else {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point deadline = Clock::now() + timeout;
    Result<bool> done = slot.end.Done();
    for (int i = 0; done && !*done; ++i) {
      if (Clock::now() >= deadline) {
        return MakeError(ErrorCode::kDeadline, "step {} is not done after {} ms", step.step_id,
                         timeout.count());
      }
      // Short steps end within microseconds of each other; a core is not burnt on long ones.
      if (i > 200) std::this_thread::sleep_for(std::chrono::microseconds(20));
      done = slot.end.Done();
    }
    output = done ? Read(slot) : Result<StepOutput>(tl::unexpected(done.error()));
    if (const Status status = PeersStatus(); output && !status) {
      output = tl::unexpected(status.error());
    }
  }
  if (output) Count(slot, output->device_seconds);
  ++num_waited_;
  if (!output && output.error().code() != ErrorCode::kCancelled) num_skipped_ = num_launched_;
  return output;
}

Status CudaRunner::PeersStatus() const { return rank_.status ? rank_.status() : Status(); }

bool CudaRunner::IsNextDone() {
  MOEBIUS_CHECK_LT(num_waited_, num_launched_);
  const Slot& slot = SlotAt(num_waited_);
  if (num_waited_ < num_skipped_ || !slot.queued) return true;
  const Result<bool> done = slot.end.Done();
  return !done || *done;
}

Result<StepOutput> CudaRunner::Read(const Slot& slot) {
  const StepPlan& plan = *slot.plan;
  StepOutput output;
  output.step_id = plan.step_id;
  MOEBIUS_ASSIGN(const float milliseconds, slot.end.MillisecondsSince(slot.begin));
  output.device_seconds = static_cast<double>(milliseconds) * 1e-3;
  output.exchange_mode = slot.mode;
  output.dp_rows = slot.dp_rows;
  output.epoch = slot.epoch;
  Arena arena = ArenaOf(slot.outputs);
  const Drawn drawn(arena, sizes_.draws);
  for (size_t i = 0; rank_.draws && i < plan.samples.size(); ++i) {
    const int32_t num_logprobs = plan.samples[i].row.num_logprobs;
    SampledToken token;
    token.token = drawn.tokens[i];
    if (num_logprobs >= 0) {
      token.logprob = drawn.logprobs[i];
      token.rank = drawn.ranks[i];
      token.top_begin = static_cast<int64_t>(output.top_tokens.size());
      token.num_top = num_logprobs;
      for (size_t j = 0; j < static_cast<size_t>(num_logprobs); ++j) {
        output.top_tokens.push_back(drawn.top_tokens[i * kernels::cuda::kMaxLogprobs + j]);
        output.top_logprobs.push_back(drawn.top_logprobs[i * kernels::cuda::kMaxLogprobs + j]);
      }
    }
    output.sampled.push_back(token);
  }
  if (options_.counts_experts) {
    // A stream's parts are not told apart: all of it counts as one.
    output.parts.other = output.device_seconds;
    const std::span counts(reinterpret_cast<const int64_t*>(slot.counts.data()),
                           slot.counts.size() / sizeof(int64_t));
    last_counts_.resize(counts.size() / 2);  // those of prompts come after all
    output.num_experts = model_->config().moe.num_experts;
    output.experts_per_token = model_->config().moe.top_k;
    for (size_t i = 0; i < last_counts_.size(); ++i) {
      output.expert_counts.push_back(static_cast<int32_t>(counts[i] - last_counts_[i]));
      last_counts_[i] = counts[i];
    }
  }
  return output;
}

moe::ExpertStats CudaRunner::ExpertLoad() const {
  const std::lock_guard lock(stats_mutex_);
  return model_->expert_stats();
}

uint64_t DeviceWorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options) {
  const auto info = platform::cuda::CurrentDevice();
  return CudaRunner::SizesOf(model, options, info ? info->num_multiprocessors : 1).Total();
}

Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> model,
                                                     std::unique_ptr<platform::ThreadPool> pool,
                                                     const ModelRunnerOptions& options) {
  auto runner = std::make_unique<CudaRunner>(std::move(model), std::move(pool), options);
  MOEBIUS_TRY(runner->Allocate());
  return runner;
}

}  // namespace moebius::engine
