// The "normalizer" of a tokenizer.json: rewrites a text before it is split. Immutable, any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/json_node.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace moebius::text {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace; another type is
  // kUnsupported.
  static Result<Normalizer> Parse(const JsonNode& node);

  bool empty() const { return steps_.empty(); }

  // Rewrites `text` (valid). Returns whether its first character still comes from the beginning of
  // the old text: false once something there was removed.
  bool Apply(std::string& text, RegexScratch& scratch) const;

 private:
  struct Step {
    enum Kind { kNormalForm, kLowercase, kStrip, kPrepend, kReplace } kind;
    NormalForm form = NormalForm::kNfc;
    bool strip_left = false;
    bool strip_right = false;
    std::string content;           // prepended, or the replacement
    std::optional<Regex> pattern;  // what is replaced
  };

  Status ParseInto(const JsonNode& node);
  static Result<Step> ParseStep(const JsonNode& node, std::string_view type);

  std::vector<Step> steps_;
};

// The "pattern" of a Replace or a Split: {"String": text} or {"Regex": expression}.
Result<Regex> ParsePattern(const JsonNode& node);

// `text` with every match of `pattern` replaced by `content`.
std::string ReplaceAll(std::string_view text, const Regex& pattern, std::string_view content,
                       RegexScratch& scratch);

}  // namespace moebius::text
