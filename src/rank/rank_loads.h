// What the ranks of a deployment have done, read from their cells: nobody is asked, and a rank that
// stands still answers as well. Any thread, any process that maps the memory.
#pragma once

#include <vector>

#include "engine/rank_load.h"
#include "rank/links.h"

namespace moebius::rank {

// In the order of ranks.
std::vector<engine::RankLoad> ReadLoads(const Control& control, const DeploymentShape& shape);

}  // namespace moebius::rank
