#include <algorithm>
#include <numeric>

#include "moe/balance/plans.h"
#include "moe/balance/replicas.h"

namespace moebius::moe {
namespace {

// Items in packs of the same number of items.
struct Packing {
  std::vector<int> pack;      // by item
  std::vector<int> position;  // by item, in its pack
};

// Each pack takes exactly items / packs of them: the heaviest first, to the lightest pack with
// room.
Packing BalancedPacking(std::span<const double> weight, int num_packs) {
  const int num_items = static_cast<int>(weight.size());
  const int room = num_items / num_packs;
  Packing result{std::vector<int>(weight.size()), std::vector<int>(weight.size())};
  if (room == 1) {
    std::iota(result.pack.begin(), result.pack.end(), 0);
    return result;
  }
  std::vector<size_t> order(weight.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return weight[a] > weight[b]; });
  std::vector<double> load(static_cast<size_t>(num_packs));
  std::vector<int> used(static_cast<size_t>(num_packs));
  for (const size_t item : order) {
    size_t lightest = load.size();
    for (size_t p = 0; p < load.size(); ++p) {
      if (used[p] == room) continue;
      if (lightest == load.size() || load[p] < load[lightest]) lightest = p;
    }
    result.pack[item] = static_cast<int>(lightest);
    result.position[item] = used[lightest]++;
    load[lightest] += weight[item];
  }
  return result;
}

}  // namespace

std::vector<std::vector<int32_t>> NodeExperts(std::span<const double> load, int num_groups,
                                              int num_nodes) {
  const size_t group_size = load.size() / static_cast<size_t>(num_groups);
  std::vector<double> group_load(static_cast<size_t>(num_groups));
  for (size_t e = 0; e < load.size(); ++e) group_load[e / group_size] += load[e];
  const Packing groups = BalancedPacking(group_load, num_nodes);

  const size_t per_node = load.size() / static_cast<size_t>(num_nodes);
  std::vector<std::vector<int32_t>> nodes(static_cast<size_t>(num_nodes),
                                          std::vector<int32_t>(per_node));
  for (size_t e = 0; e < load.size(); ++e) {
    const size_t group = e / group_size;
    const size_t position = static_cast<size_t>(groups.position[group]) * group_size;
    nodes[static_cast<size_t>(groups.pack[group])][position + e % group_size] =
        static_cast<int32_t>(e);
  }
  return nodes;
}

SlotList PlanDeepSeek(const SlotShape& shape, std::span<const double> load) {
  const bool whole_groups = shape.num_groups % shape.num_nodes == 0;
  const int num_nodes = whole_groups ? shape.num_nodes : 1;
  const int node_slots = shape.num_slots / num_nodes;
  SlotList list(static_cast<size_t>(shape.num_slots));
  int first_slot = 0;
  for (const std::vector<int32_t>& experts :
       NodeExperts(load, whole_groups ? shape.num_groups : 1, num_nodes)) {
    std::vector<double> node_load;
    for (const int32_t e : experts) node_load.push_back(load[static_cast<size_t>(e)]);
    std::vector<int32_t> copies(experts.size());  // what each slot copies, as indices into experts
    std::iota(copies.begin(), copies.end(), 0);
    const std::vector<int32_t> extra = ExtraCopies(
        node_load, node_slots - static_cast<int>(experts.size()), ShareTie::kLowestExpert);
    copies.insert(copies.end(), extra.begin(), extra.end());

    std::vector<double> count(experts.size());
    for (const int32_t c : copies) ++count[static_cast<size_t>(c)];
    std::vector<double> weight;
    for (const int32_t c : copies) {
      weight.push_back(node_load[static_cast<size_t>(c)] / count[static_cast<size_t>(c)]);
    }
    const Packing ranks = BalancedPacking(weight, shape.num_ranks / num_nodes);
    for (size_t i = 0; i < copies.size(); ++i) {
      const int slot = first_slot + ranks.pack[i] * shape.places_per_rank() + ranks.position[i];
      list[static_cast<size_t>(slot)] = experts[static_cast<size_t>(copies[i])];
    }
    first_slot += node_slots;
  }
  return list;
}

}  // namespace moebius::moe
