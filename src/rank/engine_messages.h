// What a frontend and the ranks that it started say to each other, as values, and as the bytes of
// one frame (frame_socket.h). Pure functions, any thread. Protobuf stays inside the .cc files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "engine/engine_client.h"
#include "engine/engine_stats.h"
#include "engine/request.h"
#include "engine/step_record.h"
#include "engine/token_stream.h"
#include "moe/expert_stats.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {

// The first frame to every rank. All of RankOptions travels but engine.on_step (observes_steps says
// whether anybody listens), engine.trace (it is kRankTrace, or none) and load.shard; a back end is
// looked up by its name.
struct StartMessage {
  int rank = 0;
  RankOptions options;
  uint64_t layout_hash = 0;  // Links::HashOf
  bool observes_steps = false;
  LogLevel log_level = LogLevel::kInfo;
};

// Requests have the numbers that the frontend gives them.
struct SubmitMessage {
  int64_t request = 0;
  engine::RequestInput input;  // without constraint and data_parallel_rank
};
struct CancelMessage {
  int64_t request = 0;
  engine::FinishReason reason = engine::FinishReason::kCancelled;
};
struct StopMessage {};  // all requests end as cancelled, then the rank

using ToRank = std::variant<StartMessage, SubmitMessage, CancelMessage, StopMessage>;

// The engine is there.
struct ReadyMessage {
  engine::EngineLimits limits;
  engine::EngineStats stats;
};
struct RefusedMessage {
  int64_t request = 0;
  Error error;
};
struct EventMessage {
  int64_t request = 0;
  bool continues = false;  // nothing but some prompt_logprobs of the request's next event
  engine::TokenChunk event;
};
struct StatsMessage {
  engine::EngineStats stats;
  moe::ExpertStats experts;
  std::optional<Error> fault;  // why it takes no more requests
};
struct StepReport {
  engine::StepRecord record;  // without the spans
  std::vector<int64_t> dp_rows;
  std::vector<int32_t> expert_counts;
};

using FromRank = std::variant<ReadyMessage, RefusedMessage, EventMessage, StatsMessage, StepReport>;

std::string Encode(const StartMessage& message);
std::string Encode(const SubmitMessage& message);
std::string Encode(const CancelMessage& message);
std::string Encode(const StopMessage& message);
std::string Encode(const ReadyMessage& message);
std::string Encode(const RefusedMessage& message);
// One frame, or several where the prompt has more log probabilities than a frame shall hold.
std::vector<std::string> EncodeEvent(int64_t request, const engine::TokenEvent& event,
                                     size_t max_logprobs = size_t{1} << 20);
std::string Encode(const StatsMessage& message);
std::string EncodeStep(const engine::StepRecord& record);

// kCorrupt: the bytes are no such message, or it contradicts itself.
Result<ToRank> DecodeToRank(std::string_view frame);
Result<FromRank> DecodeFromRank(std::string_view frame);

}  // namespace moebius::rank
