#include "engine/cuda/runner_sizes.h"

#include <algorithm>

#include "engine/cuda/step_draws.h"
#include "engine/device_runner.h"
#include "kernels/cuda/ops/device_context.h"
#include "model/model_config.h"
#include "platform/cuda/device.h"
#include "tensor/arena.h"

namespace moebius::engine {
namespace {

// Logits come in pieces of so many rows where prompt tokens are scored.
constexpr int64_t kMinLogitRows = 32;

StepSizes MostSizes(const ModelRunnerOptions& options, const AttentionWorkers& workers,
                    int64_t rows) {
  StepSizes most;
  most.rows = rows;
  most.seqs = rows;
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

}  // namespace

AttentionWorkers WorkersOf(const model::Model& model, const ModelRunnerOptions& options,
                           int num_sms) {
  const model::AttentionConfig& attention = model.config().attention;
  const bool mla = attention.kind == model::AttentionKind::kMla;
  AttentionWorkers workers;
  workers.num_sms = num_sms;
  workers.whole_rows = options.deterministic;
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
  // Rounded elsewhere than other rows, and chosen by the length of a chunk.
  workers.expands_latents = mla && !options.deterministic && kernels::FitsExpanded(workers.shape) &&
                            model.backend().mla_prefill != nullptr;
  workers.tiles_prompts = !options.deterministic && kernels::FitsGqaPrefill(workers.shape);
  return workers;
}

RunnerSizes SizesOf(const model::Model& model, const ModelRunnerOptions& options,
                    const AttentionWorkers& workers) {
  RunnerSizes sizes;
  sizes.rows = MaxStepRows(options.max_rows, options.max_samples);
  if (model.has_head()) {
    sizes.logit_rows =
        std::min(sizes.rows, std::max(RowBucket(options.max_samples), kMinLogitRows));
  }
  sizes.draws = sizes.rows;
  sizes.workspace_bytes =
      model.WorkspaceBytes(sizes.rows, sizes.logit_rows, workers.expands_latents) +
      Arena::kAlignment;
  if (const size_t beside = model.BesideBytes(); beside > 0) {
    sizes.beside_bytes = beside + Arena::kAlignment;
  }
  sizes.logits_bytes = static_cast<size_t>(sizes.logit_rows * options.vocab_size) * sizeof(float);
  const StepInputs::Bytes inputs = StepInputs::NumBytes(MostSizes(options, workers, sizes.rows));
  sizes.input_bytes = inputs.rows + Arena::kAlignment + inputs.draws;
  sizes.partial_bytes = workers.PartialBytes();
  sizes.draw_bytes = StepDraws::NumBytes(sizes.draws);
  sizes.meeting_bytes = kernels::cuda::DeviceContext::MeetingBytes(workers.num_sms);
  sizes.arrival_bytes = static_cast<size_t>(workers.NumArrivals()) * sizeof(int32_t);
  return sizes;
}

uint64_t DeviceWorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options) {
  const auto info = platform::cuda::CurrentDevice();
  const int num_sms = info ? info->num_multiprocessors : 1;
  return SizesOf(model, options, WorkersOf(model, options, num_sms)).Total();
}

}  // namespace moebius::engine
