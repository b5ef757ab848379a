// Strong integer ids: an expert is not a slot is not a block. Mixing them does not compile;
// `.value()` or Index() leaves the type on purpose. Plain values, any thread.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace moebius {

template <typename Tag, typename Int = int32_t>
class StrongId {
 public:
  constexpr StrongId() = default;
  explicit constexpr StrongId(Int value) : value_(value) {}

  constexpr Int value() const { return value_; }
  constexpr size_t Index() const { return static_cast<size_t>(value_); }
  constexpr bool valid() const { return value_ >= 0; }
  constexpr auto operator<=>(const StrongId&) const = default;

 private:
  Int value_ = -1;  // no id
};

using RankId = StrongId<struct RankTag>;
using NodeId = StrongId<struct NodeTag>;
using LayerId = StrongId<struct LayerTag>;
using ExpertId = StrongId<struct ExpertTag>;  // the model's notion
using SlotId = StrongId<struct SlotTag>;    // a weight container; a placement maps slots to experts
using BlockId = StrongId<struct BlockTag>;  // a KV block
using TokenId = int32_t;   // an entry of the vocabulary: data, not an index of ours
using Position = int32_t;  // a token's place in its sequence

}  // namespace moebius

template <typename Tag, typename Int>
struct std::hash<moebius::StrongId<Tag, Int>> {
  size_t operator()(moebius::StrongId<Tag, Int> id) const { return std::hash<Int>()(id.value()); }
};
