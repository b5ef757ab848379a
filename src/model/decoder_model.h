// What all families share: embedding, layers one after the other, final norm, head. A family
// declares its layers' weights in its constructor and runs one layer at a time; this class does the
// rest. Threads as in model.h.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "model/checkpoint.h"
#include "model/expert_slots.h"
#include "model/layers.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/shard.h"
#include "model/weight_plan.h"
#include "moe/exchange/local.h"
#include "moe/forced_routing.h"
#include "platform/memory_space.h"
#include "platform/thread_pool.h"

namespace moebius::model {

struct DecoderOptions {
  DType act = DType::kF32;                    // float32 or bfloat16, and so KV, but for:
  bool fp8_latents = false;                   // what MLA caches; no other family has it
  std::optional<moe::RoutingSpec> routing;    // instead of the router's choice
  const kernels::Backend* backend = nullptr;  // that will run it; never null
  Shard shard;                                // checked
};

// Whom a forced routing is for.
moe::RoutedExperts RoutedExpertsOf(const ModelConfig& config, const Shard& shard);

class DecoderModel : public Model {
 public:
  // Declares what is common in `plan`.
  DecoderModel(const ModelConfig& config, const DecoderOptions& options, WeightPlan& plan);

  // Fills the declared weights; before, a model only describes itself.
  Status Load(WeightPlan& plan, platform::ThreadPool& pool);
  // Where the weights came from; for models whose experts move (Shard::num_staging), after Load.
  Status KeepSource(std::unique_ptr<Checkpoint> checkpoint, std::unique_ptr<TensorSource> source);

  const ModelConfig& config() const override { return config_; }
  DType activations() const override { return options_.act; }
  size_t weight_bytes() const override;
  const kernels::Backend& backend() const override { return *options_.backend; }
  int num_head_parts() const override { return options_.shard.tp.size; }
  bool has_head() const override { return options_.shard.is_last_stage(); }
  std::vector<KvLayerSpec> KvLayers() const override;
  void BindKv(std::vector<KvLayer> layers) override;
  Status PreparePositions(int64_t num_positions, platform::ThreadPool& pool) override;
  size_t WorkspaceBytes(int64_t max_rows, int64_t max_logit_rows,
                        bool expands_latents) const override;
  size_t BesideBytes() const override;
  void Forward(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat logits,
               Mat hidden) override;
  void ForwardMtp(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
                  Mat logits) override;
  moe::ExpertStats& expert_stats() override;
  int64_t NumMoeChunks(int64_t rows) const override {
    return config_.moe.num_experts > 0 ? model::NumMoeChunks(moe_, rows) : 1;
  }
  ExpertSlots* expert_store() override { return expert_slots_.get(); }
  std::span<const int64_t> expert_counts() const override { return moe_.counts; }
  const moe::Exchange* exchange() const override {
    return config_.moe.num_experts > 0 ? moe_.exchange : nullptr;
  }

 protected:
  virtual KvLayerSpec KvSpec() const = 0;
  virtual void RunLayer(Step& step, int64_t layer) = 0;    // one of this rank's
  virtual const Norm& FirstNorm(int64_t layer) const = 0;  // the AddAndNorm that it begins with
  // Takes what one attention block takes from an arena that only counts.
  virtual void ReserveAttention(Arena& arena, int64_t rows) const = 0;

  // Declaring: names are completed with config.tensor_prefix.
  std::string LayerPrefix(int64_t layer) const;  // "model.layers.3."
  void DeclareNorm(WeightPlan& plan, const std::string& name, int64_t n, double eps, Norm* norm);
  // Of `group` each rank has its share of the outputs.
  Split SplitOf(const GroupPlace& group, int64_t outputs) const;
  void DeclareSplit(WeightPlan& plan, Part part, const Matrix& matrix, const GroupPlace& group,
                    SplitWeight* weight);
  // How the TP group shares attention's heads and its output, and a dense MLP.
  SplitPair AttentionPair() const;
  SplitPair DensePair() const;
  // The second matrix of a pair, and which columns it reads.
  void DeclareSecond(WeightPlan& plan, Part part, const Matrix& matrix, const SplitPair& pair,
                     Split* inner, SplitWeight* weight);
  void DeclareMlp(WeightPlan& plan, Part part, const std::string& prefix, const SplitPair& pair,
                  Mlp* mlp);
  // Cut where routed experts are, else whole on every rank.
  void DeclareSharedExpert(WeightPlan& plan, const std::string& prefix, MoeLayer* layer);
  // An embedding table: each rank has some columns.
  struct SplitTable {
    Mat table;
    Split split;
  };
  void DeclareEmbedding(WeightPlan& plan, Part part, const std::string& name, SplitTable* table);
  // Router `prefix`gate.weight and experts `prefix`experts.<e>.<gate>.weight, ...
  struct ExpertNames {
    const char* gate = "gate_proj";
    const char* up = "up_proj";
    const char* down = "down_proj";
  };
  void DeclareExperts(WeightPlan& plan, const std::string& prefix, const ExpertNames& names,
                      MoeLayer* layer);
  // The same from whole matrices of each expert. matrices_of is kept, for experts that move.
  void DeclareExpertMatrices(WeightPlan& plan, const std::string& router,
                             const std::function<ExpertMatrices(int64_t expert)>& matrices_of,
                             MoeLayer* layer);

  bool alone() const { return options_.shard.alone(); }
  const Model::KvLayer& KvOf(int64_t layer) const {
    return kv_[static_cast<size_t>(layer - options_.shard.first_layer)];
  }
  void EmbedTokens(kernels::ExecContext& ctx, const ForwardBatch& batch, const SplitTable& table,
                   Mat out);
  // stream += delta; `out` [T, H] = final norm of the stream.
  void FinishStream(Step& step, const Norm& norm, Mat out);
  // logits of batch.logit_rows of `hidden` [T, H], which is normed; in pieces if the batch takes
  // them so.
  void RunHead(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
               const SplitWeight& head, Mat logits);

  const ModelConfig config_;
  const DecoderOptions options_;
  const AttentionConfig attention_;  // of this rank's heads
  MoeShared moe_;
  RopeTables rope_tables_;
  SplitTable embedding_;
  SplitWeight head_;
  Norm final_norm_;
  std::vector<KvLayer> kv_;

 private:
  // Panels stay whole, and with them the block scales of fp8; a GPU keeps fp8 only by whole blocks.
  int64_t SplitUnit() const;
  SplitPair TpPair(const Split& cut) const;
  void PrepareMoe();
  size_t OwnColumnsBytes(int64_t max_rows, int64_t max_logit_rows) const;
  moe::SlotTableBlock TableBlock() const;
  Status LoadForcedRouting();
  Status LoadMoeTables();

  moe::LocalExchange local_exchange_;
  std::unique_ptr<platform::Memory> weights_;
  std::unique_ptr<platform::Memory> tables_;
  std::unique_ptr<platform::Memory> moe_tables_;     // of a device
  std::unique_ptr<platform::Memory> routing_table_;  // likewise, of forced_routing_
  std::optional<moe::ForcedRouting> forced_routing_;
  int num_threads_ = 1;
  int num_moe_declared_ = 0;
  std::vector<ExpertSlots::Layer> moe_layers_;  // of this rank; they stay where they are
  // Of experts that move.
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<TensorSource> source_;
  std::byte* staging_ = nullptr;
  size_t staging_bytes_ = 0;
  std::unique_ptr<ExpertSlots> expert_slots_;
};

}  // namespace moebius::model
