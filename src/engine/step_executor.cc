#include "engine/step_executor.h"

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "engine/kv_memory.h"
#include "kernels/ops.h"
#include "model/model_config.h"

namespace moebius::engine {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsFrom(Clock::time_point begin) {
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
  return std::max(
             model.WorkspaceBytes(options.max_rows, LogitRows(options), /*expands_latents=*/false),
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

uint64_t StepExecutor::WorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options,
                                      int num_threads) {
  return ArenaBytes(model, options, num_threads) + LogitsBytes(options);
}

Result<std::unique_ptr<StepExecutor>> StepExecutor::Create(
    std::unique_ptr<model::Model> model, const kernels::Backend* backend,
    std::unique_ptr<platform::ThreadPool> pool, const ModelRunnerOptions& options) {
  MOEBIUS_TRY(CheckOperations(*backend, model->config()));
  std::unique_ptr<StepExecutor> executor(
      new StepExecutor(std::move(model), backend, std::move(pool), options));
  MOEBIUS_TRY(executor->Allocate());
  return executor;
}

StepExecutor::StepExecutor(std::unique_ptr<model::Model> model, const kernels::Backend* backend,
                           std::unique_ptr<platform::ThreadPool> pool,
                           const ModelRunnerOptions& options)
    : options_(options),
      trace_(options.trace, TraceThread::kDevice),
      pool_(std::move(pool)),
      model_(std::move(model)) {
  context_ = {backend, pool_.get(), &workspace_};
}

Status StepExecutor::Allocate() {
  MOEBIUS_TRY(model_->PreparePositions(options_.max_model_len, *pool_));
  const size_t arena_bytes = ArenaBytes(*model_, options_, pool_->num_threads());
  MOEBIUS_ASSIGN(workspace_region_, platform::Region::Allocate(arena_bytes));
  workspace_ = Arena(workspace_region_.data(), workspace_region_.size());
  MOEBIUS_ASSIGN(logits_region_, platform::Region::Allocate(LogitsBytes(options_)));

  const int64_t num_rows = options_.num_blocks * options_.block_size;
  const std::vector<model::KvLayerSpec> layers = model_->KvLayers();
  const size_t kv_bytes = KvCacheBytes(layers, num_rows);
  MOEBIUS_ASSIGN(kv_region_, platform::Region::Allocate(std::max<size_t>(kv_bytes, 1)));
  model_->BindKv(LayOutKv(kv_region_.data(), layers, num_rows));
  return {};
}

Result<StepOutput> StepExecutor::Run(const StepPlan& plan, const SharedStep* shared,
                                     StepSync* sync) {
  const Clock::time_point begin = Clock::now();
  Result<StepOutput> output = MakeError(ErrorCode::kInternal, "step {} was not run", plan.step_id);
  try {
    output = TryRun(plan, shared, sync);
  } catch (const std::exception& error) {
    output = MakeError(ErrorCode::kInternal, "step {}: {}", plan.step_id, error.what());
  }
  if (!output) {
    if (sync != nullptr) sync->Abort();
    return output;
  }
  Finish(plan, shared, sync, SecondsFrom(begin), &*output);
  const StepParts& parts = output->parts;
  trace_.AddPass(begin, shared != nullptr ? shared->step : plan.step_id, plan.step_id,
                 plan.num_rows(),
                 {{"attention", parts.attention},
                  {"dispatch", parts.dispatch},
                  {"experts", parts.experts},
                  {"combine", parts.combine},
                  {"wait", parts.wait},
                  {"head", parts.head},
                  {"sampling", parts.sampling},
                  {"other", parts.other}});
  trace_.Flush();
  return output;
}

// The step's time and what is left of it for no other part; then it counts.
void StepExecutor::Finish(const StepPlan& plan, const SharedStep* shared, StepSync* sync,
                          double seconds, StepOutput* output) {
  StepParts& parts = output->parts;
  if (shared != nullptr) {
    seconds += shared->agree_seconds;
    output->dp_rows = shared->dp_rows;
    output->epoch = shared->epoch;
  }
  output->device_seconds = seconds;
  for (const StepPart& part : kStepParts) {
    if (part.seconds != &StepParts::other) parts.other -= parts.*part.seconds;
  }
  parts.other = std::max(0.0, parts.other + seconds);
  if (sync != nullptr) {
    const int64_t waited_ns = sync->waited_ns().load(std::memory_order_relaxed);
    // Rounds in which nobody had any rows belong to no step.
    parts.wait = std::min(static_cast<double>(waited_ns - last_waited_ns_) * 1e-9, parts.other);
    parts.other -= parts.wait;
    last_waited_ns_ = waited_ns;
  }

  RankLoad step;
  step.last_step = shared != nullptr ? shared->step : plan.step_id;
  step.num_steps = 1;
  step.num_empty_steps = plan.num_rows() == 0 ? 1 : 0;
  step.num_rows = plan.num_rows();
  step.num_expert_rows = std::exchange(expert_rows_, 0);
  step.num_home_rows = std::exchange(home_rows_, 0);
  step.num_copy_rows = std::exchange(copy_rows_, 0);
  step.dispatch_bytes = output->dispatch_bytes;
  step.combine_bytes = output->combine_bytes;
  step.num_latency_steps = output->exchange_mode == moe::ExchangeMode::kLatency ? 1 : 0;
  step.num_throughput_steps = output->exchange_mode == moe::ExchangeMode::kThroughput ? 1 : 0;
  step.seconds = seconds;
  step.parts = parts;
  (sync != nullptr ? sync->counters() : counters_).Add(step);
}

// What the exchange's totals grew by.
void StepExecutor::MeasureExchange(StepOutput* output) {
  const moe::Exchange* const exchange = model_->exchange();
  if (exchange == nullptr) return;
  const moe::ExchangeBytes bytes = exchange->bytes();
  output->dispatch_bytes = bytes.dispatch - last_bytes_.dispatch;
  output->combine_bytes = bytes.combine - last_bytes_.combine;
  output->exchange_mode = exchange->mode();
  last_bytes_ = bytes;
  expert_rows_ = exchange->num_expert_rows() - last_expert_rows_;
  last_expert_rows_ += expert_rows_;
  home_rows_ = exchange->num_home_rows() - last_home_rows_;
  last_home_rows_ += home_rows_;
}

Result<StepOutput> StepExecutor::TryRun(const StepPlan& plan, const SharedStep* shared,
                                        StepSync* sync) {
  const bool draws = sync == nullptr || sync->draws();
  ResolveTokens(plan, sync == nullptr || sync->hears_tokens());
  StepOutput output;
  output.step_id = plan.step_id;
  if (draws) sample_inputs_.Prepare(plan, tokens_, &output);
  sampling_seconds_ = 0;

  model::ForwardBatch batch = BatchOf(plan);
  if (shared != nullptr) {
    batch.dp_rows = shared->dp_rows;
    batch.moe_chunks = shared->num_moe_chunks;
  }
  model::PartTimes times;
  if (sync != nullptr) times.waited_ns = &sync->waited_ns();
  batch.times = &times;
  batch.trace = &trace_;
  batch.after_layers = after_layers_;
  batch.take_logits = [this, draws](int64_t first, Mat logits) {
    if (draws) SampleRows(first, logits);
  };
  const int64_t num_logit_rows = std::min(plan.num_samples(), LogitRows(options_));
  const Mat logits(logits_region_.data(), DType::kF32, num_logit_rows, options_.vocab_size);
  {
    const ArenaScope scope(workspace_);
    model_->Forward(context_, batch, logits, Mat());
  }
  if (draws) {
    const std::span<const kernels::SampleResult> results = sample_inputs_.results();
    for (size_t i = 0; i < results.size(); ++i) {
      output.sampled[i].token = results[i].token;
      output.sampled[i].logprob = results[i].logprob;
      output.sampled[i].rank = results[i].rank;
    }
  }
  if (sync != nullptr) {
    const TraceSpan span(&trace_, "pass on");
    MOEBIUS_TRY(sync->End(plan, &output));
  }
  if (plan.num_rows() > 0) {  // a peer's step, without rows here, is nobody's previous one
    last_sampled_.clear();
    for (const SampledToken& sampled : output.sampled) last_sampled_.push_back(sampled.token);
    last_step_ = plan.step_id;
  }
  output.parts = {.attention = times.attention,
                  .dispatch = times.dispatch,
                  .experts = times.experts,
                  .combine = times.combine,
                  .head = times.head,
                  .sampling = sampling_seconds_};
  MeasureExchange(&output);
  if (options_.counts_experts) CountExperts(&output);
  return output;
}

model::ForwardBatch StepExecutor::BatchOf(const StepPlan& plan) {
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
  batch.num_decodes = plan.num_decodes();
  batch.counts_experts = options_.expert_statistics;
  if (options_.expert_statistics) batch.num_home_copies = &copy_rows_;
  return batch;
}

void StepExecutor::SampleRows(int64_t first, Mat logits) {
  const Clock::time_point begin = Clock::now();
  const TraceSpan span(&trace_, "sample");
  const auto from = static_cast<size_t>(first);
  const auto count = static_cast<size_t>(logits.rows);
  {
    const ArenaScope scope(workspace_);
    kernels::Sample(context_, {logits, sample_inputs_.rows().subspan(from, count),
                               sample_inputs_.results().subspan(from, count)});
  }
  sampling_seconds_ += SecondsFrom(begin);
}

// What the model's counts grew by.
void StepExecutor::CountExperts(StepOutput* output) {
  const moe::ExpertStats& stats = model_->expert_stats();
  output->num_experts = stats.num_experts();
  output->experts_per_token = model_->config().moe.top_k;
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

void StepExecutor::ResolveTokens(const StepPlan& plan, bool hears_tokens) {
  tokens_ = plan.tokens;
  for (TokenId& token : tokens_) {
    if (!IsPreviousRow(token)) continue;
    if (!hears_tokens) {
      token = 0;  // nothing reads it
      continue;
    }
    MOEBIUS_CHECK_EQ(plan.previous_step, last_step_);
    const size_t row = static_cast<size_t>(RowOfPrevious(token));
    MOEBIUS_CHECK_LT(row, last_sampled_.size());
    // Where nothing could be drawn the request has failed, and this row will be dropped: any token
    // does.
    token = std::max(last_sampled_[row], 0);
  }
}

}  // namespace moebius::engine
