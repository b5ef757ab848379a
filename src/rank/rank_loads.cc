#include "rank/rank_loads.h"

namespace moebius::rank {

std::vector<engine::RankLoad> ReadLoads(const Control& control, const DeploymentShape& shape) {
  std::vector<engine::RankLoad> loads;
  for (int rank = 0; rank < shape.num_ranks(); ++rank) {
    const layout::RankPlace place = layout::PlaceOf(shape.parallel, RankId(rank));
    engine::RankLoad load = control.Counters(rank).Read();
    load.rank = rank;
    load.dp = place.dp;
    load.tp = place.tp;
    load.pp = place.pp;
    load.memory = control.Memory(rank);
    load.expert_rank = shape.exchanges() ? place.flattened : -1;
    loads.push_back(load);
  }
  return loads;
}

}  // namespace moebius::rank
