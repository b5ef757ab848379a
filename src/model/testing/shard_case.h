// A model on one rank and on many, step by step: what tests of shards and of slots share. For
// tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "model/load.h"
#include "model/testing/checkpoint_writer.h"
#include "model/testing/group.h"
#include "model/testing/model_driver.h"

namespace moebius::model {

inline constexpr int64_t kMaxShardRows = 16;  // of a step

inline std::unique_ptr<platform::ThreadPool> OneThread() {
  return platform::ThreadPool::Create({0});
}

// The rows of one step by data-parallel rank; its sequence bears its number.
using StepRows = std::vector<std::vector<TokenId>>;

inline std::vector<TokenId> StepTokens(int count, int seed, int64_t vocab) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<TokenId>((i * 37 + seed * 11 + i * i * 5) % vocab));
  }
  return tokens;
}

// Prompts of several lengths, then decodes; now and then a rank has nothing.
inline std::vector<StepRows> Steps(int dp, int64_t vocab) {
  const int counts[][3] = {{11, 3, 7}, {1, 0, 2}, {1, 1, 0}, {0, 5, 1}, {9, 1, 1}};
  std::vector<StepRows> steps;
  for (const auto& step : counts) {
    StepRows rows;
    for (int d = 0; d < dp; ++d) {
      rows.push_back(StepTokens(step[d % 3], static_cast<int>(steps.size()) * 3 + d, vocab));
    }
    steps.push_back(rows);
  }
  return steps;
}

// What one data-parallel rank gets in a step.
struct ShardOutput {
  std::vector<float> logits;
  std::vector<float> hidden;
  std::vector<float> mtp;
  bool operator==(const ShardOutput&) const = default;
};

// The largest difference of two numbers at one place; infinity where there are more of one.
inline float MostApart(const ShardOutput& a, const ShardOutput& b) {
  float most = 0;
  for (const auto part : {&ShardOutput::logits, &ShardOutput::hidden, &ShardOutput::mtp}) {
    if ((a.*part).size() != (b.*part).size()) return std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < (a.*part).size(); ++i) {
      most = std::max(most, std::fabs((a.*part)[i] - (b.*part)[i]));
    }
  }
  return most;
}

inline ShardOutput RunStep(ModelDriver& driver, const ModelConfig& config,
                           const std::vector<ModelDriver::Rows>& rows) {
  ShardOutput output;
  output.logits = driver.Run(rows, &output.hidden);
  if (config.num_mtp_layers > 0 && rows.size() == 1) {
    output.mtp = driver.RunMtp(rows[0].sequence, rows[0].tokens, output.hidden);
  }
  return output;
}

// One model: its answers when one rank runs it, and whether many give the same.
class ShardCase {
 public:
  explicit ShardCase(LoadOptions options) : options_(std::move(options)) {
    config_ = *LoadConfig(options_);
    if (!options_.mtp) config_.num_mtp_layers = 0;
  }
  const ModelConfig& config() const { return config_; }

  bool Allows(const GroupLayout& layout) const {
    const RankGroup group(layout, config_, Act(), kMaxShardRows);
    ModelConfig config = config_;
    if (layout.pp > 1) config.num_mtp_layers = 0;
    if (layout.ep && config.moe.num_experts == 0) return false;
    return layout.pp <= config.num_layers && CheckShard(config, group.ShardOf(0)).has_value();
  }

  // By step and data-parallel rank: each alone in its batch.
  std::vector<std::vector<ShardOutput>> RunAlone(const std::vector<StepRows>& steps,
                                                 bool mtp) const {
    const auto pool = OneThread();
    LoadOptions options = options_;
    options.mtp = mtp;
    auto model = LoadModel(options, *pool);
    EXPECT_TRUE(model) << model.error().message();
    ModelDriver driver(**model, *options_.backend, *pool);
    std::vector<std::vector<ShardOutput>> outputs;
    for (const StepRows& step : steps) {
      std::vector<ShardOutput>& of_step = outputs.emplace_back();
      for (size_t d = 0; d < step.size(); ++d) {
        of_step.push_back(RunStep(driver, (*model)->config(), {{static_cast<int>(d), step[d]}}));
      }
    }
    counts_.assign((*model)->expert_counts().begin(), (*model)->expert_counts().end());
    return outputs;
  }

  void ExpectSameBits(const GroupLayout& layout) const { Expect(layout, 0); }
  // What its first rank sent.
  comm::CommBytes ExpectWithin(const GroupLayout& layout, float limit) const {
    return Expect(layout, limit);
  }

  // Of the last run: all, then those of prompts, as in ExpertStats::counts.
  const std::vector<int64_t>& counts() const { return counts_; }

  DType Act() const { return ActivationsOf(options_.dtype, config_); }

 private:
  // limit: how far apart numbers may be; 0: the same bits.
  comm::CommBytes Expect(const GroupLayout& layout, float limit) const {
    SCOPED_TRACE(layout.Name());
    const bool mtp = options_.mtp && layout.pp == 1;
    const std::vector<StepRows> steps = Steps(layout.dp, config_.vocab_size);
    const auto expected = RunAlone(steps, mtp);
    RankGroup group(layout, config_, Act(), kMaxShardRows);
    std::vector<int64_t> counts(counts_.size());
    std::mutex mutex;
    group.Run([&](int rank) {
      const auto pool = OneThread();
      LoadOptions options = options_;
      options.mtp = mtp;
      options.shard = group.ShardOf(rank);
      auto model = LoadModel(options, *pool);
      ASSERT_TRUE(model) << model.error().message();
      ModelDriver driver(**model, *options_.backend, *pool, 128);
      const auto dp = static_cast<size_t>(group.DpOf(rank));
      for (size_t s = 0; s < steps.size(); ++s) {
        group.BeginStep(rank, static_cast<int64_t>(s));
        std::vector<int64_t> dp_rows;
        for (const auto& rows : steps[s]) dp_rows.push_back(static_cast<int64_t>(rows.size()));
        // As many chunks as it takes, or more: some have no rows anywhere.
        driver.Agree(dp_rows, s % 2 == 0 ? 0 : kMaxShardRows);
        const ShardOutput output =
            RunStep(driver, (*model)->config(), {{static_cast<int>(dp), steps[s][dp]}});
        const Status status = group.StatusOf(rank);
        ASSERT_TRUE(status) << status.error().message();
        if (!group.IsLastStage(rank)) continue;
        if (limit > 0) {
          ASSERT_LE(MostApart(output, expected[s][dp]), limit) << "rank " << rank << ", step " << s;
          continue;
        }
        ASSERT_TRUE(output == expected[s][dp]) << "rank " << rank << ", step " << s;
      }
      const std::lock_guard lock(mutex);
      const std::span<const int64_t> mine = (*model)->expert_counts();
      // Under TP with cut experts or whole ones: each pair is routed by one rank.
      for (size_t i = 0; i < mine.size(); ++i) counts[i] += mine[i];
    });
    EXPECT_EQ(counts, counts_);
    return group.BytesOf(0);
  }

  LoadOptions options_;
  ModelConfig config_;
  mutable std::vector<int64_t> counts_;  // of the last RunAlone
};

inline LoadOptions Dummy(const TempFolder& folder, const char* config) {
  folder.Write("config.json", config);
  LoadOptions options;
  options.folder = folder.path();
  options.load_format = LoadFormat::kDummy;
  options.backend = kernels::AvailableBackends().front();
  options.mtp = false;
  return options;
}

}  // namespace moebius::model
