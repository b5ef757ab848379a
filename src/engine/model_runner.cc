#include "engine/model_runner.h"

#include <pthread.h>

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/ops.h"
#include "model/model_config.h"

namespace moebius::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kExpertLoadPeriod = std::chrono::milliseconds(200);

size_t AlignUp(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Logits come in pieces of so many rows: enough for everybody to draw at once, and for the head's
// weights to be worth reading where prompt tokens are scored.
int64_t LogitRows(const ModelRunnerOptions& options) {
  constexpr int64_t kMinLogitRows = 32;
  return std::max(options.max_samples, std::min(options.max_rows, kMinLogitRows));
}

size_t LogitsBytes(const ModelRunnerOptions& options) {
  return static_cast<size_t>(LogitRows(options) * options.vocab_size) * sizeof(float);
}

size_t ArenaBytes(const model::Model& model, const ModelRunnerOptions& options, int num_threads) {
  kernels::OpLimits limits;
  limits.num_threads = num_threads;
  limits.vocab = options.vocab_size;
  return std::max(model.WorkspaceBytes(options.max_rows, LogitRows(options)),
                  kernels::OpWorkspaceBytes(limits)) +
         Arena::kAlignment;
}

// Every operation but the attention of the kind that the model has not.
Status CheckOperations(const kernels::Backend& backend, const model::ModelConfig& config) {
  const bool is_mla = config.attention.kind == model::AttentionKind::kMla;
  std::string missing;
  for (const std::string_view op : kernels::MissingOps(backend)) {
    const bool is_unused = is_mla ? op == "attention" : op == "mla_attention" || op == "head_gemm";
    if (!is_unused) missing += (missing.empty() ? "" : ", ") + std::string(op);
  }
  if (missing.empty()) return {};
  return MakeError(ErrorCode::kUnsupported,
                   "back end {} lacks operations that a {} model needs: {}; MOEBIUS_ISA chooses "
                   "another",
                   backend.name, config.model_type, missing);
}

}  // namespace

uint64_t ModelRunner::WorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options,
                                     int num_threads) {
  return ArenaBytes(model, options, num_threads) + LogitsBytes(options);
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::Create(std::unique_ptr<model::Model> model,
                                                         const kernels::Backend* backend,
                                                         std::unique_ptr<platform::ThreadPool> pool,
                                                         const ModelRunnerOptions& options) {
  MOEBIUS_TRY(CheckOperations(*backend, model->config()));
  std::unique_ptr<ModelRunner> runner(
      new ModelRunner(std::move(model), backend, std::move(pool), options));
  MOEBIUS_TRY(runner->Allocate());
  runner->thread_ = std::thread([self = runner.get()] {
    pthread_setname_np(pthread_self(), "device");
    self->DeviceLoop();
  });
  return runner;
}

ModelRunner::ModelRunner(std::unique_ptr<model::Model> model, const kernels::Backend* backend,
                         std::unique_ptr<platform::ThreadPool> pool,
                         const ModelRunnerOptions& options)
    : options_(options), pool_(std::move(pool)), model_(std::move(model)) {
  context_ = {backend, pool_.get(), &workspace_};
  PublishExpertLoad();
}

ModelRunner::~ModelRunner() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  launched_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status ModelRunner::Allocate() {
  MOEBIUS_TRY(model_->PreparePositions(options_.max_model_len, *pool_));
  const size_t arena_bytes = ArenaBytes(*model_, options_, pool_->num_threads());
  MOEBIUS_ASSIGN(workspace_region_, platform::Region::Allocate(arena_bytes));
  workspace_ = Arena(workspace_region_.data(), workspace_region_.size());
  MOEBIUS_ASSIGN(logits_region_, platform::Region::Allocate(LogitsBytes(options_)));

  const int64_t num_rows = options_.num_blocks * options_.block_size;
  const auto cache_bytes = [&](int64_t width) {
    return AlignUp(static_cast<size_t>(num_rows * width) * SizeOf(options_.activations));
  };
  const std::vector<model::KvLayerSpec> specs = model_->KvLayers();
  size_t total = 0;
  for (const model::KvLayerSpec& spec : specs) {
    total += cache_bytes(spec.width_k) + cache_bytes(spec.width_v);
  }
  MOEBIUS_ASSIGN(kv_region_, platform::Region::Allocate(std::max<size_t>(total, 1)));
  std::byte* next = kv_region_.data();
  const auto take = [&](int64_t width) {
    if (width == 0) return Mat();
    const Mat cache(next, options_.activations, num_rows, width);
    next += cache_bytes(width);
    return cache;
  };
  std::vector<model::Model::KvLayer> layers;
  for (const model::KvLayerSpec& spec : specs) {
    const Mat k = take(spec.width_k);
    layers.push_back({k, take(spec.width_v)});
  }
  model_->BindKv(std::move(layers));
  return {};
}

StepHandle ModelRunner::Launch(const StepPlan& plan) {
  {
    const std::lock_guard lock(mutex_);
    MOEBIUS_CHECK_LT(num_launched_ - num_waited_, kMaxStepsInFlight);
    StepAt(num_launched_).plan = &plan;
    ++num_launched_;
  }
  launched_.notify_one();
  return {plan.step_id};
}

Result<StepOutput> ModelRunner::Wait(StepHandle step, std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  MOEBIUS_CHECK_LT(num_waited_, num_launched_);
  MOEBIUS_CHECK_EQ(StepAt(num_waited_).plan->step_id, step.step_id);
  if (!done_.wait_for(lock, timeout, [&] { return num_done_ > num_waited_; })) {
    return MakeError(ErrorCode::kDeadline, "step {} is not done after {} ms", step.step_id,
                     timeout.count());
  }
  Result<StepOutput> output = std::move(StepAt(num_waited_).output);
  ++num_waited_;
  if (!output && output.error().code() != ErrorCode::kCancelled) {
    has_fault_ = false;
    num_skipped_ = num_launched_;
  }
  return output;
}

moe::ExpertStats ModelRunner::ExpertLoad() const {
  const std::lock_guard lock(mutex_);
  return expert_load_;
}

void ModelRunner::DeviceLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto is_needed = [&] { return is_stopping_ || num_done_ < num_launched_; };
    if (is_load_stale_ && !launched_.wait_for(lock, kExpertLoadPeriod, is_needed)) {
      PublishExpertLoad();
    }
    launched_.wait(lock, is_needed);
    if (is_stopping_) return;
    const StepPlan& plan = *StepAt(num_done_).plan;
    Result<StepOutput> output = MakeError(
        ErrorCode::kCancelled, "step {} was not run: a step before it failed", plan.step_id);
    if (!has_fault_ && num_done_ >= num_skipped_) {
      lock.unlock();
      const Clock::time_point begin = Clock::now();
      output = Run(plan);
      if (output) {
        output->device_seconds = SecondsSince(begin);
        StepOutput::Parts& parts = output->parts;
        if (options_.measures_parts) {
          parts.other = std::max(0.0, output->device_seconds - parts.attention - parts.experts -
                                          parts.head - parts.sampling);
        }
      }
      lock.lock();
      has_fault_ = !output;
    }
    StepAt(num_done_).output = std::move(output);
    ++num_done_;
    is_load_stale_ = true;
    if (Clock::now() - last_published_ >= kExpertLoadPeriod) PublishExpertLoad();
    done_.notify_one();
  }
}

// A copy may cost more than a small step, so it is made now and then, and when there is time.
void ModelRunner::PublishExpertLoad() {
  last_published_ = Clock::now();
  expert_load_ = model_->expert_stats();
  is_load_stale_ = false;
}

Result<StepOutput> ModelRunner::Run(const StepPlan& plan) {
  try {
    ResolveTokens(plan);
    StepOutput output;
    output.step_id = plan.step_id;
    sample_inputs_.Prepare(plan, tokens_, &output);
    sampling_seconds_ = 0;

    model::ForwardBatch batch = BatchOf(plan);
    model::PartTimes times;
    if (options_.measures_parts) batch.times = &times;
    batch.take_logits = [this](int64_t first, Mat logits) { SampleRows(first, logits); };
    const int64_t num_logit_rows = std::min(plan.num_samples(), LogitRows(options_));
    const Mat logits(logits_region_.data(), DType::kF32, num_logit_rows, options_.vocab_size);
    {
      const ArenaScope scope(workspace_);
      model_->Forward(context_, batch, logits, Mat());
    }
    last_sampled_.clear();
    const std::span<const kernels::SampleResult> results = sample_inputs_.results();
    for (size_t i = 0; i < results.size(); ++i) {
      output.sampled[i].token = results[i].token;
      output.sampled[i].logprob = results[i].logprob;
      output.sampled[i].rank = results[i].rank;
      last_sampled_.push_back(results[i].token);
    }
    last_step_ = plan.step_id;
    if (options_.measures_parts) {
      output.parts = {.attention = times.attention,
                      .experts = times.experts,
                      .head = times.head,
                      .sampling = sampling_seconds_};
      CountExperts(&output);
    }
    return output;
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kInternal, "step {}: {}", plan.step_id, error.what());
  }
}

model::ForwardBatch ModelRunner::BatchOf(const StepPlan& plan) const {
  model::ForwardBatch batch;
  batch.tokens = tokens_;
  batch.positions = plan.positions;
  batch.kv_rows = plan.kv_rows;
  batch.attention.query_start = plan.query_start;
  batch.attention.context_len = plan.context_len;
  batch.attention.block_table = plan.block_table;
  batch.attention.max_blocks = plan.max_blocks;
  batch.attention.block_size = plan.block_size;
  batch.logit_rows = plan.logit_rows;
  return batch;
}

void ModelRunner::SampleRows(int64_t first, Mat logits) {
  const Clock::time_point begin = options_.measures_parts ? Clock::now() : Clock::time_point();
  const auto from = static_cast<size_t>(first);
  const auto count = static_cast<size_t>(logits.rows);
  {
    const ArenaScope scope(workspace_);
    kernels::Sample(context_, {logits, sample_inputs_.rows().subspan(from, count),
                               sample_inputs_.results().subspan(from, count)});
  }
  if (options_.measures_parts) sampling_seconds_ += SecondsSince(begin);
}

// What the model's counts grew by.
void ModelRunner::CountExperts(StepOutput* output) {
  const moe::ExpertStats& stats = model_->expert_stats();
  output->num_experts = stats.num_experts();
  size_t i = 0;
  last_counts_.resize(static_cast<size_t>(stats.num_layers()) *
                      static_cast<size_t>(stats.num_experts()));
  output->expert_counts.reserve(last_counts_.size());
  for (int layer = 0; layer < stats.num_layers(); ++layer) {
    for (const int64_t count : stats.Layer(layer)) {
      output->expert_counts.push_back(static_cast<int32_t>(count - last_counts_[i]));
      last_counts_[i++] = count;
    }
  }
}

void ModelRunner::ResolveTokens(const StepPlan& plan) {
  tokens_ = plan.tokens;
  for (TokenId& token : tokens_) {
    if (!IsPreviousRow(token)) continue;
    MOEBIUS_CHECK_EQ(plan.previous_step, last_step_);
    const size_t row = static_cast<size_t>(RowOfPrevious(token));
    MOEBIUS_CHECK_LT(row, last_sampled_.size());
    // Where nothing could be drawn the request has failed, and this row will be dropped: any token
    // does.
    token = std::max(last_sampled_[row], 0);
  }
}

}  // namespace moebius::engine
