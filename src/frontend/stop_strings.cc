#include "frontend/stop_strings.h"

#include <algorithm>
#include <utility>

namespace moebius::frontend {
namespace {

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xc2 && lead < 0xe0 ? 2
                          : lead >= 0xe0 && lead < 0xf0 ? 3
                          : lead >= 0xf0 && lead < 0xf5 ? 4
                                                        : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((byte(i + j) & 0xc0) != 0x80) return false;
    }
    if (lead == 0xe0 && byte(i + 1) < 0xa0) return false;
    if (lead == 0xed && byte(i + 1) >= 0xa0) return false;
    if (lead == 0xf0 && byte(i + 1) < 0x90) return false;
    if (lead == 0xf4 && byte(i + 1) >= 0x90) return false;
    i += length;
  }
  return true;
}

}  // namespace

Status CheckStopStrings(const std::vector<std::string>& stops) {
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "stop[{}] is empty: a stop string needs at least one character", i);
    }
    if (!IsUtf8(stops[i])) {
      return MakeError(ErrorCode::kInvalidArgument, "stop[{}] is not valid UTF-8", i);
    }
  }
  return {};
}

StopStrings::StopStrings(const std::vector<std::string>& stops, bool include) : include_(include) {
  for (const std::string& stop : stops) {
    Pattern pattern{stop, std::vector<size_t>(stop.size(), 0), 0};
    for (size_t i = 1; i < stop.size(); ++i) {
      size_t border = pattern.failure[i - 1];
      while (border > 0 && stop[border] != stop[i]) border = pattern.failure[border - 1];
      pattern.failure[i] = stop[border] == stop[i] ? border + 1 : 0;
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopStrings::Advance(Pattern& pattern, char byte) const {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.failure[pattern.matched - 1];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
}

std::string StopStrings::Push(std::string_view piece) {
  if (matched()) return {};
  held_.reserve(held_.size() + piece.size());
  size_t keep = 0;
  for (const char byte : piece) {
    held_.push_back(byte);
    keep = 0;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      Advance(pattern, byte);
      keep = std::max(keep, pattern.matched);
      const bool complete = pattern.matched == pattern.text.size();
      if (complete && (!matched() || pattern.text.size() > match().size())) {
        match_ = static_cast<int>(i);
      }
    }
    if (matched()) {
      std::string out = std::move(held_);
      held_.clear();
      if (!include_) out.resize(out.size() - match().size());
      return out;
    }
  }
  if (piece.empty()) return {};
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopStrings::Flush() { return std::exchange(held_, {}); }

std::string StopStrings::Bypass(std::string_view piece) {
  std::string out = Flush();
  out.append(piece);
  for (Pattern& pattern : patterns_) pattern.matched = 0;
  return out;
}

}  // namespace moebius::frontend
