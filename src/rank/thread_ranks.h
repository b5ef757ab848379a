// All ranks of a deployment as threads of this process: the whole engine over heap memory, as
// processes run it over shared memory. For tests of layouts wider than a machine, and where
// processes are not wanted; on GPUs it is the only way so far: rank r takes GPU r modulo their
// number.
#pragma once

#include <chrono>
#include <memory>

#include "engine/engine_client.h"
#include "engine/engine_options.h"
#include "layout/parallel_layout.h"
#include "model/load.h"
#include "moe/balance/options.h"
#include "moe/exchange/mode.h"
#include "moe/placement.h"

namespace moebius::rank {

struct RankOptions {
  model::LoadOptions load;  // backend set; shard is filled in
  engine::EngineOptions engine;
  layout::ParallelConfig parallel;  // legal for the model (layout/rules.h); names the exchange, too
  bool deterministic = false;       // the bits of one rank; on GPUs slowly, of one that is so, too
  int64_t max_num_tokens = 0;       // rows of a rank in one chunk of an exchange; 0: a step's share
  moe::ExchangeMode exchange_mode = moe::ExchangeMode::kAuto;
  moe::SlotAssignment slots;  // of whole experts; else there is nothing to assign
  moe::OnlineBalance online;  // of those
  int threads_per_rank = 1;
  std::chrono::milliseconds step_timeout = std::chrono::minutes(1);  // at most: step_bound.h
};

// Loads every rank's part and starts them. An error is that of the first rank that had one, with
// its number. options.engine.on_step hears of every leader's steps, one at a time.
Result<std::unique_ptr<engine::EngineClient>> StartThreadRanks(const RankOptions& options);

}  // namespace moebius::rank
