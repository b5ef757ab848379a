// A loaded model: configuration, packed weights, and one forward pass over a ragged batch of rows.
// Weights are const after loading. Forward is called by the rank's device thread only; it asks the
// host nothing and keeps no state between calls but the KV caches bound to it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/trace.h"
#include "kernels/backend.h"
#include "kernels/ops.h"
#include "model/part_timer.h"
#include "moe/expert_stats.h"
#include "tensor/view.h"

namespace moebius::moe {
class Exchange;
}  // namespace moebius::moe

namespace moebius::model {

class ExpertSlots;
struct ModelConfig;

// What one token of KV needs in one layer: one or two caches (K and V; MLA: the latent alone).
struct KvLayerSpec {
  int64_t width_k = 0;        // elements a token
  int64_t width_v = 0;        // 0: none
  DType dtype = DType::kF32;  // of both; fp8: bytes of a LatentRow (kernels/latent_row.h)

  int64_t bytes() const { return (width_k + width_v) * static_cast<int64_t>(SizeOf(dtype)); }
};

// The rows of one step. Rows of a sequence are adjacent and in order. Spans are in the memory of
// the back end that runs it (kernels/ops.h).
struct ForwardBatch {
  std::span<const TokenId> tokens;      // T
  std::span<const Position> positions;  // T
  std::span<const int64_t> kv_rows;     // T: where each row's KV goes, block * block_size + offset
  kernels::AttentionBatch attention;    // over the same rows
  std::span<const int32_t> logit_rows;  // rows whose logits are wanted, ascending

  // Rows of requests that generate, one each; they come first, those of prompts after them.
  int64_t num_decodes = 0;
  bool counts_experts = true;  // in expert_stats()
  // Of a CPU: grows by the choices of this rank's tokens that a copy on this rank serves, of
  // experts that have several; null: nobody counts.
  int64_t* num_home_copies = nullptr;

  // Where logits of all logit_rows would take too much memory they come in pieces, in order: each
  // is `logits.rows` long (the last one maybe less), and belongs to the logit rows from `first` on.
  // It lives until the call returns, which may sample from it with the forward pass's context.
  // Empty: `logits` has room for all.
  std::function<void(int64_t first, Mat logits)> take_logits;
  // Called when this rank's layers are done and the head is still to come. Empty: nobody asks.
  std::function<void()> after_layers;

  PartTimes* times = nullptr;  // is added to; null: not measured
  Trace* trace = nullptr;      // of the device thread; null: nobody wants one

  // What ranks have agreed on, where data-parallel ranks share experts: the rows of each, this
  // one's included, and the chunks that MoE layers take (0: as many as the fullest rank's rows
  // need).
  std::span<const int64_t> dp_rows;  // host
  int64_t moe_chunks = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;

  // The dtype of activations: float32 or bfloat16.
  virtual DType activations() const { return DType::kF32; }

  // Whose memory and layout the weights have.
  virtual const kernels::Backend& backend() const { return kernels::RefBackend(); }

  // Ranks that the attention heads are cut over.
  virtual int num_head_parts() const { return 1; }

  // Whether this rank gives logits: of pipeline stages the last one alone.
  virtual bool has_head() const { return true; }

  // Memory that weights and tables of this rank take.
  virtual size_t weight_bytes() const { return 0; }

  // This rank's layers in order, its KV heads; with an MTP layer it comes last.
  virtual std::vector<KvLayerSpec> KvLayers() const = 0;

  // Caches for KvLayers(), [num_blocks * block_size, width] each; they outlive the model's use.
  struct KvLayer {
    Mat k;
    Mat v;
  };
  virtual void BindKv(std::vector<KvLayer> layers) = 0;

  // Builds the rotation tables for positions 0 to num_positions - 1; before the first Forward. A
  // context may be far longer than what the KV caches hold, so this comes when that is known.
  virtual Status PreparePositions(int64_t /*num_positions*/, platform::ThreadPool& /*pool*/) {
    return {};
  }

  // Workspace that Forward takes at most for this many rows and logit rows of a piece, with what
  // sampling in take_logits needs. No data-parallel rank may have more rows. expands_latents: there
  // are chunks of prompts that attend so (kernels/tuning/latent_passes.h).
  virtual size_t WorkspaceBytes(int64_t max_rows, int64_t max_logit_rows,
                                bool expands_latents) const = 0;

  // The same of the context beside the one that Forward is given, where it has one
  // (ExecContext::beside). 0: it needs none.
  virtual size_t BesideBytes() const { return 0; }

  // logits [logit_rows.size(), vocab] float32, or less with take_logits. hidden (data may be null):
  // [T, H] float32, the hidden state after the final norm, which the MTP layer takes.
  // Of many ranks all run it, with 0 rows too; each of a TP group has the same rows, and all
  // logits. Pipeline stages but the last leave logits and hidden as they are. What went wrong
  // between ranks the communicators and the exchange know; after it results mean nothing.
  virtual void Forward(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat logits,
                       Mat hidden) = 0;

  // The MTP layer, where config().num_mtp_layers > 0: batch.tokens[t] is the token after row t's,
  // `hidden` row t what Forward gave for row t. Logits predict the token after batch.tokens[t].
  virtual void ForwardMtp(kernels::ExecContext& ctx, const ForwardBatch& batch, Mat hidden,
                          Mat logits) = 0;

  // Token-expert assignments since the last Clear, by MoE layer; counted by every Forward (the
  // device thread writes). Each rank counts what it routes: the sum over ranks has every one once.
  virtual moe::ExpertStats& expert_stats() = 0;
  // What carries rows to experts, and counts them; null: there are none.
  virtual const moe::Exchange* exchange() const { return nullptr; }
  // The slots of this rank's experts, to be moved; null: they stay where they are.
  virtual ExpertSlots* expert_store() { return nullptr; }
  // Chunks that MoE layers take where the fullest data-parallel rank has so many rows.
  virtual int64_t NumMoeChunks(int64_t /*rows*/) const { return 1; }
  // The same counts where the back end adds to them, [MoE layers, experts]; empty: none.
  virtual std::span<const int64_t> expert_counts() const { return {}; }
};

}  // namespace moebius::model
