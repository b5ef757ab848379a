// Several engines, one a data-parallel rank, as one: chooses the rank of each request
// (rank_choice.h) and counts what each has to compute by listening to the tokens that come. The
// engines run in this process or behind a connection; this does not know. Any thread may call it,
// as any EngineClient; destroying it ends every request as its engine's destruction does.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "rank/rank_choice.h"

namespace moebius::rank {

struct DataParallelOptions {
  int64_t block_size = 16;  // tokens; the engines'
  bool enable_prefix_caching = true;
};

class DataParallelClient final : public engine::EngineClient {
 public:
  // Rank i is engines[i]. kInvalidArgument: none is there, or they serve different models.
  static Result<std::unique_ptr<DataParallelClient>> Create(
      std::vector<std::unique_ptr<engine::EngineClient>> engines,
      const DataParallelOptions& options);
  ~DataParallelClient() override;

  // What every rank takes, the shortest max_model_len; the numbers of requests are sums.
  const engine::EngineLimits& limits() const override { return limits_; }

  // Takes the next best rank where one is unavailable, unless input.data_parallel_rank names one.
  // kUnavailable: all are (with the reason of the best), or that one.
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override;
  void Cancel(engine::RequestId request,
              engine::FinishReason reason = engine::FinishReason::kCancelled) override;

  // Of all ranks together: sums; the longest time without progress; the maxima of durations.
  engine::EngineStats Stats() const override;
  moe::ExpertStats ExpertLoad() const override;
  // Of all engines' ranks, one after the other.
  std::vector<moe::ExpertStats> ExpertLoadByRank() const override;
  std::vector<engine::RankLoad> RankLoads() const override;
  // The first rank's that is not OK, with its number.
  Status Health() const override;

  int num_ranks() const { return static_cast<int>(engines_.size()); }
  // By rank.
  std::vector<engine::EngineStats> RankStats() const;
  std::vector<RankBacklog> Backlogs() const;  // as the choice of a rank sees them

 private:
  struct Live;

  DataParallelClient(std::vector<std::unique_ptr<engine::EngineClient>> engines,
                     engine::EngineLimits limits, const RankChoiceOptions& options);

  Result<engine::RequestId> SubmitTo(int rank, const engine::RequestInput& input,
                                     const std::shared_ptr<Live>& live);
  void OnEvent(Live& live, const engine::TokenEvent& event);
  void Count(Live& live, bool has_ended);
  // One id for (rank, the engine's id): no table to keep, and none twice.
  engine::RequestId IdOf(int rank, engine::RequestId id) const;

  const engine::EngineLimits limits_;
  const int64_t block_size_;

  mutable std::mutex mutex_;
  RankChoice choice_;

  // A sink may call Submit and Cancel while the engines are being destroyed.
  std::shared_mutex stopping_mutex_;  // shared by those who call an engine
  bool is_stopping_ = false;
  std::vector<std::unique_ptr<engine::EngineClient>> engines_;  // last: their threads end first
};

}  // namespace moebius::rank
