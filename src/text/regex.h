// Regular expressions as tokenizer.json writes them (Oniguruma's Ruby syntax over Unicode text),
// run by PCRE2. Immutable: any thread may search, each with its own RegexScratch.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace moebius::text {

struct Span {
  size_t begin;
  size_t end;

  size_t size() const { return end - begin; }
};

// Working memory of one thread's searches.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;
  RegexScratch& operator=(RegexScratch&&) noexcept;

 private:
  friend class Regex;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Regex {
 public:
  // A pattern in Oniguruma's syntax. An error quotes what is malformed or unsupported.
  static Result<Regex> Compile(std::string_view pattern);
  // Matches exactly `text`, which is not empty.
  static Regex Literal(std::string_view text);

  // Appends the matches in `text` (valid), leftmost first, none overlapping. An empty match counts
  // unless it stands where the last match ended. A pattern that exhausts PCRE2's limits at some
  // place matches nothing from there on.
  void FindAll(std::string_view text, RegexScratch& scratch, std::vector<Span>& matches) const;

  // The text to find, if this is a literal; else empty.
  const std::string& literal() const { return literal_; }

 private:
  Regex() = default;

  std::string literal_;
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace moebius::text
