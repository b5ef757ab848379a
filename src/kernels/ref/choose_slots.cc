// From experts to the slots that hold them (ops.h: ChooseSlotsArgs).
#include <algorithm>
#include <utility>

#include "kernels/random.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

// Of an expert, a token and where it stands: rows that differ in any take different copies.
uint32_t HashOf(TokenId token, Position position, int32_t expert) {
  const uint64_t row = MixBits((static_cast<uint64_t>(static_cast<uint32_t>(token)) << 32) ^
                               static_cast<uint64_t>(position));
  return static_cast<uint32_t>(MixBits(row + static_cast<uint64_t>(expert)) >> 32);
}

// One copy and copies at home first, which need no thought; then what is on the way; then the hash.
void ChooseReplicas(const ChooseSlotsArgs& args, int64_t t) {
  const ReplicaTable& table = args.choice.replicas;
  const auto first = static_cast<size_t>(t * args.k);
  const std::span<const int32_t> experts = args.experts.subspan(first, static_cast<size_t>(args.k));
  const std::span<int32_t> slots = args.slots.subspan(first, static_cast<size_t>(args.k));
  const auto rank_of = [&](int32_t slot) { return slot / table.slots_per_rank; };
  const auto copies_of = [&](int32_t expert) {
    const auto begin = static_cast<size_t>(table.begin[static_cast<size_t>(expert)]);
    const auto end = static_cast<size_t>(table.begin[static_cast<size_t>(expert) + 1]);
    return std::pair(begin, end);
  };
  for (size_t j = 0; j < slots.size(); ++j) {
    const auto [begin, end] = copies_of(experts[j]);
    slots[j] = end - begin == 1 ? table.slots[begin] : -1;
    for (size_t c = begin; c < end && slots[j] < 0; ++c) {
      if (rank_of(table.slots[c]) == table.home) slots[j] = table.slots[c];
    }
  }
  const auto is_visited = [&](int32_t rank) {
    return std::ranges::any_of(slots, [&](int32_t s) { return s >= 0 && rank_of(s) == rank; });
  };
  for (size_t j = 0; j < slots.size(); ++j) {
    if (slots[j] >= 0) continue;
    const auto [begin, end] = copies_of(experts[j]);
    const uint64_t hash = HashOf(args.tokens[static_cast<size_t>(t)],
                                 args.choice.positions[static_cast<size_t>(t)], experts[j]);
    const size_t wished = hash * (end - begin) >> 32;
    int32_t chosen = table.slots[begin + wished];
    // From the wished one on, so that no copy is preferred.
    for (size_t i = 0; i < end - begin; ++i) {
      const int32_t slot = table.slots[begin + (wished + i) % (end - begin)];
      if (!is_visited(rank_of(slot))) continue;
      chosen = slot;
      break;
    }
    slots[j] = chosen;
  }
}

}  // namespace

void ChooseSlots(ExecContext& /*ctx*/, const ChooseSlotsArgs& args) {
  const SlotChoice& choice = args.choice;
  const auto first_prompt = static_cast<size_t>(choice.num_decodes * args.k);
  for (size_t p = 0; p < args.experts.size(); ++p) {
    if (args.tokens[p / static_cast<size_t>(args.k)] < 0) {
      args.slots[p] = -1;
      continue;
    }
    const auto expert = static_cast<size_t>(args.experts[p]);
    if (choice.replicas.empty()) args.slots[p] = choice.first_slot[expert];
    if (!choice.counts.empty()) ++choice.counts[expert];
    if (p >= first_prompt && !choice.prompt_counts.empty()) ++choice.prompt_counts[expert];
  }
  if (choice.replicas.empty()) return;
  for (int64_t t = 0; t < std::ssize(args.tokens); ++t) {
    if (args.tokens[static_cast<size_t>(t)] >= 0) ChooseReplicas(args, t);
  }
}

}  // namespace moebius::kernels::ref
