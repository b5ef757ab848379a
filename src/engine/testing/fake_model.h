// For tests: the hash "model" of fake_device.h behind the interface of a real one. Its KV caches
// hold the hashes in float32 pieces, its logits are hashes of everything attended to, so the real
// runner and the real sampling can be tested without weights. Hooks make a step slow or failing.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "engine/testing/fake_device.h"
#include "model/model.h"
#include "model/model_config.h"

namespace moebius::engine::testing {

struct FakeModelHooks {
  std::atomic<int> num_failures{0};  // so many next steps throw
  std::atomic<int> delay_ms{0};      // of each step
  std::atomic<bool> hangs{false};    // steps do not end before this is false
  std::atomic<int> num_nan_rows{0};  // so many next logit rows are not numbers
};

class FakeModel : public model::Model {
 public:
  FakeModel(int64_t vocab_size, FakeModelHooks* hooks)
      : vocab_size_(vocab_size), hooks_(hooks), stats_(1, 4) {
    config_.vocab_size = vocab_size;
    config_.max_position = 128;
  }

  const model::ModelConfig& config() const override { return config_; }
  std::vector<model::KvLayerSpec> KvLayers() const override { return {{1, 0}, {kPieces, 1}}; }
  void BindKv(std::vector<KvLayer> layers) override { layers_ = std::move(layers); }
  size_t WorkspaceBytes(int64_t, int64_t, bool) const override { return 1024; }
  void ForwardMtp(kernels::ExecContext&, const model::ForwardBatch&, Mat, Mat) override {}
  moe::ExpertStats& expert_stats() override { return stats_; }

  void Forward(kernels::ExecContext&, const model::ForwardBatch& batch, Mat logits, Mat) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(hooks_->delay_ms.load()));
    while (hooks_->hangs.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (hooks_->num_failures.load() > 0) {
      --hooks_->num_failures;
      throw std::runtime_error("the device caught fire");
    }
    for (const TokenId token : batch.tokens) {
      stats_.Count(0, std::vector<int32_t>{token % 4});
      EXPECT_GE(token, 0);
      EXPECT_LT(token, vocab_size_);
    }
    num_nan_rows_ = hooks_->num_nan_rows.exchange(0);  // of a whole step or none
    if (batch.after_layers) batch.after_layers();
    const kernels::AttentionBatch& attention = batch.attention;
    size_t next_logit = 0;
    const size_t piece_rows = static_cast<size_t>(logits.rows);
    for (int64_t seq = 0; seq < attention.num_seqs(); ++seq) {
      const size_t s = static_cast<size_t>(seq);
      for (int32_t row = attention.query_start[s]; row < attention.query_start[s + 1]; ++row) {
        const size_t r = static_cast<size_t>(row);
        const int64_t position = batch.positions[r];
        const uint64_t before = position == 0 ? 0 : Load(KvRow(attention, seq, position - 1));
        Store(batch.kv_rows[r], FakeKv(before, batch.tokens[r], position));
        if (next_logit >= batch.logit_rows.size() || batch.logit_rows[next_logit] != row) continue;
        uint64_t sum = 0;
        for (int64_t p = 0; p <= position; ++p) {
          sum = FakeAttend(sum, Load(KvRow(attention, seq, p)), p);
        }
        const size_t place = next_logit++ % piece_rows;
        FillLogits(sum, logits.Row<float>(static_cast<int64_t>(place)));
        if (place + 1 == piece_rows || next_logit == batch.logit_rows.size()) {
          batch.take_logits(static_cast<int64_t>(next_logit - place - 1),
                            logits.Rows(0, static_cast<int64_t>(place + 1)));
        }
      }
    }
    EXPECT_EQ(next_logit, batch.logit_rows.size());
    hooks_->num_nan_rows += std::exchange(num_nan_rows_, 0);
  }

 private:
  static constexpr int64_t kPieces = 4;  // of 16 bits: exact as float32

  int64_t KvRow(const kernels::AttentionBatch& batch, int64_t seq, int64_t position) const {
    const int64_t block =
        batch
            .block_table[static_cast<size_t>(seq * batch.max_blocks + position / batch.block_size)];
    return block * batch.block_size + position % batch.block_size;
  }
  uint64_t Load(int64_t row) const {
    uint64_t value = 0;
    for (int64_t i = 0; i < kPieces; ++i) {
      value |= static_cast<uint64_t>(layers_[1].k.Row<float>(row)[i]) << (16 * i);
    }
    return value;
  }
  void Store(int64_t row, uint64_t value) {
    for (int64_t i = 0; i < kPieces; ++i) {
      layers_[1].k.Row<float>(row)[i] = static_cast<float>((value >> (16 * i)) & 0xffff);
    }
  }
  void FillLogits(uint64_t sum, float* logits) {
    const bool is_nan = num_nan_rows_ > 0;
    if (is_nan) --num_nan_rows_;
    for (int64_t token = 0; token < vocab_size_; ++token) {
      const uint64_t bits = Mix(sum, static_cast<uint64_t>(token));
      logits[token] = is_nan ? std::nanf("") : static_cast<float>(bits % 8192) / 1024.0f - 4.0f;
    }
  }

  int64_t vocab_size_;
  FakeModelHooks* hooks_;
  int num_nan_rows_ = 0;  // that are left of this step
  model::ModelConfig config_;
  std::vector<KvLayer> layers_;
  moe::ExpertStats stats_;
};

}  // namespace moebius::engine::testing
