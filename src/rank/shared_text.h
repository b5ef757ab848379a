// A text in memory that processes share: one writes, others read, without locks, as a writer may
// die in the middle. Memory of zeros is an empty text.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moebius::rank {

// The version is odd while the text is being written. A word is stored with release and loaded with
// acquire, so who sees a new word sees the odd version too, in its second look.
struct SharedText {
  static constexpr size_t kMaxBytes = 504;  // of a text; more is cut off
  static constexpr size_t kWords = kMaxBytes / sizeof(uint64_t);
  static_assert(kMaxBytes % sizeof(uint64_t) == 0);

  std::atomic<uint64_t> version;
  std::array<std::atomic<uint64_t>, kWords> words;  // ends at the first 0 byte

  void Set(std::string_view text);
  std::string Get() const;
};

}  // namespace moebius::rank
