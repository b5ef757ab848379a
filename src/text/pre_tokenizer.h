// The "pre_tokenizer" of a tokenizer.json: cuts a text into the pieces that are encoded one by one,
// rewriting it on the way. Immutable, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/json_node.h"
#include "text/regex.h"

namespace moebius::text {

// A text between two added tokens, on its way to the model.
struct Pieces {
  std::string text;         // valid
  std::vector<Span> spans;  // of `text`: ascending, disjoint, none empty
  bool starts_input;        // text[0] comes from the beginning of the whole input

  std::string_view operator[](size_t i) const {
    return std::string_view(text).substr(spans[i].begin, spans[i].size());
  }
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // cuts nothing
  // Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit;
  // another type is kUnsupported.
  static Result<PreTokenizer> Parse(const JsonNode& node);

  // Refines `pieces`.
  void Apply(Pieces& pieces, RegexScratch& scratch) const;

 private:
  // What becomes of a match of the pattern: a piece of its own, dropped, part of the piece before
  // or after it, or joined with the matches next to it.
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class PrependScheme { kAlways, kFirst, kNever };

  struct Step {
    std::optional<Regex> pattern;  // cuts each piece, after the prefix is there
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;  // the pattern matches what is between the delimiters

    // A prefix that each piece gets (or only the one at the beginning of the input), unless it
    // begins with it.
    std::string prefix;
    PrependScheme prepend = PrependScheme::kNever;
    std::string space;        // what each ' ' becomes before that, if not empty (Metaspace)
    bool byte_level = false;  // bytes become the characters that stand for them, at the end
  };

  static Result<Behavior> ParseBehavior(const JsonNode& node);
  static Result<Step> ParseSplit(const JsonNode& node);
  static Result<Step> ParseByteLevel(const JsonNode& node);
  static Result<Step> ParseMetaspace(const JsonNode& node);
  static void Rewrite(const Step& step, Pieces& pieces);
  static void Split(const Step& step, Pieces& pieces, RegexScratch& scratch);
  static void ToByteChars(Pieces& pieces);
  Status ParseInto(const JsonNode& node);

  std::vector<Step> steps_;
};

}  // namespace moebius::text
