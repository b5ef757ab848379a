// Remembers the ids of short pieces: ordinary text repeats its words. Direct-mapped and of fixed
// size, so a lookup is one comparison and nothing is ever allocated. One thread at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace moebius::text {

class PieceCache {
 public:
  PieceCache() : entries_(kNumEntries) {}

  // Appends the ids of `piece` if they are here.
  bool Lookup(std::string_view piece, std::vector<TokenId>& ids) const {
    if (piece.size() > kMaxBytes) return false;
    const Entry& entry = entries_[Slot(piece)];
    if (entry.num_bytes != piece.size()) return false;
    if (std::memcmp(entry.bytes.data(), piece.data(), piece.size()) != 0) return false;
    ids.insert(ids.end(), entry.ids.begin(), entry.ids.begin() + entry.num_ids);
    return true;
  }

  // Remembers `ids`, unless one of the two is too long.
  void Insert(std::string_view piece, std::span<const TokenId> ids) {
    if (piece.empty() || piece.size() > kMaxBytes || ids.size() > kMaxIds) return;
    Entry& entry = entries_[Slot(piece)];
    entry.num_bytes = static_cast<uint8_t>(piece.size());
    entry.num_ids = static_cast<uint8_t>(ids.size());
    std::copy(piece.begin(), piece.end(), entry.bytes.begin());
    std::copy(ids.begin(), ids.end(), entry.ids.begin());
  }

 private:
  static constexpr size_t kNumEntries = 1 << 14;
  static constexpr size_t kMaxBytes = 54;
  static constexpr size_t kMaxIds = 10;

  struct Entry {
    uint8_t num_bytes = 0;  // 0: empty
    uint8_t num_ids = 0;
    std::array<char, kMaxBytes> bytes;
    std::array<TokenId, kMaxIds> ids;
  };

  static size_t Slot(std::string_view piece) {
    uint64_t hash = piece.size();
    for (size_t i = 0; i < piece.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, piece.data() + i, std::min<size_t>(8, piece.size() - i));
      hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    }
    return hash >> 20 & (kNumEntries - 1);
  }

  std::vector<Entry> entries_;
};

}  // namespace moebius::text
