// Finds stop strings in text that arrives in pieces, and keeps back what may turn out to begin one.
// Owned by one generation; not thread-safe.
//
// The text ends at the first byte that completes any stop string; of several that end there the
// longest counts. How the text was cut into pieces changes neither that nor, after Flush, the text
// handed out.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace moebius::frontend {

// An empty stop string or one that is no valid UTF-8 would match everywhere or inside a character:
// kInvalidArgument naming "stop".
Status CheckStopStrings(const std::vector<std::string>& stops);

class StopStrings {
 public:
  // `stops` passed CheckStopStrings. With `include` the stop string itself is handed out too.
  StopStrings(const std::vector<std::string>& stops, bool include);

  // Takes the next piece and returns what may be shown now: everything except the longest suffix
  // that begins a stop string. After a match it returns the text up to it (or its end) and every
  // later piece is dropped.
  std::string Push(std::string_view piece);

  // The text kept back, when no more will come. Empty after a match.
  std::string Flush();

  // Takes a piece in which stop strings do not count (min_tokens) and returns it with what was kept
  // back.
  std::string Bypass(std::string_view piece);

  bool matched() const { return match_ >= 0; }
  // The stop string that matched; only if matched().
  const std::string& match() const { return patterns_[static_cast<size_t>(match_)].text; }

 private:
  // One stop string with its Knuth-Morris-Pratt failure table and how much of it the text's end
  // matches.
  struct Pattern {
    std::string text;
    std::vector<size_t> failure;
    size_t matched = 0;
  };
  void Advance(Pattern& pattern, char byte) const;

  std::vector<Pattern> patterns_;
  bool include_ = false;
  int match_ = -1;
  std::string held_;
};

}  // namespace moebius::frontend
