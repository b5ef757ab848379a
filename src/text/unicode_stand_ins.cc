#include "text/unicode_stand_ins.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace moebius::text {
namespace {

const StandIn* FindStandIn(char32_t c) {
  const StandIn* end = kStandIns + kNumStandIns;
  const StandIn* found = std::lower_bound(
      kStandIns, end, c, [](const StandIn& range, char32_t value) { return range.last < value; });
  return found != end && found->first <= c ? found : nullptr;
}

// Bytes that such a character can begin with: few, and none in English or Chinese.
std::array<bool, 256> LeadBytes() {
  std::array<bool, 256> lead{};
  for (int i = 0; i < kNumStandIns; ++i) {
    const auto first = static_cast<uint8_t>(Utf8(kStandIns[i].first)[0]);
    const auto last = static_cast<uint8_t>(Utf8(kStandIns[i].last)[0]);
    for (int byte = first; byte <= last; ++byte) lead[static_cast<size_t>(byte)] = true;
  }
  return lead;
}

}  // namespace

bool UseStandIns(std::string_view text, std::string& copy) {
  static const std::array<bool, 256> lead_bytes = LeadBytes();
  bool found = false;
  for (size_t pos = 0; pos < text.size(); ++pos) {
    if (!lead_bytes[static_cast<uint8_t>(text[pos])]) continue;
    const CodePoint c = DecodeAt(text, pos);
    const StandIn* range = FindStandIn(c.value);
    if (range == nullptr) continue;
    if (!found) copy = text;
    found = true;
    copy.replace(pos, static_cast<size_t>(c.size), Utf8(range->stand_in));
  }
  return found;
}

}  // namespace moebius::text
