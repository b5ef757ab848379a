#include "engine/cuda/cuda_runner.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/kv_memory.h"
#include "kernels/cuda/ops/staged.h"
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

const char* NameOfQueueing(const StepPlan& plan) {
  if (plan.num_rows() == 0) return "queue peers' step";
  return IsDecode(plan) ? "queue decode step" : "queue step with prompts";
}

// In the device's memory: pointers are followed there alone.
kernels::cuda::StagedAttention StageAttention(const StagedPlan& staged, const StepInputs& in,
                                              const ModelRunnerOptions& options, void* partials,
                                              void* arrivals) {
  kernels::cuda::StagedAttention attention;
  attention.block_table = in.block_table.data();
  attention.max_blocks = staged.sizes().max_blocks;
  attention.block_size = static_cast<int>(options.block_size);
  attention.max_queries = staged.max_queries();
  attention.segments = in.segments.data();
  attention.num_segments = staged.sizes().segments;
  attention.worker_begin = in.worker_begin.data();
  attention.num_workers = static_cast<int>(staged.sizes().workers);
  attention.combine = in.combine.data();
  attention.num_combine = staged.sizes().combine;
  attention.partials = partials;
  attention.max_slots = kernels::MaxAttentionSlots(staged.sizes().workers);
  attention.arrivals = static_cast<int32_t*>(arrivals);
  attention.items = in.items.data();
  attention.num_items = staged.sizes().items;
  attention.num_tiled_keys = staged.num_tiled_keys();
  attention.sequences = in.latent_sequences.data();
  attention.tiles = in.latent_tiles.data();
  attention.passes = staged.latent_passes();
  return attention;
}

}  // namespace

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
  if (graphs_.num_replays() == 0) return;
  const auto us = [&](double seconds) {
    return seconds / static_cast<double>(graphs_.num_replays()) * 1e6;
  };
  const QueueTimes& t = replay_times_;
  LogDebug(
      "{} of {} steps were replays of {} graphs, each queued in {:.0f} us of the host: staging "
      "{:.1f}, copies in {:.1f}, graph {:.1f}, draws and copies out {:.1f}",
      graphs_.num_replays(), num_launched_, graphs_.size(),
      us(t.staging + t.inputs + t.graph + t.outputs), us(t.staging), us(t.inputs), us(t.graph),
      us(t.outputs));
}

Status CudaRunner::Allocate() {
  MOEBIUS_ASSIGN(const platform::cuda::DeviceInfo info, platform::cuda::CurrentDevice());
  workers_ = WorkersOf(*model_, options_, info.num_multiprocessors);
  sizes_ = SizesOf(*model_, options_, workers_);
  if (rank_.stream == nullptr) {
    MOEBIUS_ASSIGN(own_stream_, platform::cuda::Stream::Create());
  }
  MOEBIUS_TRY(AllocateQueues(info.num_multiprocessors));
  MOEBIUS_ASSIGN(logits_, DeviceMemory::Allocate(sizes_.logits_bytes));
  MOEBIUS_ASSIGN(partials_, DeviceMemory::Allocate(sizes_.partial_bytes));
  MOEBIUS_ASSIGN(arrivals_, DeviceMemory::Allocate(sizes_.arrival_bytes));
  MOEBIUS_TRY(platform::cuda::FillAsync(arrivals_.data(), 0, arrivals_.size(), stream()));
  MOEBIUS_TRY(draws_.Allocate(sizes_.draws, rank_.draws, stream()));
  MOEBIUS_TRY(blocks_.Allocate(sizes_.input_bytes, stream()));
  const size_t count_bytes = model_->expert_stats().counts().size_bytes();
  for (Slot& slot : slots_) {
    MOEBIUS_ASSIGN(slot.drawn, PinnedMemory::Allocate(sizes_.draw_bytes));
    MOEBIUS_ASSIGN(slot.counts, PinnedMemory::Allocate(options_.counts_experts ? count_bytes : 0));
    MOEBIUS_ASSIGN(slot.begin, platform::cuda::Event::Create(/*timing=*/true));
    MOEBIUS_ASSIGN(slot.end, platform::cuda::Event::Create(/*timing=*/true));
  }
  MOEBIUS_TRY(model_->PreparePositions(options_.max_model_len, *pool_));
  return AllocateKv();
}

Status CudaRunner::AllocateQueues(int num_sms) {
  DeviceQueue::Options options = {.backend = &model_->backend(),
                                  .pool = pool_.get(),
                                  .num_sms = num_sms,
                                  .deterministic = options_.deterministic,
                                  .meeting_bytes = sizes_.meeting_bytes,
                                  .workspace_bytes = sizes_.workspace_bytes};
  MOEBIUS_TRY(queue_.Allocate(stream(), options));
  if (sizes_.beside_bytes == 0) return {};
  MOEBIUS_ASSIGN(beside_stream_, platform::cuda::Stream::Create());
  options.workspace_bytes = sizes_.beside_bytes;
  MOEBIUS_TRY(beside_.Allocate(beside_stream_, options));
  MOEBIUS_TRY(beside_stream_.Synchronize());
  queue_.context().beside = &beside_.context();
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
  const int64_t num_replays = graphs_.num_replays();
  QueueTimes times;
  SetShared(shared);
  slot.queued = Queue(plan, slot, times);
  if (slot.queued) slot.queued = queue_.TakeError();
  if (graphs_.num_replays() > num_replays) replay_times_.Add(times);
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
  const TraceRange range(NameOfQueueing(plan));
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
  const int64_t slot_index = num_launched_ % kMaxStepsInFlight;
  MOEBIUS_ASSIGN(const StepBlocks::Written written, blocks_.Write(staged, slot_index));
  const StepInputs& device = written.device;
  const bool is_whole = decode && written.is_one && staged.has_plain_draws();
  if (is_whole) key.slot = slot_index;
  times.staging = lap();

  const auto inputs = [&]() -> Status {
    MOEBIUS_TRY(blocks_.QueueCopy(written, slot_index));
    return draws_.QueueResolve(staged, device);
  };
  const auto forward = [&]() -> Status {
    MOEBIUS_TRY(Forward(staged, device, /*samples_inside=*/!decode));
    slot.mode = ModeOfPass();
    return {};
  };
  const auto outputs = [&]() -> Status {
    if (decode) {
      draws_.Draw(queue_.context(), device, 0,
                  Mat(logits_.data(), DType::kF32, staged.sizes().samples, options_.vocab_size));
    }
    MOEBIUS_TRY(draws_.QueueCopy(staged, plan.num_samples(), slot.drawn));
    if (slot.counts.size() == 0) return {};
    const std::span<const int64_t> counts = model_->expert_counts();
    return CopyAsync(slot.counts.data(), counts.data(), counts.size_bytes(), stream());
  };
  const auto whole = [&]() -> Status {
    MOEBIUS_TRY(inputs());
    MOEBIUS_TRY(forward());
    return outputs();
  };
  MOEBIUS_TRY(slot.begin.Record(stream()));
  if (is_whole) {
    MOEBIUS_TRY(graphs_.Run(key, stream(), whole, &slot.mode));
    times.graph = lap();
  } else if (decode) {
    MOEBIUS_TRY(inputs());
    times.inputs = lap();
    MOEBIUS_TRY(graphs_.Run(key, stream(), forward, &slot.mode));
    times.graph = lap();
    MOEBIUS_TRY(outputs());
  } else {
    MOEBIUS_TRY(whole());
  }
  MOEBIUS_TRY(slot.end.Record(stream()));
  times.outputs = lap();
  return {};
}

Status CudaRunner::Forward(const StagedPlan& staged, const StepInputs& device,
                           bool samples_inside) {
  const kernels::cuda::StagedAttention attention =
      StageAttention(staged, device, options_, partials_.data(), arrivals_.data());
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
  model::PartTimes parts;  // of the queueing alone; the names are for profilers
  parts.mark = platform::cuda::MarkTraceRange;
  batch.times = &parts;
  // A graph's rows are all of requests that generate, however many of its bucket a plan fills.
  batch.num_decodes =
      samples_inside ? staged.num_decodes() : static_cast<int64_t>(device.tokens.size());
  int64_t logit_rows = static_cast<int64_t>(device.logit_rows.size());
  if (samples_inside) {
    logit_rows = std::min(logit_rows, sizes_.logit_rows);
    batch.take_logits = [&](int64_t first, Mat logits) {
      draws_.Draw(queue_.context(), device, first, logits);
    };
  }
  const ArenaScope scope(queue_.workspace());
  model_->Forward(queue_.context(), batch,
                  Mat(logits_.data(), DType::kF32, logit_rows, options_.vocab_size), Mat());
  return queue_.TakeError();
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
  draws_.Read(plan, slot.drawn, &output);
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

Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> model,
                                                     std::unique_ptr<platform::ThreadPool> pool,
                                                     const ModelRunnerOptions& options) {
  auto runner = std::make_unique<CudaRunner>(std::move(model), std::move(pool), options);
  MOEBIUS_TRY(runner->Allocate());
  return runner;
}

}  // namespace moebius::engine
