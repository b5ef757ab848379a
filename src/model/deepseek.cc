// DeepSeek-V2, V3, R1 and Kimi K2: multi-head latent attention, then (but for the first layers)
// experts beside a shared one, and for V3 a layer that predicts one token further (MTP). Papers:
// DeepSeek-V2 (2024), DeepSeek-V3 (2024).
//
// Keys and values of all heads come from one latent c of kv_lora_rank numbers and one rotated key
// r: the cache holds [c | r] and nothing else. W_uk and W_uv, which would expand c to keys and
// values, are absorbed instead: the query is taken into the latent space (q_n W_uk), attention runs
// there, and its result leaves through W_uv. Prefill does the same as decode, so that a row's bits
// do not depend on which of them computed it; only on back ends that promise no such bits, the
// sequences that the step names (AttentionBatch::expanded) are expanded, which takes a third of the
// operations for long prompts.
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/latent_row.h"
#include "model/families.h"
#include "model/rope.h"

namespace moebius::model {
namespace {

// transformers and DeepSeek's own code norm both latents with this epsilon whatever rms_norm_eps
// is.
constexpr double kLatentEps = 1e-6;

// Of this rank's heads; the way into the latent, and so the cache, is every rank's.
struct LatentAttention {
  Linear down;  // x -> [q latent |] c | r
  Norm q_norm;
  Norm kv_norm;
  Linear q;                                 // each head: qk_nope, then what is rotated
  std::vector<kernels::PackedWeight> w_uk;  // each [kv_lora_rank, qk_nope]
  std::vector<kernels::PackedWeight> w_uv;  // each [v, kv_lora_rank]
  Split heads;                              // the columns of the heads that `output` reads
  SplitWeight output;
};

struct Layer {
  Norm attention_norm;
  LatentAttention attention;
  Norm mlp_norm;
  Mlp mlp;                      // of a dense layer
  std::optional<MoeLayer> moe;  // of the others
};

// h' = eh_proj [enorm(embedding of the next token) | hnorm(h)], one layer, its own norm, a head.
struct Mtp {
  Norm e_norm;
  Norm h_norm;
  kernels::PackedWeight eh_proj;
  Layer layer;
  Norm head_norm;
};

class Deepseek final : public DecoderModel {
 public:
  Deepseek(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan)
      : DecoderModel(config, options, plan),
        layers_(config.layers.size()),
        softmax_scale_(MlaSoftmaxScale(
            config.rope, config.attention.qk_nope_head_dim + config.attention.qk_rope_head_dim)) {
    for (int64_t i = options_.shard.first_layer; i < options_.shard.end_layer; ++i) {
      const auto idx = static_cast<size_t>(i);
      DeclareLayer(plan, LayerPrefix(i), config_.layers[idx].moe, &layers_[idx]);
    }
    if (config_.num_mtp_layers > 0) DeclareMtp(plan);
  }

  void ForwardMtp(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
                  Mat logits) override;

 protected:
  KvLayerSpec KvSpec() const override {
    const kernels::LatentRow row = {config_.attention.kv_lora_rank,
                                    config_.attention.qk_rope_head_dim};
    if (options_.fp8_latents) return {.width_k = row.bytes(), .dtype = DType::kF8E4M3};
    return {.width_k = row.latent_dim + row.rope_dim, .dtype = options_.act};
  }

  const Norm& FirstNorm(int64_t layer) const override {
    return layers_[static_cast<size_t>(layer)].attention_norm;
  }
  // x += attention(norm(x)); x += mlp(norm(x)).
  void RunLayer(Step& step, int64_t layer_idx) override {
    const auto idx = static_cast<size_t>(layer_idx);
    Run(step, layers_[idx], KvOf(layer_idx).k);
  }
  void Run(Step& step, const Layer& layer, Mat cache) {
    AddAndNorm(step, layer.attention_norm);
    Attend(step, layer.attention, cache);
    AddAndNorm(step, layer.mlp_norm);
    if (layer.moe) {
      RunMoe(step, moe_, *layer.moe);
    } else {
      RunMlp(step, layer.mlp, step.normed, step.delta);
    }
  }

  void Attend(Step& step, const LatentAttention& attention, Mat cache);
  void ReserveAttention(Arena& arena, int64_t rows) const override {
    Buffers(arena, rows, options_.act, attention_, AttentionPair().inner.columns());
  }

 private:
  struct Buffers {
    Buffers(Arena& arena, int64_t rows, DType act, const AttentionConfig& c, int64_t head_columns)
        : down(arena.AllocMat(act, rows, c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim)),
          q(arena.AllocMat(act, rows, c.num_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim))),
          absorbed(arena.AllocMat(act, rows, c.num_heads * (c.kv_lora_rank + c.qk_rope_head_dim))),
          latent_out(arena.AllocMat(act, rows, c.num_heads * c.kv_lora_rank)),
          heads(arena.AllocMat(act, rows, head_columns)) {}
    Mat down;
    Mat q;
    Mat absorbed;  // each head: latent part, then rotated part
    Mat latent_out;
    Mat heads;  // that the output reads
  };

  void DeclareLayer(WeightPlan& plan, const std::string& prefix, bool moe, Layer* layer);
  void DeclareAttention(WeightPlan& plan, const std::string& prefix, LatentAttention* attention);
  void DeclareMtp(WeightPlan& plan);

  std::vector<Layer> layers_;
  Mtp mtp_;
  std::optional<SplitTable> mtp_embedding_;  // none: the main one
  std::optional<SplitWeight> mtp_head_;      // likewise
  float softmax_scale_;
};

// Rows [0, n) have all that attend absorbed; those behind them are of expanded sequences.
int64_t AbsorbedRows(const kernels::AttentionBatch& batch, int64_t rows) {
  for (size_t i = batch.expanded.size(); i > 0; --i) {
    const kernels::AttentionItem& sequence = batch.expanded[i - 1];
    if (sequence.row + sequence.queries != rows) break;
    rows = sequence.row;
  }
  return rows;
}

void Deepseek::Attend(Step& step, const LatentAttention& attention, Mat cache) {
  if (step.rows == 0) return;
  const PartTimer timer(step.batch.times, &PartTimes::attention);
  const ArenaScope scope(step.arena());
  kernels::ExecContext& ctx = step.ctx;
  const AttentionConfig& c = attention_;
  const int64_t cache_width = c.kv_lora_rank + c.qk_rope_head_dim;
  const int64_t qk_dim = c.qk_nope_head_dim + c.qk_rope_head_dim;
  const Buffers b(step.arena(), step.rows, step.act, c, attention.output.weight.k);

  Project(ctx, step.normed, attention.down, b.down);
  const Mat kv = b.down.Cols(c.q_lora_rank, cache_width);
  const bool is_low_rank = c.q_lora_rank > 0;
  const Mat low_rank = is_low_rank ? b.down.Cols(0, c.q_lora_rank) : Mat();
  kernels::PrepareLatents(ctx, {.x = kv,
                                .latent_dim = c.kv_lora_rank,
                                .norm = attention.kv_norm.weight,
                                .eps = attention.kv_norm.eps,
                                .interleaved = c.rope_interleaved,
                                .positions = step.batch.positions,
                                .table = rope_tables_.rope,
                                .rows = step.batch.kv_rows,
                                .cache = cache,
                                .q = low_rank,
                                .q_norm = attention.q_norm.weight,
                                .q_eps = attention.q_norm.eps});

  Project(ctx, is_low_rank ? low_rank : step.normed, attention.q, b.q);
  // Rows of expanded sequences between others are computed in vain, and written again below.
  const int64_t absorbed = AbsorbedRows(step.batch.attention, step.rows);
  const Mat absorbed_q = b.absorbed.Rows(0, absorbed);
  kernels::HeadGemm(ctx, {.a = b.q.Rows(0, absorbed),
                          .a_head_stride = qk_dim,
                          .weights = attention.w_uk,
                          .out = absorbed_q,
                          .out_head_stride = cache_width});
  kernels::RopeArgs rope = {.x = b.q.Rows(0, absorbed),
                            .num_heads = c.num_heads,
                            .head_stride = qk_dim,
                            .offset = c.qk_nope_head_dim,
                            .dim = c.qk_rope_head_dim,
                            .interleaved = c.rope_interleaved,
                            .positions = step.batch.positions.first(absorbed),
                            .table = rope_tables_.rope,
                            .out = absorbed_q,
                            .out_head_stride = cache_width,
                            .out_offset = c.kv_lora_rank};
  kernels::Rope(ctx, rope);
  if (!step.batch.attention.expanded.empty()) {
    rope.x = b.q;
    rope.positions = step.batch.positions;
    rope.out = {};
    kernels::Rope(ctx, rope);
  }

  kernels::MlaAttention(ctx, {.batch = step.batch.attention,
                              .q = absorbed_q,
                              .cache = cache,
                              .num_heads = c.num_heads,
                              .latent_dim = c.kv_lora_rank,
                              .rope_dim = c.qk_rope_head_dim,
                              .scale = softmax_scale_,
                              .out = b.latent_out.Rows(0, absorbed)});
  const Mat heads = OwnColumns(ctx, attention.heads, b.heads);
  kernels::HeadGemm(ctx, {.a = b.latent_out.Rows(0, absorbed),
                          .a_head_stride = c.kv_lora_rank,
                          .weights = attention.w_uv,
                          .out = heads.Rows(0, absorbed),
                          .out_head_stride = c.v_head_dim});
  kernels::MlaPrefill(ctx, {.batch = step.batch.attention,
                            .q = b.q,
                            .cache = cache,
                            .rope_dim = c.qk_rope_head_dim,
                            .w_uk = attention.w_uk,
                            .w_uv = attention.w_uv,
                            .scale = softmax_scale_,
                            .out = heads});
  attention.heads.Complete(heads, b.heads);
  Project(ctx, b.heads, attention.output, step.delta);
  step.has_delta = true;
}

void Deepseek::ForwardMtp(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
                          Mat logits) {
  MOEBIUS_CHECK_EQ(config_.num_mtp_layers, 1);
  if (batch.tokens.empty() && alone()) return;
  const ArenaScope scope(*ctx.workspace);
  const int64_t width = config_.hidden_size;
  Step step(ctx, batch, options_.act, width);
  {
    const ArenaScope input_scope(*ctx.workspace);
    const Mat embedded = ctx.workspace->AllocMat(DType::kF32, step.rows, width);
    const Mat joined = ctx.workspace->AllocMat(options_.act, step.rows, 2 * width);
    EmbedTokens(ctx, batch, mtp_embedding_ ? *mtp_embedding_ : embedding_, embedded);
    NormRows(ctx, embedded, mtp_.e_norm, joined.Cols(0, width));
    NormRows(ctx, hidden, mtp_.h_norm, joined.Cols(width, width));
    Project(ctx, joined, mtp_.eh_proj, step.stream);
  }
  Run(step, mtp_.layer, kv_.back().k);
  const Mat normed = ctx.workspace->AllocMat(DType::kF32, step.rows, width);
  FinishStream(step, mtp_.head_norm, normed);
  RunHead(ctx, batch, normed, mtp_head_ ? *mtp_head_ : head_, logits);
}

void Deepseek::DeclareAttention(WeightPlan& plan, const std::string& prefix,
                                LatentAttention* attention) {
  const AttentionConfig& c = config_.attention;
  const GroupPlace& tp = options_.shard.tp;
  const int64_t hidden = config_.hidden_size;
  const int64_t qk_dim = c.qk_nope_head_dim + c.qk_rope_head_dim;
  const int64_t kv_dim = c.qk_nope_head_dim + c.v_head_dim;
  Matrix q = WholeMatrix(prefix + "q_proj.weight", c.num_heads * qk_dim, hidden);
  std::vector<Matrix> down;
  if (c.q_lora_rank > 0) {
    q = WholeMatrix(prefix + "q_b_proj.weight", c.num_heads * qk_dim, c.q_lora_rank);
    down.push_back(WholeMatrix(prefix + "q_a_proj.weight", c.q_lora_rank, hidden));
    DeclareNorm(plan, prefix + "q_a_layernorm.weight", c.q_lora_rank, kLatentEps,
                &attention->q_norm);
  }
  down.push_back(WholeMatrix(prefix + "kv_a_proj_with_mqa.weight",
                             c.kv_lora_rank + c.qk_rope_head_dim, hidden));
  plan.Stacked(Part::kAttention, down, &attention->down);
  DeclareNorm(plan, prefix + "kv_a_layernorm.weight", c.kv_lora_rank, kLatentEps,
              &attention->kv_norm);

  const Matrix kv = WholeMatrix(prefix + "kv_b_proj.weight", c.num_heads * kv_dim, c.kv_lora_rank);
  const int64_t first_head = tp.rank * attention_.num_heads;
  const auto rows = [&](int64_t head, Matrix matrix, int64_t begin, int64_t count,
                        bool transposed) {
    matrix.held = head >= first_head && head < first_head + attention_.num_heads;
    matrix.select = [=](const kernels::WeightSource& whole) {
      const kernels::WeightSource part = whole.Rows(begin, count);
      return transposed ? part.Transposed() : part;
    };
    return matrix;
  };
  // In rows fp8 stays fp8 where a matrix is whole blocks of it: as many heads together as are. (A
  // rank with fewer keeps them in bfloat16, unlike one rank alone.)
  const int64_t together = kernels::kScaleBlock / std::gcd(kernels::kScaleBlock, qk_dim);
  const bool are_blocks =
      plan.layout() == kernels::WeightLayout::kRows && attention_.num_heads % together == 0;
  const int64_t step = are_blocks ? together : 1;
  std::vector<Matrix> q_heads;
  for (int64_t h = 0; h < c.num_heads; h += step) {
    q_heads.push_back(rows(h, q, h * qk_dim, step * qk_dim, false));
  }
  std::vector<Matrix> w_uk;
  std::vector<Matrix> w_uv;
  for (int64_t h = 0; h < c.num_heads; ++h) {
    w_uk.push_back(rows(h, kv, h * kv_dim, c.qk_nope_head_dim, true));
    w_uv.push_back(rows(h, kv, h * kv_dim + c.qk_nope_head_dim, c.v_head_dim, false));
  }
  plan.Stacked(Part::kAttention, q_heads, &attention->q);
  plan.Heads(Part::kAttention, w_uk, &attention->w_uk);
  plan.Heads(Part::kAttention, w_uv, &attention->w_uv);
  const int64_t width = c.num_heads * c.v_head_dim;
  DeclareSecond(plan, Part::kAttention, WholeMatrix(prefix + "o_proj.weight", hidden, width),
                AttentionPair(), &attention->heads, &attention->output);
}

void Deepseek::DeclareLayer(WeightPlan& plan, const std::string& prefix, bool moe, Layer* layer) {
  const double eps = config_.rms_norm_eps;
  DeclareNorm(plan, prefix + "input_layernorm.weight", config_.hidden_size, eps,
              &layer->attention_norm);
  DeclareAttention(plan, prefix + "self_attn.", &layer->attention);
  DeclareNorm(plan, prefix + "post_attention_layernorm.weight", config_.hidden_size, eps,
              &layer->mlp_norm);
  if (!moe) {
    DeclareMlp(plan, Part::kDenseMlp, prefix + "mlp.", DensePair(), &layer->mlp);
    return;
  }
  layer->moe.emplace();
  DeclareExperts(plan, prefix + "mlp.", {}, &*layer->moe);
  if (config_.moe.router == RouterKind::kSigmoidBias) {
    plan.Vector(Part::kRouter, prefix + "mlp.gate.e_score_correction_bias", config_.moe.num_experts,
                0.0f, &layer->moe->bias);
  }
  if (config_.moe.shared_intermediate_size > 0) {
    DeclareSharedExpert(plan, prefix + "mlp.shared_experts.", &*layer->moe);
  }
}

void Deepseek::DeclareMtp(WeightPlan& plan) {
  plan.set_mtp(true);
  const int64_t hidden = config_.hidden_size;
  const double eps = config_.rms_norm_eps;
  const std::string prefix = LayerPrefix(config_.num_layers);
  DeclareNorm(plan, prefix + "enorm.weight", hidden, eps, &mtp_.e_norm);
  DeclareNorm(plan, prefix + "hnorm.weight", hidden, eps, &mtp_.h_norm);
  plan.Packed(Part::kMtp, WholeMatrix(prefix + "eh_proj.weight", hidden, 2 * hidden),
              &mtp_.eh_proj);
  DeclareLayer(plan, prefix, config_.moe.num_experts > 0, &mtp_.layer);
  DeclareNorm(plan, prefix + "shared_head.norm.weight", hidden, eps, &mtp_.head_norm);
  // DeepSeek's files repeat the embedding and the head here; others leave them out.
  const std::string embedding = prefix + "embed_tokens.weight";
  if (plan.source().Has(embedding)) {
    DeclareEmbedding(plan, Part::kMtp, embedding, &mtp_embedding_.emplace());
  }
  const std::string head = prefix + "shared_head.head.weight";
  if (plan.source().Has(head)) {
    DeclareSplit(plan, Part::kMtp, WholeMatrix(head, config_.vocab_size, hidden, false),
                 options_.shard.tp, &mtp_head_.emplace());
  }
  plan.set_mtp(false);
}

}  // namespace

std::unique_ptr<DecoderModel> MakeDeepseek(const ModelConfig& config, const DecoderOptions& options,
                                           WeightPlan& plan) {
  return std::make_unique<Deepseek>(config, options, plan);
}

}  // namespace moebius::model
