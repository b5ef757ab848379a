#include "rank/rank_device.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "base/math.h"
#include "comm/cuda/device_communicator.h"
#include "comm/cuda/peer_directory.h"
#include "layout/parallel_layout.h"
#include "moe/exchange/cuda/device_exchange.h"
#include "moe/migrate/cuda/device_copies.h"
#include "platform/cuda/device.h"
#include "platform/cuda/shareable_memory.h"
#include "platform/cuda/stream.h"
#include "rank/links.h"

namespace moebius::rank {
namespace {

using comm::DeviceCommunicator;
using comm::DeviceGroup;
using comm::PeerDirectory;
using comm::PeerMemory;
using platform::cuda::ShareableMemory;

// Of a piece that a rank brings into one all-gather: more go one after the other.
constexpr size_t kStagingBytes = size_t{16} << 20;

constexpr size_t kLeastMessage = 16;

// Of a piece of an expert that travels: the movers' threads sleep and wake some times for each.
constexpr size_t kMailBytes = size_t{32} << 20;

// A rank's parts of memory that it shares, in the directory's order.
enum Part : size_t { kTpPart, kExpertsPart, kPipelinePart, kExchangePart, kMailPart };

// The pool's threads copy weights: to this rank's GPU.
Status SelectOnAll(platform::ThreadPool& pool, int device) {
  std::atomic<int> num_selected{0};
  std::atomic<bool> failed{false};
  const int num_threads = pool.num_threads();
  pool.Run(num_threads, [&](int64_t /*task*/, int /*thread*/) {
    if (!platform::cuda::SelectDevice(device)) failed = true;
    ++num_selected;
    // Who has a task takes no other one before all have theirs.
    while (num_selected < num_threads) std::this_thread::yield();
  });
  if (!failed) return {};
  return MakeError(ErrorCode::kUnavailable, "GPU {} cannot be selected", device);
}

class CudaRankDevice final : public RankDevice {
 public:
  CudaRankDevice(Links& links, std::chrono::milliseconds wait_limit)
      : links_(links), wait_limit_(wait_limit) {}

  Status Open(platform::ThreadPool& pool);

  int num_sharers() const override { return num_sharers_; }
  engine::DeviceRank OfRunner() const override {
    // Where each rank gathers the others' rows it must know them to the row.
    const bool exact =
        links_.shape().cuts_experts() && links_.shape().parallel.data_parallel_size > 1;
    return {.device = device_,
            .stream = &stream_,
            .pads = !exact,
            .graphs = num_sharers_ == 1 && !shares_process_,
            // Where there is one stage everybody does, for the rows of the next step.
            .draws = links_.hears_tokens() || links_.draws(),
            .counters = &links_.control().Counters(links_.rank().value()),
            .status = [this] { return status(); },
            .ended = {}};
  }
  void Complete(model::Shard* shard) const override {
    shard->tp.comm = tp_.get();
    shard->experts.comm = experts_.get();
    shard->pipeline.comm = pipeline_.get();
    shard->exchange = exchange_.get();
    shard->copies = copies_.get();
  }
  MailMemory Mail() const override { return mail_; }
  void BeginStep(int64_t step, comm::Clock::time_point deadline) override {
    if (exchange_ != nullptr) exchange_->BeginStep(step, deadline);
  }
  // The first failure; all are asked, for they tell their kernels of it.
  Status status() const override {
    Status first;
    const auto ask = [&](const auto* group) {
      if (group == nullptr) return;
      const Status status = group->status();
      if (first) first = status;
    };
    for (const DeviceCommunicator* comm : {tp_.get(), experts_.get(), pipeline_.get()}) ask(comm);
    ask(exchange_.get());
    return first;
  }

 private:
  moe::ExchangeShape ExchangeShape() const {
    moe::ExchangeShape shape = links_.shape().exchange;
    shape.num_ranks = links_.shape().parallel.expert_group();
    return shape;
  }
  comm::DeviceStaging GroupStaging() const {
    return {.gather = std::max(kStagingBytes, links_.shape().chunk_bytes),
            .reduces = links_.shape().sums};
  }
  // A step's rows are one message: so a stage is as far ahead of the next one as on CPUs.
  comm::DeviceStaging StageStaging() const {
    return {.message = RoundUp(links_.shape().stage_bytes, kLeastMessage)};
  }
  // Nobody writes to the first stage: it has the counts before its letters alone.
  comm::DeviceStaging OwnStageStaging() const {
    return links_.place().pp > 0 ? StageStaging() : comm::DeviceStaging{.message = kLeastMessage};
  }
  Status Select(platform::ThreadPool& pool);
  Status Allocate();
  Status Connect(PeerDirectory& directory);
  // Over a part of the ranks' memory.
  Result<DeviceGroup> GroupOf(const char* name, const std::vector<RankId>& ranks,
                              PeerDirectory& directory, Part part);

  Links& links_;
  const std::chrono::milliseconds wait_limit_;
  int device_ = 0;
  int num_sharers_ = 1;
  bool shares_process_ = false;  // with other ranks
  platform::cuda::Stream stream_;
  PeerMemory tp_memory_;
  PeerMemory experts_memory_;
  PeerMemory pipeline_memory_;
  PeerMemory exchange_memory_;
  std::unique_ptr<DeviceCommunicator> tp_;
  std::unique_ptr<DeviceCommunicator> experts_;
  std::unique_ptr<DeviceCommunicator> pipeline_;
  std::unique_ptr<moe::DeviceExchange> exchange_;
  // Of experts that move.
  std::unique_ptr<moe::DeviceCopies> copies_;
  ShareableMemory mail_memory_;
  MailMemory mail_;
  std::vector<ShareableMemory> mappings_;  // of other processes' memory
};

Status CudaRankDevice::Select(platform::ThreadPool& pool) {
  MOEBIUS_ASSIGN(const int num_devices, NumRankDevices());
  const int num_ranks = links_.shape().num_ranks();
  device_ = links_.rank().value() % num_devices;
  // Of the fullest GPU: what ranks launch together must be the same on all of them.
  num_sharers_ = static_cast<int>(CeilDiv(num_ranks, num_devices));
  MOEBIUS_TRY(SelectOnAll(pool, device_));
  MOEBIUS_TRY(platform::cuda::SelectDevice(device_));
  return {};
}

Status CudaRankDevice::Allocate() {
  // Experts that move do so behind the steps.
  const bool moves = links_.shape().moves_experts();
  MOEBIUS_ASSIGN(stream_, platform::cuda::Stream::Create(/*high_priority=*/moves));
  if (moves) {
    MOEBIUS_ASSIGN(copies_, moe::DeviceCopies::Create(device_, stream_));
    MOEBIUS_ASSIGN(mail_memory_, ShareableMemory::Allocate(kMailBytes));
  }
  if (links_.tp() != nullptr) {
    MOEBIUS_ASSIGN(tp_memory_, DeviceCommunicator::Allocate(GroupStaging()));
  }
  if (links_.shape().cuts_experts()) {
    MOEBIUS_ASSIGN(experts_memory_, DeviceCommunicator::Allocate(GroupStaging()));
  }
  if (links_.num_stages() > 1) {
    MOEBIUS_ASSIGN(pipeline_memory_, DeviceCommunicator::Allocate(OwnStageStaging()));
  }
  if (links_.shape().exchanges()) {
    MOEBIUS_ASSIGN(exchange_memory_, moe::DeviceExchange::Allocate(ExchangeShape()));
  }
  return {};
}

Result<DeviceGroup> CudaRankDevice::GroupOf(const char* name, const std::vector<RankId>& ranks,
                                            PeerDirectory& directory, Part part) {
  DeviceGroup group;
  group.info.name = name;
  group.info.abort = &links_.control().abort();
  group.info.world_ranks.clear();
  for (const RankId rank : ranks) {
    if (rank == links_.rank()) group.info.rank = static_cast<int>(group.bases.size());
    group.info.world_ranks.push_back(rank.value());
    MOEBIUS_ASSIGN(std::byte* const base, directory.Map(rank.value(), part, &mappings_));
    group.bases.push_back(base);
  }
  group.stream = stream_.get();
  group.wait_limit = wait_limit_;
  group.num_sharers = num_sharers_;
  return group;
}

Status CudaRankDevice::Connect(PeerDirectory& directory) {
  const layout::ParallelConfig& parallel = links_.shape().parallel;
  const std::vector<RankId> experts = layout::ExpertGroup(parallel, links_.rank());
  if (tp_memory_.data() != nullptr) {
    MOEBIUS_ASSIGN(DeviceGroup group,
                   GroupOf("tensor parallelism", layout::TpGroup(parallel, links_.rank()),
                           directory, kTpPart));
    tp_ = std::make_unique<DeviceCommunicator>(std::move(group), &tp_memory_, GroupStaging());
  }
  if (experts_memory_.data() != nullptr) {
    MOEBIUS_ASSIGN(DeviceGroup group, GroupOf("cut experts", experts, directory, kExpertsPart));
    experts_ =
        std::make_unique<DeviceCommunicator>(std::move(group), &experts_memory_, GroupStaging());
  }
  if (pipeline_memory_.data() != nullptr) {
    MOEBIUS_ASSIGN(DeviceGroup group,
                   GroupOf("the pipeline", layout::PpGroup(parallel, links_.rank()), directory,
                           kPipelinePart));
    pipeline_ =
        std::make_unique<DeviceCommunicator>(std::move(group), &pipeline_memory_, StageStaging());
  }
  if (exchange_memory_.data() != nullptr) {
    MOEBIUS_ASSIGN(DeviceGroup group,
                   GroupOf("the experts' exchange", experts, directory, kExchangePart));
    MOEBIUS_ASSIGN(exchange_,
                   moe::DeviceExchange::Create(ExchangeShape(), links_.shape().exchange_mode,
                                               std::move(group), &exchange_memory_));
  }
  if (copies_ == nullptr) return {};
  mail_.checksum = [copies = copies_.get()](auto bytes) { return copies->ChecksumOf(bytes); };
  for (int rank = 0; rank < links_.shape().num_ranks(); ++rank) {
    MOEBIUS_ASSIGN(std::byte* const chunk, directory.Map(rank, kMailPart, &mappings_));
    mail_.chunks.emplace_back(chunk, kMailBytes);
  }
  return {};
}

Status CudaRankDevice::Open(platform::ThreadPool& pool) {
  Status status = Select(pool);
  if (status) status = Allocate();
  // Also after an error: the others come here, too.
  const std::array parts = {&tp_memory_.memory(), &experts_memory_.memory(),
                            &pipeline_memory_.memory(), &exchange_memory_.memory(),
                            &std::as_const(mail_memory_)};
  MOEBIUS_ASSIGN(PeerDirectory directory, PeerDirectory::Meet(links_.world(), status, device_,
                                                              parts, links_.control().abort()));
  shares_process_ = directory.shares_process();
  return Connect(directory);
}

}  // namespace

Result<int> NumRankDevices() {
  MOEBIUS_ASSIGN(const int num_devices, platform::cuda::DeviceCount());
  if (num_devices > 0) return num_devices;
  return MakeError(
      ErrorCode::kUnavailable,
      "--device is 'cuda', but the driver shows no device: `moebius doctor` says more");
}

Result<std::unique_ptr<RankDevice>> OpenRankDevice(Links& links,
                                                   std::chrono::milliseconds wait_limit,
                                                   platform::ThreadPool& pool) {
  auto device = std::make_unique<CudaRankDevice>(links, wait_limit);
  if (Status status = device->Open(pool); !status) {
    // Nobody shall wait for this rank where it will not come.
    links.control().abort().Set(links.rank().value(), links.rank().value());
    return tl::unexpected(std::move(status).error());
  }
  return device;
}

}  // namespace moebius::rank
