#include "rank/step_message.h"

#include <cstring>

namespace moebius::rank {
namespace {

struct Head {
  int64_t step = -1;
  int64_t begin_ns = 0;  // comm::Clock, which all processes of a machine share
  int64_t deadline_ns = 0;
  int64_t num_moe_chunks = 0;
  int64_t epoch = 0;  // of the placement
  int64_t num_dp_rows = 0;
  int64_t pads = 0;
  int64_t is_last = 0;
  int64_t has_plan = 0;
};
constexpr int64_t kMaxRanks = 1 << 16;

int64_t ToNumber(comm::Clock::time_point time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

comm::Clock::time_point ToTime(int64_t number) {
  return comm::Clock::time_point(
      std::chrono::duration_cast<comm::Clock::duration>(std::chrono::nanoseconds(number)));
}

}  // namespace

std::vector<std::byte> EncodeStep(const engine::SharedStep& shared, comm::Clock::time_point begin,
                                  comm::Clock::time_point deadline, const engine::StepPlan* plan,
                                  bool with_samples) {
  const Head head = {.step = shared.step,
                     .begin_ns = ToNumber(begin),
                     .deadline_ns = ToNumber(deadline),
                     .num_moe_chunks = shared.num_moe_chunks,
                     .epoch = shared.epoch,
                     .num_dp_rows = static_cast<int64_t>(shared.dp_rows.size()),
                     .pads = shared.pads ? 1 : 0,
                     .is_last = shared.is_last ? 1 : 0,
                     .has_plan = plan != nullptr ? 1 : 0};
  const std::span<const std::byte> rows = std::as_bytes(std::span(shared.dp_rows));
  const size_t plan_begin = sizeof(Head) + rows.size();
  std::vector<std::byte> block(plan_begin +
                               (plan != nullptr ? engine::EncodedBytes(*plan, with_samples) : 0));
  std::memcpy(block.data(), &head, sizeof(Head));
  if (!rows.empty()) std::memcpy(block.data() + sizeof(Head), rows.data(), rows.size());
  if (plan != nullptr) engine::Encode(*plan, std::span(block).subspan(plan_begin), with_samples);
  return block;
}

Result<StepMessage> DecodeStep(std::span<const std::byte> block, const engine::PlanLimits& limits) {
  Head head;
  if (block.size() < sizeof(Head)) {
    return MakeError(ErrorCode::kCorrupt, "a step's message has {} bytes, expected at least {}",
                     block.size(), sizeof(Head));
  }
  std::memcpy(&head, block.data(), sizeof(Head));
  block = block.subspan(sizeof(Head));
  if (head.num_dp_rows < 0 || head.num_dp_rows > kMaxRanks ||
      block.size() < static_cast<size_t>(head.num_dp_rows) * sizeof(int64_t)) {
    return MakeError(ErrorCode::kCorrupt, "step {} has rows of {} ranks in {} bytes", head.step,
                     head.num_dp_rows, block.size());
  }
  StepMessage message;
  message.shared.step = head.step;
  message.shared.num_moe_chunks = head.num_moe_chunks;
  message.shared.epoch = head.epoch;
  message.shared.pads = head.pads != 0;
  message.shared.is_last = head.is_last != 0;
  message.begin = ToTime(head.begin_ns);
  message.deadline = ToTime(head.deadline_ns);
  message.shared.dp_rows.resize(static_cast<size_t>(head.num_dp_rows));
  const size_t bytes = message.shared.dp_rows.size() * sizeof(int64_t);
  if (bytes > 0) std::memcpy(message.shared.dp_rows.data(), block.data(), bytes);
  if (head.has_plan != 0) {
    MOEBIUS_ASSIGN(message.plan, engine::Decode(block.subspan(bytes), limits));
  }
  return message;
}

}  // namespace moebius::rank
