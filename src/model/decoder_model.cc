#include "model/decoder_model.h"

#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "model/rope.h"
#include "model/shared_expert.h"

namespace moebius::model {

using kernels::ExecContext;

namespace {

// Whose copies of an expert are preferred. Which rank of a TP group has a row depends on the other
// rows of the step, and a row's bits must not: then nobody's.
int HomeOf(const Shard& shard) {
  if (shard.cut_experts) return 0;
  return shard.tp.size == 1 ? shard.experts.rank : -1;
}

// The heads of a rank: KV heads that are fewer than ranks are on several.
AttentionConfig HeadsOf(AttentionConfig attention, int tp) {
  attention.num_heads /= tp;
  attention.num_kv_heads = std::max<int64_t>(1, attention.num_kv_heads / tp);
  return attention;
}

// This rank's part of either half of a gated MLP's first matrix, and of a second one.
Matrix FirstOf(const Matrix& matrix, const SplitPair& pair) {
  return RowsOf(matrix, pair.cut.first(), pair.cut.count());
}
Matrix SecondOf(const Matrix& matrix, const SplitPair& pair) {
  return pair.sums ? ColumnsOf(matrix, pair.cut.first(), pair.cut.count())
                   : RowsOf(matrix, pair.outer.first(), pair.outer.count());
}

// MoE layers among the first `count`.
int CountMoe(const ModelConfig& config, int64_t count) {
  return static_cast<int>(std::count_if(config.layers.begin(), config.layers.begin() + count,
                                        [](const LayerConfig& layer) { return layer.moe; }));
}

}  // namespace

DecoderModel::DecoderModel(const ModelConfig& config, const DecoderOptions& options,
                           WeightPlan& plan)
    : config_(config),
      options_(options),
      attention_(HeadsOf(config.attention, options.shard.tp.size)) {
  const Shard& shard = options_.shard;
  const std::string embedding = config_.tensor_prefix + "model.embed_tokens.weight";
  if (shard.is_first_stage()) DeclareEmbedding(plan, Part::kEmbedding, embedding, &embedding_);
  if (shard.is_last_stage()) {
    // A tied head reads the embedding's tensor, but in packed form: the table cannot serve both.
    DeclareSplit(
        plan, Part::kHead,
        WholeMatrix(config_.tie_embeddings ? embedding : config_.tensor_prefix + "lm_head.weight",
                    config_.vocab_size, config_.hidden_size, false),
        shard.tp, &head_);
    DeclareNorm(plan, config_.tensor_prefix + "model.norm.weight", config_.hidden_size,
                config_.rms_norm_eps, &final_norm_);
  }
  num_moe_declared_ = CountMoe(config_, shard.first_layer);
  PrepareMoe();
}

moe::RoutedExperts RoutedExpertsOf(const ModelConfig& config, const Shard& shard) {
  return {.num_layers = static_cast<int>(config.num_moe_layers() + config.num_mtp_layers),
          .num_experts = static_cast<int>(config.moe.num_experts),
          .top_k = static_cast<int>(config.moe.top_k),
          .num_ranks = shard.cut_experts ? 1 : shard.experts.size};
}

void DecoderModel::PrepareMoe() {
  const Shard& shard = options_.shard;
  const moe::RoutedExperts experts = RoutedExpertsOf(config_, shard);
  const bool cut = shard.cut_experts;
  moe_.config = config_.moe;
  moe_.shard = shard;
  if (experts.num_experts > 0) {
    const int64_t num_slots = std::max(shard.slots.num_slots, config_.moe.num_experts);
    moe_.num_slots = CeilDiv(num_slots, experts.num_ranks) * experts.num_ranks;
  }
  moe_.exchange = cut || shard.exchange == nullptr ? &local_exchange_ : shard.exchange;
  const GroupPlace group = cut ? shard.experts : GroupPlace();
  const Split routed = SplitOf(group, config_.moe.intermediate_size);
  const Split shared = SplitOf(group, config_.moe.shared_intermediate_size);
  const Split outer = SplitOf(group, config_.hidden_size);
  // Their rows on a rank are added up before it meets the others.
  const bool sums = shard.sums && CanSum(routed, SplitUnit()) &&
                    (shared.columns() == 0 || CanSum(shared, SplitUnit()));
  moe_.experts = PairOf(routed, outer, sums);
  moe_.shared_expert = PairOf(shared, outer, sums);
  moe_.stats =
      moe::ExpertStats(experts.num_experts > 0 ? experts.num_layers : 0, experts.num_experts);
  if (options_.routing && experts.num_experts > 0) {
    forced_routing_.emplace(*options_.routing, experts);
    moe_.forced_routing = forced_routing_->log_probabilities();
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

int64_t DecoderModel::SplitUnit() const {
  const bool blocks = options_.backend->weight_layout == kernels::WeightLayout::kRows;
  return blocks ? kernels::kScaleBlock : kernels::kPanelRows;
}

Split DecoderModel::SplitOf(const GroupPlace& group, int64_t outputs) const {
  return SplitOver(group, outputs, SplitUnit());
}

void DecoderModel::DeclareSplit(WeightPlan& plan, Part part, const Matrix& matrix,
                                const GroupPlace& group, SplitWeight* weight) {
  weight->split = SplitOf(group, matrix.shape.front());
  plan.Packed(part, RowsOf(matrix, weight->split.first(), weight->split.count()), &weight->weight);
}

void DecoderModel::DeclareEmbedding(WeightPlan& plan, Part part, const std::string& name,
                                    SplitTable* table) {
  table->split = SplitOf(options_.shard.tp, config_.hidden_size);
  plan.Table(part,
             ColumnsOf(WholeMatrix(name, config_.vocab_size, config_.hidden_size, false),
                       table->split.first(), table->split.count()),
             &table->table);
}

SplitPair DecoderModel::AttentionPair() const {
  const AttentionConfig& attention = config_.attention;
  const int64_t head_dim =
      attention.kind == AttentionKind::kMla ? attention.v_head_dim : attention.head_dim;
  return TpPair(SplitOver(options_.shard.tp, attention.num_heads * head_dim,
                          attention_.num_heads * head_dim));
}

SplitPair DecoderModel::DensePair() const {
  return TpPair(SplitOf(options_.shard.tp, config_.intermediate_size));
}

SplitPair DecoderModel::TpPair(const Split& cut) const {
  return PairOf(cut, SplitOf(cut.group, config_.hidden_size),
                options_.shard.sums && CanSum(cut, SplitUnit()));
}

void DecoderModel::DeclareSecond(WeightPlan& plan, Part part, const Matrix& matrix,
                                 const SplitPair& pair, Split* inner, SplitWeight* weight) {
  *inner = pair.inner;
  weight->split = pair.outer;
  plan.Packed(part, SecondOf(matrix, pair), &weight->weight);
}

void DecoderModel::DeclareMlp(WeightPlan& plan, Part part, const std::string& prefix,
                              const SplitPair& pair, Mlp* mlp) {
  const int64_t hidden = config_.hidden_size;
  const int64_t intermediate = pair.cut.columns();
  const auto slice = [&](const char* name) {
    return FirstOf(WholeMatrix(prefix + name, intermediate, hidden), pair);
  };
  plan.Gated(part, slice("gate_proj.weight"), slice("up_proj.weight"), &mlp->gate_up.weight);
  DeclareSecond(plan, part, WholeMatrix(prefix + "down_proj.weight", hidden, intermediate), pair,
                &mlp->gate_up.split, &mlp->down);
}

void DecoderModel::DeclareSharedExpert(WeightPlan& plan, const std::string& prefix,
                                       MoeLayer* layer) {
  DeclareMlp(plan, Part::kSharedExperts, prefix, moe_.shared_expert, &layer->shared.emplace());
}

void DecoderModel::DeclareExperts(WeightPlan& plan, const std::string& prefix,
                                  const ExpertNames& names, MoeLayer* layer) {
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.moe.intermediate_size;
  const auto matrices_of = [=](int64_t e) -> ExpertMatrices {
    const std::string expert = fmt::format("{}experts.{}.", prefix, e);
    return {WholeMatrix(expert + names.gate + ".weight", inner, hidden),
            WholeMatrix(expert + names.up + ".weight", inner, hidden),
            WholeMatrix(expert + names.down + ".weight", hidden, inner)};
  };
  DeclareExpertMatrices(plan, prefix + "gate.weight", matrices_of, layer);
}

void DecoderModel::DeclareExpertMatrices(
    WeightPlan& plan, const std::string& router,
    const std::function<ExpertMatrices(int64_t expert)>& matrices_of, MoeLayer* layer) {
  if (!plan.status()) return;  // experts are many: no work for a checkpoint that is refused
  layer->index = num_moe_declared_++;
  plan.Packed(Part::kRouter,
              WholeMatrix(router, config_.moe.num_experts, config_.hidden_size, false),
              &layer->router);
  const Shard& shard = options_.shard;
  const int num_ranks = shard.cut_experts ? 1 : shard.experts.size;
  const auto num_slots = static_cast<int>(moe_.num_slots);
  const int slots_a_rank = num_slots / num_ranks;
  const auto num_experts = static_cast<int>(config_.moe.num_experts);
  layer->placement =
      *moe::Placement::Create(num_experts, shard.slots.Of(layer->index, num_experts, num_ranks));
  layer->slots = moe::SlotTable(layer->placement, slots_a_rank, HomeOf(shard));
  layer->first_slot = layer->slots.first_slot();
  layer->replicas = layer->slots.replicas();
  moe_layers_.push_back({layer, matrices_of});
  std::vector<Matrix> gates;
  std::vector<Matrix> ups;
  std::vector<Matrix> downs;
  for (int slot = 0; slot < num_slots; ++slot) {
    const ExpertId expert = layer->placement.expert(SlotId(slot));
    if (expert.value() < 0) continue;
    const bool held = shard.cut_experts || slot / slots_a_rank == shard.experts.rank;
    const ExpertMatrices matrices = matrices_of(expert.value());
    gates.push_back(FirstOf(matrices.gate, moe_.experts));
    ups.push_back(FirstOf(matrices.up, moe_.experts));
    downs.push_back(SecondOf(matrices.down, moe_.experts));
    for (std::vector<Matrix>* list : {&gates, &ups, &downs}) list->back().held = held;
  }
  const size_t bytes_before = plan.packed_bytes();
  layer->gate_up_format = plan.GatedGroup(Part::kRoutedExperts, gates, ups, &layer->gate_up);
  plan.Group(Part::kRoutedExperts, downs, &layer->down);
  if (shard.num_staging == 0 || staging_bytes_ > 0 || layer->down.empty()) return;
  const size_t expert_bytes = (plan.packed_bytes() - bytes_before) / layer->down.size();
  staging_bytes_ = static_cast<size_t>(shard.num_staging) * expert_bytes;
  plan.Extra(staging_bytes_, &staging_);
}

Status DecoderModel::KeepSource(std::unique_ptr<Checkpoint> checkpoint,
                                std::unique_ptr<TensorSource> source) {
  checkpoint_ = std::move(checkpoint);
  source_ = std::move(source);
  MOEBIUS_ASSIGN(
      expert_slots_,
      ExpertSlots::Create(moe_layers_, {.slots_per_rank = static_cast<int>(moe_.num_slots) /
                                                          options_.shard.experts.size,
                                        .rank = options_.shard.experts.rank,
                                        .home = HomeOf(options_.shard),
                                        .act = options_.act,
                                        .source = source_.get(),
                                        .staging = {staging_, staging_bytes_},
                                        .num_staging = options_.shard.num_staging,
                                        .layout = options_.backend->weight_layout,
                                        .copies = options_.shard.copies,
                                        .table = TableBlock()}));
  return {};
}

Status DecoderModel::Load(WeightPlan& plan, platform::ThreadPool& pool) {
  num_threads_ = pool.num_threads();
  MOEBIUS_ASSIGN(weights_, plan.Load(pool, *options_.backend->memory));
  MOEBIUS_TRY(LoadForcedRouting());
  return LoadMoeTables();
}

size_t DecoderModel::weight_bytes() const {
  size_t bytes = 0;
  for (const auto* memory : {&weights_, &tables_, &moe_tables_, &routing_table_}) {
    if (*memory != nullptr) bytes += (*memory)->size();
  }
  return bytes;
}

Status DecoderModel::LoadForcedRouting() {
  platform::MemorySpace& memory = *options_.backend->memory;
  const std::span<const float> host = moe_.forced_routing;
  if (memory.on_host() || host.empty()) return {};
  MOEBIUS_ASSIGN(routing_table_, memory.Allocate(host.size_bytes()));
  MOEBIUS_TRY(memory.Upload(routing_table_->data(), host.data(), host.size_bytes()));
  moe_.forced_routing = {reinterpret_cast<const float*>(routing_table_->data()), host.size()};
  return {};
}

moe::SlotTableBlock DecoderModel::TableBlock() const {
  return {config_.moe.num_experts, moe_.num_slots};
}

// What routing reads and counts, where the kernels are. Where experts move, with room for each
// layer's next table behind the present one.
Status DecoderModel::LoadMoeTables() {
  if (config_.moe.num_experts == 0) return {};
  platform::MemorySpace& memory = *options_.backend->memory;
  const bool moves = options_.shard.copies != nullptr && options_.shard.num_staging > 0;
  const std::span<int64_t> counts = moe_.stats.counts();
  moe_.counts = counts;
  if (memory.on_host() && !moves) return {};
  const moe::SlotTableBlock block = TableBlock();
  const size_t of_layer = block.num_bytes() * (moves ? 2 : 1);
  MOEBIUS_ASSIGN(moe_tables_, memory.Allocate(counts.size_bytes() + moe_layers_.size() * of_layer));
  MOEBIUS_TRY(memory.Upload(moe_tables_->data(), counts.data(), counts.size_bytes()));
  moe_.counts = {reinterpret_cast<int64_t*>(moe_tables_->data()), counts.size()};
  std::byte* next = moe_tables_->data() + counts.size_bytes();
  for (ExpertSlots::Layer& declared : moe_layers_) {
    MoeLayer* const layer = declared.layer;
    MOEBIUS_TRY(memory.Upload(next, block.WordsOf(layer->slots).data(), block.num_bytes()));
    layer->first_slot = block.FirstSlot(next);
    // Whatever this layer has now: what kernels are called with never changes.
    const bool has_copies = moe_.num_slots > config_.moe.num_experts;
    layer->replicas = has_copies ? block.Copies(next, layer->slots) : kernels::ReplicaTable();
    declared.table = next;
    declared.next_table = next + block.num_bytes();
    next += of_layer;
  }
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
  const Shard& shard = options_.shard;
  const int64_t num_layers = shard.end_layer - shard.first_layer + config_.num_mtp_layers;
  return std::vector<KvLayerSpec>(static_cast<size_t>(num_layers), KvSpec());
}

void DecoderModel::BindKv(std::vector<KvLayer> layers) {
  MOEBIUS_CHECK_EQ(layers.size(), KvLayers().size());
  kv_ = std::move(layers);
}

size_t DecoderModel::WorkspaceBytes(int64_t max_rows, int64_t max_logit_rows,
                                    bool expands_latents) const {
  // An arena that only counts: nothing is ever written to what it gives.
  Arena arena(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  const int64_t hidden = config_.hidden_size;
  Step::Reserve(arena, max_rows, options_.act, hidden);
  const auto block = [&](const auto& reserve) {
    const ArenaScope scope(arena);
    reserve();
  };
  block([&] { ReserveAttention(arena, max_rows); });
  block([&] { ReserveMlp(arena, max_rows, options_.act, DensePair().inner.columns()); });
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
  limits.num_slots = std::max(moe_.num_slots, config_.moe.num_experts);
  limits.head_dim = mla ? attention.kv_lora_rank + attention.qk_rope_head_dim : attention.head_dim;
  limits.v_head_dim = mla ? attention.kv_lora_rank : attention.head_dim;
  limits.expands_latents = expands_latents;
  limits.vocab = config_.vocab_size;
  limits.act = options_.act;
  limits.rows = max_rows;
  limits.inputs = std::max({hidden, config_.intermediate_size, attention.q_lora_rank,
                            config_.moe.shared_intermediate_size, AttentionPair().cut.columns()});
  limits.gated_width = std::max(config_.intermediate_size, config_.moe.shared_intermediate_size);
  if (config_.moe.num_experts > 0) {
    limits.places = MoePlaces(moe_, max_rows);
    limits.expert_inputs = hidden;
    limits.expert_width = config_.moe.intermediate_size;
  }
  return arena.peak() + OwnColumnsBytes(max_rows, max_logit_rows) +
         options_.backend->workspace_bytes(limits) + Arena::kAlignment;
}

size_t DecoderModel::BesideBytes() const {
  return model::BesideBytes(moe_, *options_.backend, options_.act, config_.hidden_size);
}

// The widest columns that a rank of several computes beside the matrix that they are gathered in.
size_t DecoderModel::OwnColumnsBytes(int64_t max_rows, int64_t max_logit_rows) const {
  if (options_.shard.tp.size == 1 || options_.backend->on_host) return 0;
  int64_t widest = 0;
  for (const SplitPair& pair : {AttentionPair(), DensePair()}) {
    // Where results are added, a rank has whole rows.
    if (!pair.sums) widest = std::max({widest, config_.hidden_size, pair.cut.columns()});
  }
  const auto logits = static_cast<size_t>(max_logit_rows * config_.vocab_size);
  return std::max(static_cast<size_t>(max_rows * widest), logits) * sizeof(float) +
         2 * Arena::kAlignment;
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
                           const SplitWeight& head, Mat logits) {
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

void DecoderModel::EmbedTokens(ExecContext& ctx, const ForwardBatch& batch, const SplitTable& table,
                               Mat out) {
  if (table.table.cols > 0) {
    kernels::Embed(ctx,
                   {.tokens = batch.tokens, .table = table.table, .out = table.split.Mine(out)});
  }
  table.split.Complete(out);
}

void DecoderModel::Forward(ExecContext& ctx, const ForwardBatch& batch, Mat logits, Mat hidden) {
  const Shard& shard = options_.shard;
  if (batch.tokens.empty() && alone()) return;
  const ArenaScope scope(*ctx.workspace);
  Step step(ctx, batch, options_.act, config_.hidden_size);
  const std::span stream(step.stream.RowBytes(0),
                         static_cast<size_t>(step.rows * step.stream.cols) * sizeof(float));
  if (shard.is_first_stage()) {
    EmbedTokens(ctx, batch, embedding_, step.stream);
  } else {
    const TraceSpan span(batch.trace, "receive");
    shard.pipeline.comm->Receive(shard.pipeline.rank - 1, stream);
  }
  {
    const TraceSpan span(batch.trace, "layers");
    for (int64_t layer = shard.first_layer; layer < shard.end_layer; ++layer) {
      // The last layer's sum leaves the rank, or has a norm of another dtype.
      step.next_norm = layer + 1 < shard.end_layer ? &FirstNorm(layer + 1) : nullptr;
      RunLayer(step, layer);
    }
  }
  if (batch.after_layers) batch.after_layers();
  if (!shard.is_last_stage()) {
    // The sum that the next stage's norm would begin with: half the bytes, and the same bits.
    if (step.has_delta) kernels::Add(ctx, {.x = step.stream, .y = step.delta});
    const TraceSpan span(batch.trace, "send");
    shard.pipeline.comm->Send(shard.pipeline.rank + 1, stream);
    return;
  }
  const Mat normed = hidden.data != nullptr
                         ? hidden
                         : ctx.workspace->AllocMat(DType::kF32, step.rows, config_.hidden_size);
  FinishStream(step, final_norm_, normed);
  const TraceSpan span(batch.trace, "head");
  RunHead(ctx, batch, normed, head_, logits);
}

void DecoderModel::ForwardMtp(ExecContext& /*ctx*/, const ForwardBatch& /*batch*/, Mat /*hidden*/,
                              Mat /*logits*/) {
  MOEBIUS_CHECK(false && "this model has no MTP layer");
}

}  // namespace moebius::model
