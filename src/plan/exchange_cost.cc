#include "plan/exchange_cost.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "plan/measured.h"
#include "plan/share_table.h"

namespace moebius::plan {
namespace {

// Bytes that one GPU sends inside its node and out of it.
struct LinkBytes {
  double near = 0;
  double far = 0;
};

LinkBytes ExchangeBytes(const ExchangeShape& s) {
  const auto ranks = static_cast<double>(s.ranks);
  const double in_node = std::min(ranks, static_cast<double>(s.gpus_per_node));
  const double nodes = std::ceil(ranks / in_node);
  const double slots = std::max(static_cast<double>(s.num_slots), ranks);
  const double copies = DistinctGroups(slots, s.top_k, ranks);
  const double bytes = static_cast<double>(s.tokens * s.hidden) * s.element_bytes * s.load;
  if (nodes <= 1) return {bytes * copies * (ranks - 1) / ranks, 0};
  if (s.by_node) {
    const double visited = DistinctGroups(slots, s.top_k, nodes);
    return {bytes * copies * (ranks - 1) / ranks, bytes * visited * (nodes - 1) / nodes};
  }
  return {bytes * copies * (in_node - 1) / ranks, bytes * copies * (ranks - in_node) / ranks};
}

// With peak links and no efficiency; passing on inside a node overlaps with what arrives.
double ModelUs(const Device& device, const LinkBytes& bytes, bool overlap, double link_share,
               double node_share) {
  const double near = kMicro * bytes.near / (device.link_bandwidth * link_share);
  const double far = kMicro * bytes.far / (device.node_bandwidth * node_share);
  return device.link_latency_us + (bytes.far > 0 ? device.node_latency_us : 0) +
         (overlap ? std::max(near, far) : near + far);
}

OpCost Finish(const Device& device, const LinkBytes& bytes, bool overlap,
              const std::optional<ShareTable::Share>& share) {
  OpCost cost;
  cost.bytes = bytes.near + bytes.far;
  if (share) {
    cost.us = ModelUs(device, bytes, overlap, 1, 1) / share->share;
    cost.basis = share->exact_on == device.name ? Basis::kMeasured : Basis::kInterpolated;
  } else {
    cost.us = ModelUs(device, bytes, overlap, device.link_efficiency, device.node_efficiency);
    cost.basis = bytes.far > 0 ? Basis::kRoofline : device.basis;
  }
  return cost;
}

struct ExchangeTables {
  ShareTable dispatch;
  ShareTable combine;
};

ShareTable::Shape ExchangeAt(double ranks, double tokens) {
  return {ranks, std::max(1.0, tokens), 1, 1};
}

// Rows of one family of devices and one kind of kernel; NVL72 has one kind.
ExchangeTables FillExchange(const std::string& family, bool by_node) {
  ExchangeTables tables;
  for (const ExchangeRow& row : MeasuredExchanges()) {
    const Device on = KnownDevice(row.device);
    if (on.measured_as != family) continue;
    if (row.by_node != by_node && on.gpus_per_node <= 8) continue;
    ExchangeShape s;
    s.ranks = row.ep;
    s.gpus_per_node = row.gpus_per_node;
    s.tokens = row.tokens_per_rank;
    s.num_slots = 256;
    s.top_k = 8;
    s.hidden = 7168;
    s.by_node = row.by_node;
    const ShareTable::Shape at = ExchangeAt(row.ep, static_cast<double>(row.tokens_per_rank));
    s.element_bytes = row.dispatch_bytes;
    tables.dispatch.Add(at, ModelUs(on, ExchangeBytes(s), by_node, 1, 1) / row.dispatch_us,
                        row.device);
    s.element_bytes = 2;
    tables.combine.Add(at, ModelUs(on, ExchangeBytes(s), by_node, 1, 1) / row.combine_us,
                       row.device);
  }
  return tables;
}

const ExchangeTables& TablesOf(const Device& device, bool by_node) {
  static const ExchangeTables none;
  static const ExchangeTables hopper_ranks = FillExchange("h200", false);
  static const ExchangeTables hopper_nodes = FillExchange("h200", true);
  static const ExchangeTables blackwell = FillExchange("gb200", false);
  if (device.measured_as == "h200") return by_node ? hopper_nodes : hopper_ranks;
  return device.measured_as == "gb200" ? blackwell : none;
}

// A ring or tree in nodes and, with each GPU on its own card, between them: `times` passes over
// (n - 1) / n of the bytes inside, and of each GPU's share outside.
LinkBytes CollectiveBytes(int ranks, int gpus_per_node, double bytes, double times) {
  const auto n = static_cast<double>(ranks);
  const double in_node = std::min(n, static_cast<double>(gpus_per_node));
  const double nodes = std::ceil(n / in_node);
  LinkBytes sent;
  sent.near = times * bytes * (in_node - 1) / in_node;
  if (nodes > 1) sent.far = times * bytes / in_node * (nodes - 1) / nodes;
  return sent;
}

OpCost Collective(const Device& device, int ranks, int gpus_per_node, double bytes, double times) {
  if (ranks <= 1) return {.count = 0};
  static const ShareTable none;
  static const ShareTable nccl = [] {
    ShareTable table;
    for (const AllReduceRow& row : MeasuredAllReduces()) {
      const Device on = KnownDevice(row.device);
      const LinkBytes sent = CollectiveBytes(row.ranks, on.gpus_per_node, row.bytes, 2);
      table.Add(ExchangeAt(row.ranks, row.bytes), ModelUs(on, sent, false, 1, 1) / row.us,
                row.device);
    }
    return table;
  }();
  const ShareTable& table = device.measured_as == "h200" ? nccl : none;
  std::optional<ShareTable::Share> share = table.At(ExchangeAt(ranks, bytes));
  if (share && times < 2) share->exact_on = {};  // only all-reduces were measured
  return Finish(device, CollectiveBytes(ranks, gpus_per_node, bytes, times), false, share);
}

OpCost OneWay(const Device& device, const ExchangeShape& s, bool dispatch) {
  if (s.ranks <= 1) return {.count = 0};
  const ExchangeTables& tables = TablesOf(device, s.by_node);
  const ShareTable& table = dispatch ? tables.dispatch : tables.combine;
  return Finish(device, ExchangeBytes(s), s.by_node,
                table.At(ExchangeAt(s.ranks, static_cast<double>(s.tokens))));
}

}  // namespace

double DistinctGroups(double num_experts, int64_t top_k, double num_groups) {
  if (num_groups <= 1) return 1;
  double missed = 1;  // the chance that no expert of a group is drawn
  const double elsewhere = num_experts - num_experts / num_groups;
  for (int64_t i = 0; i < top_k; ++i) {
    const auto drawn = static_cast<double>(i);
    missed *= std::max(0.0, elsewhere - drawn) / (num_experts - drawn);
  }
  return num_groups * (1 - missed);
}

OpCost Dispatch(const Device& device, const ExchangeShape& shape) {
  return OneWay(device, shape, true);
}

OpCost Combine(const Device& device, const ExchangeShape& shape) {
  return OneWay(device, shape, false);
}

OpCost AllReduce(const Device& device, int ranks, int gpus_per_node, double bytes) {
  return Collective(device, ranks, gpus_per_node, bytes, 2);
}

OpCost AllGather(const Device& device, int ranks, int gpus_per_node, double bytes) {
  return Collective(device, ranks, gpus_per_node, bytes, 1);
}

OpCost ReduceScatter(const Device& device, int ranks, int gpus_per_node, double bytes) {
  return Collective(device, ranks, gpus_per_node, bytes, 1);
}

OpCost SendRecv(const Device& device, bool between_nodes, double bytes) {
  return Finish(device, between_nodes ? LinkBytes{0, bytes} : LinkBytes{bytes, 0}, false,
                std::nullopt);
}

}  // namespace moebius::plan
