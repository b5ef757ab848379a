// A rank as a process of its own: what the program that process_ranks.h starts does. Not for users.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::rank {

// `moebius rank-process RANK PARENT`: the first argument, the rank, the parent's process id.
inline constexpr char kRankProcessCommand[] = "rank-process";
// The descriptors that it finds: its end of a frame socket, the ranks' shared memory, and where
// there is a trace its file.
constexpr int kRankSocket = 3;
constexpr int kRankMemory = 4;
constexpr int kRankTrace = 5;

// Loads the rank's part, then serves or follows until the end; a thread of its own beats meanwhile.
// Killed with its parent. The exit status: 0, 2 (no such arguments or descriptors), or an
// ExitStatusOf.
int RankProcessMain(const std::vector<std::string>& args);

int ExitStatusOf(ErrorCode code);
std::optional<ErrorCode> CodeOfExitStatus(int status);  // none: it is none of those

}  // namespace moebius::rank
