// Runs a model without an engine: sequences with a small paged KV cache whose blocks are handed out
// in scrambled order. For tests; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/backend.h"
#include "model/model.h"
#include "model/model_config.h"
#include "platform/thread_pool.h"

namespace moebius::model {

class ModelDriver {
 public:
  static constexpr int64_t kBlockSize = 4;

  ModelDriver(Model& model, const kernels::Backend& backend, platform::ThreadPool& pool,
              int64_t num_blocks = 512)
      : model_(model) {
    for (int64_t b = 0; b < num_blocks; ++b) {
      free_.push_back(static_cast<int32_t>((b * 97 + 13) % num_blocks));
    }
    std::sort(free_.begin(), free_.end(),
              [](int32_t a, int32_t b) { return a * 7919 % 1009 < b * 7919 % 1009; });
    const int64_t rows = num_blocks * kBlockSize;
    std::vector<Model::KvLayer> layers;
    for (const KvLayerSpec& spec : model.KvLayers()) {
      layers.push_back(
          {MakeCache(rows, spec.width_k, spec.dtype), MakeCache(rows, spec.width_v, spec.dtype)});
    }
    model.BindKv(std::move(layers));
    MOEBIUS_CHECK(model.PreparePositions(rows, pool).has_value());
    ctx_.backend = &backend;
    ctx_.pool = &pool;
  }

  struct Rows {
    int sequence = 0;
    std::vector<TokenId> tokens;
  };

  // Of many ranks: the rows that each data-parallel rank brings to the next steps.
  void Agree(std::vector<int64_t> dp_rows, int64_t moe_chunks = 0) {
    dp_rows_ = std::move(dp_rows);
    moe_chunks_ = moe_chunks;
  }

  // One step over rows of several sequences, which it extends. Gives the logits of all rows, [T,
  // vocab]; `hidden`, unless null, gets [T, hidden].
  std::vector<float> Run(const std::vector<Rows>& rows, std::vector<float>* hidden = nullptr) {
    const Batch batch(*this, rows, /*extend=*/true);
    const int64_t vocab = model_.config().vocab_size;
    std::vector<float> logits(static_cast<size_t>(batch.num_rows() * vocab), kPoison);
    Mat hidden_mat;
    if (hidden != nullptr) {
      hidden->assign(static_cast<size_t>(batch.num_rows() * model_.config().hidden_size), kPoison);
      hidden_mat = Mat(hidden->data(), DType::kF32, batch.num_rows(), model_.config().hidden_size);
    }
    TakeWorkspace(batch.num_rows());
    model_.Forward(ctx_, batch.view(), Mat(logits.data(), DType::kF32, batch.num_rows(), vocab),
                   hidden_mat);
    return logits;
  }

  // The MTP layer over the rows that the last Run added to `sequence`: next[t] is the token after
  // row t's.
  std::vector<float> RunMtp(int sequence, const std::vector<TokenId>& next,
                            std::vector<float>& hidden) {
    const Batch batch(*this, {{sequence, next}}, /*extend=*/false);
    const int64_t vocab = model_.config().vocab_size;
    std::vector<float> logits(next.size() * static_cast<size_t>(vocab), kPoison);
    TakeWorkspace(batch.num_rows());
    model_.ForwardMtp(
        ctx_, batch.view(),
        Mat(hidden.data(), DType::kF32, batch.num_rows(), model_.config().hidden_size),
        Mat(logits.data(), DType::kF32, batch.num_rows(), vocab));
    return logits;
  }

  void Forget(int sequence) {
    for (const int32_t block : sequences_[sequence].blocks) free_.push_back(block);
    sequences_.erase(sequence);
  }
  size_t peak_workspace() const { return arena_.peak(); }

 private:
  static constexpr float kPoison = 1e30f;

  struct Sequence {
    std::vector<int32_t> blocks;
    int64_t length = 0;
  };

  // The arrays that a ForwardBatch points to.
  class Batch {
   public:
    Batch(ModelDriver& driver, const std::vector<Rows>& rows, bool extend) {
      query_start_.push_back(0);
      int64_t max_blocks = 1;
      for (const Rows& r : rows) {
        Sequence& sequence = driver.sequences_[r.sequence];
        const auto count = static_cast<int64_t>(r.tokens.size());
        const int64_t begin = extend ? sequence.length : sequence.length - count;
        sequence.length = begin + count;
        // As an engine has it: those that generate come first.
        if (count == 1 && begin > 0 && num_decodes_ == num_rows()) ++num_decodes_;
        while (static_cast<int64_t>(sequence.blocks.size()) * kBlockSize < sequence.length) {
          sequence.blocks.push_back(driver.free_.back());
          driver.free_.pop_back();
        }
        for (int64_t i = 0; i < count; ++i) {
          const int64_t position = begin + i;
          tokens_.push_back(r.tokens[static_cast<size_t>(i)]);
          positions_.push_back(static_cast<Position>(position));
          kv_rows_.push_back(sequence.blocks[static_cast<size_t>(position / kBlockSize)] *
                                 kBlockSize +
                             position % kBlockSize);
          logit_rows_.push_back(static_cast<int32_t>(logit_rows_.size()));
        }
        query_start_.push_back(static_cast<int32_t>(tokens_.size()));
        context_len_.push_back(static_cast<int32_t>(sequence.length));
        max_blocks = std::max(max_blocks, static_cast<int64_t>(sequence.blocks.size()));
      }
      for (const Rows& r : rows) {
        std::vector<int32_t> blocks = driver.sequences_[r.sequence].blocks;
        blocks.resize(static_cast<size_t>(max_blocks), -1);
        block_table_.insert(block_table_.end(), blocks.begin(), blocks.end());
      }
      view_.tokens = tokens_;
      view_.positions = positions_;
      view_.kv_rows = kv_rows_;
      view_.logit_rows = logit_rows_;
      view_.attention.query_start = query_start_;
      view_.attention.context_len = context_len_;
      view_.attention.block_table = block_table_;
      view_.attention.max_blocks = max_blocks;
      view_.attention.block_size = kBlockSize;
      view_.num_decodes = num_decodes_;
      view_.dp_rows = driver.dp_rows_;
      view_.moe_chunks = driver.moe_chunks_;
    }
    const ForwardBatch& view() const { return view_; }
    int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }

   private:
    std::vector<TokenId> tokens_;
    std::vector<Position> positions_;
    std::vector<int64_t> kv_rows_;
    std::vector<int32_t> logit_rows_;
    std::vector<int32_t> query_start_;
    std::vector<int32_t> context_len_;
    std::vector<int32_t> block_table_;
    int64_t num_decodes_ = 0;
    ForwardBatch view_;
  };

  Mat MakeCache(int64_t rows, int64_t width, DType dtype) {
    if (width == 0) return {};
    caches_.emplace_back(static_cast<size_t>(rows * width) * SizeOf(dtype), std::byte{0x7f});
    return Mat(caches_.back().data(), dtype, rows, width);
  }

  // Exactly what the model asked for, poisoned.
  void TakeWorkspace(int64_t rows) {
    for (const int64_t others : dp_rows_) rows = std::max(rows, others);
    const size_t num_bytes = model_.WorkspaceBytes(rows, rows, /*expands_latents=*/false);
    workspace_.assign(num_bytes + 64, std::byte{0x7f});
    const auto begin = (reinterpret_cast<uintptr_t>(workspace_.data()) + 63) / 64 * 64;
    arena_ = Arena(reinterpret_cast<void*>(begin), num_bytes);
    ctx_.workspace = &arena_;
  }

  Model& model_;
  kernels::ExecContext ctx_;
  std::vector<std::byte> workspace_;
  Arena arena_;
  std::vector<std::vector<std::byte>> caches_;
  std::vector<int32_t> free_;
  std::map<int, Sequence> sequences_;
  std::vector<int64_t> dp_rows_;
  int64_t moe_chunks_ = 0;
};

}  // namespace moebius::model
