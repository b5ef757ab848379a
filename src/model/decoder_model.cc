#include "model/decoder_model.h"

#include <algorithm>

#include "base/check.h"
#include "model/rope.h"
#include "moe/exchange/local.h"

namespace moebius::model {

using kernels::ExecContext;

DecoderModel::DecoderModel(const ModelConfig& config, const DecoderOptions& options,
                           WeightPlan& plan)
    : config_(config), options_(options) {
  const std::string embedding = config_.tensor_prefix + "model.embed_tokens.weight";
  plan.Table(Part::kEmbedding, embedding, config_.vocab_size, config_.hidden_size, &embedding_);
  // A tied head reads the embedding's tensor, but in packed form: the table cannot serve both.
  plan.Packed(
      Part::kHead,
      WholeMatrix(config_.tie_embeddings ? embedding : config_.tensor_prefix + "lm_head.weight",
                  config_.vocab_size, config_.hidden_size, false),
      &head_);
  DeclareNorm(plan, config_.tensor_prefix + "model.norm.weight", config_.hidden_size,
              config_.rms_norm_eps, &final_norm_);
  const int num_experts = static_cast<int>(config_.moe.num_experts);
  const int num_moe_layers = static_cast<int>(config_.num_moe_layers() + config_.num_mtp_layers);
  moe_.config = config_.moe;
  moe_.placement = moe::Placement::Identity(num_experts);
  moe_.exchange = std::make_unique<moe::LocalExchange>();
  moe_.stats = moe::ExpertStats(num_experts > 0 ? num_moe_layers : 0, num_experts);
  if (options_.routing && num_experts > 0) {
    moe_.forced_routing =
        std::make_unique<moe::ForcedRouting>(*options_.routing, num_moe_layers, num_experts);
  }
}

std::string DecoderModel::LayerPrefix(int64_t layer) const {
  return fmt::format("{}model.layers.{}.", config_.tensor_prefix, layer);
}

void DecoderModel::DeclareNorm(WeightPlan& plan, const std::string& name, int64_t n, double eps,
                               Norm* norm) {
  norm->eps = static_cast<float>(eps);
  plan.Vector(Part::kNorms, name, n, 1.0f, &norm->weight);
}

void DecoderModel::DeclareMlp(WeightPlan& plan, Part part, const std::string& prefix,
                              int64_t intermediate, Mlp* mlp) {
  const int64_t hidden = config_.hidden_size;
  plan.Gated(part, WholeMatrix(prefix + "gate_proj.weight", intermediate, hidden),
             WholeMatrix(prefix + "up_proj.weight", intermediate, hidden), &mlp->gate_up);
  plan.Packed(part, WholeMatrix(prefix + "down_proj.weight", hidden, intermediate), &mlp->down);
}

void DecoderModel::DeclareRouter(WeightPlan& plan, const std::string& name, MoeLayer* layer) {
  layer->index = num_moe_declared_++;
  plan.Packed(Part::kRouter, WholeMatrix(name, config_.moe.num_experts, config_.hidden_size, false),
              &layer->router);
}

void DecoderModel::DeclareExperts(WeightPlan& plan, const std::string& prefix,
                                  const ExpertNames& names, MoeLayer* layer) {
  const int64_t hidden = config_.hidden_size;
  const int64_t intermediate = config_.moe.intermediate_size;
  if (!plan.status()) return;  // experts are many: no work for a checkpoint that is refused
  DeclareRouter(plan, prefix + "gate.weight", layer);
  std::vector<Matrix> gates;
  std::vector<Matrix> ups;
  std::vector<Matrix> downs;
  for (int slot = 0; slot < moe_.placement.num_slots(); ++slot) {
    const std::string expert =
        fmt::format("{}experts.{}.", prefix, moe_.placement.expert(SlotId(slot)).value());
    gates.push_back(WholeMatrix(expert + names.gate + ".weight", intermediate, hidden));
    ups.push_back(WholeMatrix(expert + names.up + ".weight", intermediate, hidden));
    downs.push_back(WholeMatrix(expert + names.down + ".weight", hidden, intermediate));
  }
  plan.GatedGroup(Part::kRoutedExperts, gates, ups, &layer->gate_up);
  plan.Group(Part::kRoutedExperts, downs, &layer->down);
}

Status DecoderModel::Load(WeightPlan& plan, platform::ThreadPool& pool) {
  num_threads_ = pool.num_threads();
  MOEBIUS_ASSIGN(weights_, plan.Load(pool, *options_.backend->memory));
  return LoadMoeTables();
}

size_t DecoderModel::weight_bytes() const {
  size_t bytes = 0;
  for (const auto* memory : {&weights_, &tables_, &moe_tables_}) {
    if (*memory != nullptr) bytes += (*memory)->size();
  }
  return bytes;
}

// What routing reads and counts, where the kernels are.
Status DecoderModel::LoadMoeTables() {
  if (config_.moe.num_experts == 0) return {};
  platform::MemorySpace& memory = *options_.backend->memory;
  const std::span<int64_t> counts = moe_.stats.counts();
  const auto num_experts = static_cast<size_t>(config_.moe.num_experts);
  for (size_t e = 0; e < num_experts; ++e) {
    host_first_slot_.push_back(moe_.placement.slots(ExpertId(static_cast<int32_t>(e))).front());
  }
  moe_.counts = counts;
  moe_.first_slot = host_first_slot_;
  if (memory.on_host()) return {};
  MOEBIUS_ASSIGN(moe_tables_, memory.Allocate(counts.size_bytes() + num_experts * sizeof(int32_t)));
  auto* device_slots = reinterpret_cast<int32_t*>(moe_tables_->data() + counts.size_bytes());
  MOEBIUS_TRY(memory.Upload(moe_tables_->data(), counts.data(), counts.size_bytes()));
  MOEBIUS_TRY(memory.Upload(device_slots, host_first_slot_.data(), num_experts * sizeof(int32_t)));
  moe_.counts = {reinterpret_cast<int64_t*>(moe_tables_->data()), counts.size()};
  moe_.first_slot = {device_slots, num_experts};
  return {};
}

moe::ExpertStats& DecoderModel::expert_stats() {
  if (moe_tables_ != nullptr) {
    const std::span<int64_t> counts = moe_.stats.counts();
    // A device that has failed keeps what was counted before; its step says why.
    (void)options_.backend->memory->Download(counts.data(), moe_.counts.data(),
                                             counts.size_bytes());
  }
  return moe_.stats;
}

Status DecoderModel::PreparePositions(int64_t positions, platform::ThreadPool& pool) {
  const int64_t rope_dim = config_.attention.rope_dim();
  const bool tempered = config_.attention.temperature_tuning;
  const int64_t width = rope_dim + (tempered ? 2 : 0);
  const size_t num_bytes = static_cast<size_t>(positions * width) * sizeof(float);
  platform::MemorySpace& memory = *options_.backend->memory;
  const auto tables_at = [&](std::byte* data) {
    RopeTables tables;
    tables.rope = Mat(data, DType::kF32, positions, rope_dim);
    if (tempered) {
      tables.temperature = Mat(tables.rope.RowBytes(positions), DType::kF32, positions, 2);
    }
    return tables;
  };
  MOEBIUS_ASSIGN(std::unique_ptr<platform::Memory> made, memory.AllocateStaging(num_bytes));
  const RopeTables tables = tables_at(made->data());
  pool.RunRanges(positions, 256, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    FillRopeTable(config_.rope, begin, end, tables.rope);
    if (tempered) FillTemperatureTable(config_.attention, begin, end, tables.temperature);
  });
  if (memory.on_host()) {
    tables_ = std::move(made);
  } else {
    MOEBIUS_ASSIGN(tables_, memory.Allocate(num_bytes));
    MOEBIUS_TRY(memory.Upload(tables_->data(), made->data(), num_bytes));
  }
  rope_tables_ = tables_at(tables_->data());
  return {};
}

std::vector<KvLayerSpec> DecoderModel::KvLayers() const {
  return std::vector<KvLayerSpec>(static_cast<size_t>(config_.num_layers + config_.num_mtp_layers),
                                  KvSpec());
}

void DecoderModel::BindKv(std::vector<KvLayer> layers) {
  MOEBIUS_CHECK_EQ(layers.size(), KvLayers().size());
  kv_ = std::move(layers);
}

size_t DecoderModel::WorkspaceBytes(int64_t max_rows, int64_t max_logit_rows) const {
  // An arena that only counts: nothing is ever written to what it gives.
  Arena arena(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  const int64_t hidden = config_.hidden_size;
  Step::Reserve(arena, max_rows, options_.act, hidden);
  const auto block = [&](const auto& reserve) {
    const ArenaScope scope(arena);
    reserve();
  };
  block([&] { ReserveAttention(arena, max_rows); });
  block([&] { ReserveMlp(arena, max_rows, options_.act, config_.intermediate_size); });
  if (config_.moe.num_experts > 0) {
    block([&] { ReserveMoe(arena, max_rows, options_.act, hidden, moe_); });
  }
  block([&] {  // the head, or the MTP layer's input
    arena.AllocMat(DType::kF32, max_rows, hidden);
    arena.AllocMat(options_.act, std::max(max_logit_rows, 2 * max_rows), hidden);
  });
  const AttentionConfig& attention = config_.attention;
  const bool mla = attention.kind == AttentionKind::kMla;
  kernels::OpLimits limits;
  limits.num_threads = num_threads_;
  limits.num_slots = std::max<int64_t>(moe_.placement.num_slots(), config_.moe.num_experts);
  limits.head_dim = mla ? attention.kv_lora_rank + attention.qk_rope_head_dim : attention.head_dim;
  limits.v_head_dim = mla ? attention.kv_lora_rank : attention.head_dim;
  limits.vocab = config_.vocab_size;
  limits.act = options_.act;
  limits.rows = max_rows;
  limits.inputs =
      std::max({hidden, config_.intermediate_size, attention.q_lora_rank,
                config_.moe.shared_intermediate_size,
                attention.num_heads * (mla ? attention.v_head_dim : attention.head_dim)});
  limits.gated_width = std::max(config_.intermediate_size, config_.moe.shared_intermediate_size);
  if (config_.moe.num_experts > 0) {
    limits.places = MoeChunkRows(config_.moe, max_rows) * config_.moe.top_k;
    limits.expert_inputs = hidden;
    limits.expert_width = config_.moe.intermediate_size;
  }
  return arena.peak() + options_.backend->workspace_bytes(limits) + Arena::kAlignment;
}

void DecoderModel::FinishStream(Step& step, const Norm& norm, Mat out) {
  kernels::RmsNorm(step.ctx, {.x = step.has_delta ? step.delta : Mat(),
                              .residual = step.stream,
                              .weight = norm.weight,
                              .eps = norm.eps,
                              .out = out});
  step.has_delta = false;
}

void DecoderModel::RunHead(ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
                           const kernels::PackedWeight& head, Mat logits) {
  const auto num_wanted = static_cast<int64_t>(batch.logit_rows.size());
  MOEBIUS_CHECK(batch.take_logits ? logits.rows > 0 || num_wanted == 0 : logits.rows == num_wanted);
  for (int64_t first = 0; first < num_wanted; first += logits.rows) {
    const int64_t count = std::min(logits.rows, num_wanted - first);
    const Mat piece = logits.Rows(0, count);
    {
      const PartTimer timer(batch.times, &PartTimes::head);
      const ArenaScope scope(*ctx.workspace);
      const Mat wanted = ctx.workspace->AllocMat(options_.act, count, config_.hidden_size);
      // Embed is a gather of rows; the table here is the step's own.
      kernels::Embed(ctx, {.tokens = batch.logit_rows.subspan(static_cast<size_t>(first),
                                                              static_cast<size_t>(count)),
                           .table = hidden,
                           .out = wanted});
      Project(ctx, wanted, head, piece);
    }
    if (batch.take_logits) batch.take_logits(first, piece);
  }
}

void DecoderModel::Forward(ExecContext& ctx, const ForwardBatch& batch, Mat logits, Mat hidden) {
  if (batch.tokens.empty()) return;
  const ArenaScope scope(*ctx.workspace);
  Step step(ctx, batch, options_.act, config_.hidden_size);
  kernels::Embed(ctx, {.tokens = batch.tokens, .table = embedding_, .out = step.stream});
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) RunLayer(step, layer);
  const Mat normed = hidden.data != nullptr
                         ? hidden
                         : ctx.workspace->AllocMat(DType::kF32, step.rows, config_.hidden_size);
  FinishStream(step, final_norm_, normed);
  RunHead(ctx, batch, normed, head_, logits);
}

void DecoderModel::ForwardMtp(ExecContext& /*ctx*/, const ForwardBatch& /*batch*/, Mat /*hidden*/,
                              Mat /*logits*/) {
  MOEBIUS_CHECK(false && "this model has no MTP layer");
}

}  // namespace moebius::model
