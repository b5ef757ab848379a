#include "rank/shared_text.h"

#include <algorithm>
#include <cstring>

namespace moebius::rank {

void SharedText::Set(std::string_view text) {
  std::array<uint64_t, kWords> copy{};
  size_t size = std::min(text.size(), kMaxBytes);
  // Not in the middle of a character.
  while (size < text.size() && size > 0 && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) {
    --size;
  }
  std::memcpy(copy.data(), text.data(), size);
  const uint64_t before = version.load(std::memory_order_relaxed) / 2 * 2;
  version.store(before + 1, std::memory_order_relaxed);
  for (size_t i = 0; i < kWords; ++i) words[i].store(copy[i], std::memory_order_release);
  version.store(before + 2, std::memory_order_release);
}

std::string SharedText::Get() const {
  constexpr int kMaxLooks = 1000;
  std::array<uint64_t, kWords> copy{};
  for (int look = 0; look < kMaxLooks; ++look) {
    const uint64_t before = version.load(std::memory_order_acquire);
    for (size_t i = 0; i < kWords; ++i) copy[i] = words[i].load(std::memory_order_acquire);
    if (before % 2 != 0 || version.load(std::memory_order_relaxed) != before) continue;
    std::array<char, kMaxBytes> text;
    std::memcpy(text.data(), copy.data(), kMaxBytes);
    return {text.begin(), std::ranges::find(text, '\0')};
  }
  return "(a text that was never finished)";
}

}  // namespace moebius::rank
