#include "rank/rank_cpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace moebius::rank {
namespace {

struct Node {
  int id = 0;
  std::vector<int> cpus;
};

bool Has(const std::vector<int>& all, int number) {
  return std::ranges::find(all, number) != all.end();
}

// With one cpu a core, if those are enough, else all of them, the first of each core before the
// others.
std::vector<Node> NodesWith(const platform::Topology& machine, const std::vector<int>& allowed,
                            size_t num_wanted) {
  std::vector<Node> nodes;
  size_t num_cores = 0;
  const auto is_first = [&](int cpu) { return Has(machine.cpu_of_core, cpu); };
  for (const platform::NumaNode& node : machine.numa_nodes) {
    Node& mine = nodes.emplace_back(Node{node.id, {}});
    for (const int cpu : node.cpus) {
      if (Has(allowed, cpu)) mine.cpus.push_back(cpu);
    }
    std::ranges::stable_partition(mine.cpus, is_first);
    num_cores += static_cast<size_t>(std::ranges::count_if(mine.cpus, is_first));
  }
  for (Node& node : nodes) {
    if (num_cores >= num_wanted) std::erase_if(node.cpus, [&](int cpu) { return !is_first(cpu); });
  }
  std::erase_if(nodes, [](const Node& node) { return node.cpus.empty(); });
  return nodes;
}

// Even shares of the ranks, in order, or none if a node has not the cpus for its share.
bool GiveNodes(const std::vector<Node>& nodes, size_t num_ranks, size_t threads,
               std::vector<RankCpus>* ranks) {
  for (size_t n = 0; n < nodes.size(); ++n) {
    const size_t begin = num_ranks * n / nodes.size();
    const size_t end = num_ranks * (n + 1) / nodes.size();
    if ((end - begin) * threads > nodes[n].cpus.size()) return false;
    for (size_t rank = begin; rank < end; ++rank) {
      const auto first = nodes[n].cpus.begin() + static_cast<int64_t>((rank - begin) * threads);
      (*ranks)[rank].compute.cpus.assign(first, first + static_cast<int64_t>(threads));
    }
  }
  return true;
}

// One after the other, wherever they come to lie.
void GiveInOrder(const std::vector<Node>& nodes, size_t threads, std::vector<RankCpus>* ranks) {
  std::vector<int> all;
  for (const Node& node : nodes) all.insert(all.end(), node.cpus.begin(), node.cpus.end());
  for (size_t rank = 0; rank < ranks->size(); ++rank) {
    const auto first = all.begin() + static_cast<int64_t>(rank * threads);
    (*ranks)[rank].compute.cpus.assign(first, first + static_cast<int64_t>(threads));
  }
}

// Each rank a node, or several where there are fewer ranks than nodes.
void GiveGroups(const std::vector<Node>& nodes, std::vector<RankCpus>* ranks) {
  for (size_t rank = 0; rank < ranks->size(); ++rank) {
    const size_t begin = rank * nodes.size() / ranks->size();
    const size_t end = std::max(begin + 1, (rank + 1) * nodes.size() / ranks->size());
    platform::PoolCpus& compute = (*ranks)[rank].compute;
    compute.is_group = true;
    for (size_t n = begin; n < end; ++n) {
      compute.cpus.insert(compute.cpus.end(), nodes[n].cpus.begin(), nodes[n].cpus.end());
    }
  }
}

std::string ListText(std::vector<int> numbers) {
  std::ranges::sort(numbers);
  return platform::CpuListText(numbers);
}

}  // namespace

std::string RankCpus::Describe() const {
  std::string text = fmt::format("{} {} on cpus {}", compute.num_threads,
                                 compute.num_threads == 1 ? "thread computes" : "threads compute",
                                 ListText(compute.cpus));
  if (compute.is_group) text += ", shared with others";
  if (ListText(control) != ListText(compute.cpus)) text += ", the rest on " + ListText(control);
  return text + ", memory of node " + ListText(numa_nodes);
}

std::vector<std::string> DescribeRankCpus(const std::vector<RankCpus>& ranks) {
  std::vector<std::string> lines;
  for (size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    const std::string text = ranks[begin].Describe();
    while (end < ranks.size() && ranks[end].Describe() == text) ++end;
    const std::string who = end - begin == 1 ? fmt::format("rank {}", begin)
                                             : fmt::format("ranks {}-{}", begin, end - 1);
    lines.push_back(fmt::format("{}: {}{}", who, end - begin == 1 ? "" : "each ", text));
  }
  return lines;
}

std::vector<RankCpus> PlanRankCpus(const platform::Topology& machine,
                                   const std::vector<int>& allowed, int num_ranks,
                                   int threads_per_rank) {
  const auto threads = static_cast<size_t>(threads_per_rank);
  const size_t num_wanted = static_cast<size_t>(num_ranks) * threads;
  std::vector<Node> nodes = NodesWith(machine, allowed, num_wanted);
  // A machine that tells nothing of its nodes, or of other cpus than those allowed.
  if (nodes.empty()) nodes = {{0, allowed}};
  size_t num_cpus = 0;
  for (const Node& node : nodes) num_cpus += node.cpus.size();

  std::vector<RankCpus> ranks(static_cast<size_t>(num_ranks));
  if (num_wanted > num_cpus) {
    GiveGroups(nodes, &ranks);
  } else if (!GiveNodes(nodes, ranks.size(), threads, &ranks)) {
    GiveInOrder(nodes, threads, &ranks);
  }
  std::vector<int> idle = allowed;
  for (const RankCpus& rank : ranks) {
    std::erase_if(idle, [&](int cpu) { return Has(rank.compute.cpus, cpu); });
  }
  for (RankCpus& rank : ranks) {
    rank.compute.num_threads = threads_per_rank;
    rank.control = idle.empty() ? rank.compute.cpus : idle;
    for (const Node& node : nodes) {
      const auto is_here = [&](int cpu) { return Has(node.cpus, cpu); };
      if (std::ranges::any_of(rank.compute.cpus, is_here)) rank.numa_nodes.push_back(node.id);
    }
  }
  return ranks;
}

Result<RankCpus> PlanRankCpus(int rank, int num_ranks, int threads_per_rank) {
  // Asked once: ranks that are threads of a process must not see each other's bindings.
  static const Result<platform::Topology> machine = platform::DetectTopology();
  MOEBIUS_TRY(machine);
  std::vector<RankCpus> ranks =
      PlanRankCpus(*machine, platform::AllowedCpus(), num_ranks, threads_per_rank);
  return std::move(ranks[static_cast<size_t>(rank)]);
}

}  // namespace moebius::rank
