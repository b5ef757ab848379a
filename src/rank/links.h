// What connects one rank to the others of a deployment: its communicators, its exchange, lockstep
// and step ring, all over one memory that every rank maps (heap for threads, an inherited
// descriptor for processes). Made once, before the model is loaded; used by the device thread, but
// for the control block.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "comm/shared_communicator.h"
#include "layout/parallel_layout.h"
#include "model/shard.h"
#include "moe/balance/options.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/protocol.h"
#include "rank/balance_board.h"
#include "rank/control.h"
#include "rank/expert_counts.h"
#include "rank/lockstep.h"
#include "rank/rank_device.h"
#include "rank/step_channel.h"

namespace moebius::rank {

// What all ranks agree on before they start.
struct DeploymentShape {
  layout::ParallelConfig parallel;
  int64_t num_layers = 0;
  bool has_experts = false;  // else data-parallel ranks share nothing
  int num_moe_layers = 0;    // of the whole model, at most
  int num_experts = 0;       // of one of them
  size_t chunk_bytes = 0;    // of a communicator: model::WidestRowBytes or more
  size_t plan_bytes = 0;     // of a usual step plan
  bool sums = false;         // model::Shard::sums
  size_t stage_bytes = 0;    // that one pipeline stage hands to the next in a step, at most
  // Of whole experts (expert parallelism over more than one rank), but for num_ranks.
  moe::ExchangeShape exchange;
  moe::ExchangeMode exchange_mode = moe::ExchangeMode::kAuto;  // each rank's own business
  moe::SlotAssignment slots;                                   // of whole experts
  moe::OnlineBalance online;                                   // likewise
  std::vector<int64_t> moe_layers;                             // their layers of the model
  int num_spins = 0;

  int num_ranks() const { return parallel.num_gpus(); }
  bool exchanges() const { return has_experts && parallel.expert_parallel_active(); }
  // The exchange is one of collectives, over the communicator of the expert group.
  bool gathers_tokens() const {
    return exchanges() &&
           parallel.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter;
  }
  // Experts move between slots while it runs.
  bool moves_experts() const { return exchanges() && online.is_on(); }
  bool cuts_experts() const {
    return has_experts && parallel.expert_group() > 1 && !parallel.enable_expert_parallel;
  }
  // Data-parallel ranks run their steps together.
  bool steps_together() const { return has_experts && parallel.data_parallel_size > 1; }
};

class Links {
 public:
  // Of the deployment's memory, which begins as zeros and then holds a Control (Control::Create).
  static size_t NumBytes(const DeploymentShape& shape);
  // Where ranks agree on moves; none: experts stay.
  static std::optional<BalanceBoard> BoardIn(const DeploymentShape& shape,
                                             std::span<std::byte> memory);
  // The part at its beginning.
  static size_t ControlBytes(const DeploymentShape& shape);
  // What ranks have routed, in the deployment's memory.
  static ExpertCounts ExpertCountsIn(const DeploymentShape& shape, std::span<std::byte> memory);
  // Of all that must be the same for the memory to mean the same.
  static uint64_t HashOf(const DeploymentShape& shape);

  // kCorrupt: the memory is no Control of this shape.
  static Result<std::unique_ptr<Links>> Open(const DeploymentShape& shape, RankId rank,
                                             std::span<std::byte> memory);

  RankId rank() const { return rank_; }
  const layout::RankPlace& place() const { return place_; }
  const DeploymentShape& shape() const { return shape_; }
  const Control& control() const { return control_; }
  const ExpertCounts& expert_counts() const { return expert_counts_; }
  const std::optional<BalanceBoard>& board() const { return board_; }
  bool is_leader() const { return place_.tp == 0 && place_.pp == 0; }
  // First of the last stage: has the logits.
  bool draws() const {
    return place_.tp == 0 && place_.pp + 1 == shape_.parallel.pipeline_parallel_size;
  }
  int num_stages() const { return shape_.parallel.pipeline_parallel_size; }
  // Where there are later stages a step's tokens are known before another needs them.
  bool hears_tokens() const { return num_stages() == 1; }
  int num_followers() const {
    return shape_.parallel.tensor_parallel_size * shape_.parallel.pipeline_parallel_size - 1;
  }

  // A GPU's collectives take the place of the host's; before Shard is asked for.
  void Attach(std::unique_ptr<RankDevice> device) { device_ = std::move(device); }
  RankDevice* device() const { return device_.get(); }  // null: the host computes

  // The model's part of this rank, to be completed by whoever knows more.
  model::Shard Shard() const;
  // The same of any rank, without those that it runs with.
  static model::Shard ShardOf(const DeploymentShape& shape, RankId rank);

  comm::Communicator& world() { return *world_; }  // all ranks, for the start
  comm::Communicator* tp() { return tp_.get(); }   // null: alone
  comm::Communicator* pipeline() { return pipeline_.get(); }
  Lockstep* lockstep() { return lockstep_.get(); }      // a leader's, where steps are shared
  StepSender* sender() { return sender_.get(); }        // a leader's with followers
  StepReceiver* receiver() { return receiver_.get(); }  // a follower's
  // With several stages, what was drawn: from the rank that draws to its leader.
  StepSender* output_sender() { return output_sender_.get(); }
  StepReceiver* output_receiver() { return output_receiver_.get(); }

  // The calls until the next one belong to `step`, and end by `deadline`.
  void BeginStep(int64_t step, comm::Clock::time_point deadline);
  comm::Clock::time_point deadline() const { return deadline_; }
  // The first failure of any of them; or that another rank has had one: what came from there may be
  // anything.
  Status status() const;
  // Nanoseconds that the device thread has waited in them for other ranks. (For a plan, or for
  // others to have work, is no such wait.)
  const std::atomic<int64_t>& waited_ns() const { return waited_ns_; }

 private:
  struct Places;
  static Places Carve(const DeploymentShape& shape, RankId rank, std::span<std::byte> memory);

  Links(const DeploymentShape& shape, RankId rank, const Places& places, Control control);
  void OpenOutputs(std::span<std::byte> memory);

  const DeploymentShape shape_;
  const RankId rank_;
  const layout::RankPlace place_;
  const Control control_;
  const ExpertCounts expert_counts_;
  const std::optional<BalanceBoard> board_;
  const std::span<comm::Awaited> awaited_;
  std::atomic<int64_t> waited_ns_{0};
  std::unique_ptr<comm::Communicator> world_;
  std::unique_ptr<comm::Communicator> tp_;
  std::unique_ptr<comm::Communicator> experts_;
  std::unique_ptr<comm::Communicator> pipeline_;
  std::unique_ptr<moe::Exchange> exchange_;  // may use experts_
  std::unique_ptr<Lockstep> lockstep_;
  std::unique_ptr<StepSender> sender_;
  std::unique_ptr<StepReceiver> receiver_;
  std::unique_ptr<RankDevice> device_;
  std::unique_ptr<StepSender> output_sender_;
  std::unique_ptr<StepReceiver> output_receiver_;
  comm::Clock::time_point deadline_;
};

}  // namespace moebius::rank
