// A hash table from 64-bit keys to small values that is filled once and then only read: one array,
// linear probing. Any thread may read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moebius::text {

template <typename Value>
class FlatHash {
 public:
  // Room for `num_keys` without growing, which it never does.
  explicit FlatHash(size_t num_keys = 0)
      : slots_(std::bit_ceil(2 * num_keys + 2)), shift_(64 - std::countr_zero(slots_.size())) {}

  // Sets the value of `key` (not kNoKey), replacing an earlier one.
  void Set(uint64_t key, Value value) {
    Slot& slot = slots_[Place(key)];
    slot = {key, value};
  }

  // The value of `key`, or nullptr.
  const Value* Find(uint64_t key) const {
    const Slot& slot = slots_[Place(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

 private:
  static constexpr uint64_t kNoKey = ~uint64_t{0};
  struct Slot {
    uint64_t key = kNoKey;
    Value value{};
  };

  // Where `key` is, or the free slot that would take it.
  size_t Place(uint64_t key) const {
    size_t i = (key * 0x9E3779B97F4A7C15u) >> shift_;  // Fibonacci hashing
    while (slots_[i].key != key && slots_[i].key != kNoKey) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  std::vector<Slot> slots_;
  int shift_;
};

// Two 32-bit values as one key.
inline uint64_t PairKey(uint32_t first, uint32_t second) {
  return static_cast<uint64_t>(first) << 32 | second;
}

}  // namespace moebius::text
