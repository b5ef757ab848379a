#include "text/pre_tokenizer.h"

#include <algorithm>

#include "base/check.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

// GPT-2's: contractions, words, numbers and other characters with a space before, then spaces.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What the library's own expressions mean by \w; those in files mean Oniguruma's.
constexpr std::string_view kOnigurumaWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D})";

Regex Compiled(std::string_view pattern) {
  Result<Regex> regex = Regex::Compile(pattern);
  MOEBIUS_CHECK(regex.has_value());
  return *std::move(regex);
}

// Which parts of a piece the pattern matched: all of [0, size), in order.
struct Part {
  Span span;
  bool is_match;
};

void PartsOf(const std::vector<Span>& matches, size_t size, bool invert, std::vector<Part>& parts) {
  parts.clear();
  size_t end = 0;
  for (const Span& match : matches) {
    if (match.begin != end) parts.push_back({{end, match.begin}, invert});
    parts.push_back({match, !invert});
    end = match.end;
  }
  if (end != size) parts.push_back({{end, size}, invert});
}

}  // namespace

Result<PreTokenizer> PreTokenizer::Parse(const JsonNode& node) {
  PreTokenizer pre_tokenizer;
  MOEBIUS_TRY(pre_tokenizer.ParseInto(node));
  return pre_tokenizer;
}

Status PreTokenizer::ParseInto(const JsonNode& node) {
  MOEBIUS_ASSIGN(const std::string type, node.GetString("type"));
  if (type == "Sequence") {
    MOEBIUS_ASSIGN(const JsonNode list, node.Get("pretokenizers"));
    MOEBIUS_ASSIGN(const std::vector<JsonNode> parts, list.AsArray());
    for (const JsonNode& part : parts) MOEBIUS_TRY(ParseInto(part));
    return {};
  }
  Step step;
  if (type == "Split") {
    MOEBIUS_ASSIGN(step, ParseSplit(node));
  } else if (type == "ByteLevel") {
    MOEBIUS_ASSIGN(step, ParseByteLevel(node));
  } else if (type == "Metaspace") {
    MOEBIUS_ASSIGN(step, ParseMetaspace(node));
  } else if (type == "Digits") {
    MOEBIUS_ASSIGN(const bool individual, node.GetBool("individual_digits"));
    step.pattern = Compiled(R"(\p{N})");
    step.behavior = individual ? Behavior::kIsolated : Behavior::kContiguous;
  } else if (type == "Punctuation") {
    step.pattern = Compiled(R"([!-/:-@\[-`{-~\p{P}])");
    if (node.Find("behavior")) {
      MOEBIUS_ASSIGN(step.behavior, ParseBehavior(node));
    }
  } else if (type == "Whitespace") {
    step.pattern = Compiled(fmt::format(R"([{0}]+|[^\s{0}]+)", kOnigurumaWord));
    step.behavior = Behavior::kRemoved;
    step.invert = true;
  } else if (type == "WhitespaceSplit") {
    step.pattern = Compiled(R"(\s)");
    step.behavior = Behavior::kRemoved;
  } else {
    return node.Unsupported(fmt::format("the pre-tokenizer '{}' is not supported", type));
  }
  steps_.push_back(std::move(step));
  return {};
}

Result<PreTokenizer::Behavior> PreTokenizer::ParseBehavior(const JsonNode& node) {
  MOEBIUS_ASSIGN(const std::string name, node.GetString("behavior"));
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return node.Unsupported(fmt::format("the behavior '{}' is not supported", name));
}

Result<PreTokenizer::Step> PreTokenizer::ParseSplit(const JsonNode& node) {
  Step step;
  MOEBIUS_ASSIGN(const JsonNode pattern, node.Get("pattern"));
  MOEBIUS_ASSIGN(step.pattern, ParsePattern(pattern));
  MOEBIUS_ASSIGN(step.behavior, ParseBehavior(node));
  MOEBIUS_ASSIGN(step.invert, node.GetBool("invert", false));
  return step;
}

Result<PreTokenizer::Step> PreTokenizer::ParseByteLevel(const JsonNode& node) {
  Step step;
  MOEBIUS_ASSIGN(const bool add_prefix_space, node.GetBool("add_prefix_space"));
  MOEBIUS_ASSIGN(const bool use_regex, node.GetBool("use_regex", true));
  step.prefix = " ";
  step.prepend = add_prefix_space ? PrependScheme::kAlways : PrependScheme::kNever;
  if (use_regex) step.pattern = Compiled(kByteLevelPattern);
  step.byte_level = true;
  return step;
}

Result<PreTokenizer::Step> PreTokenizer::ParseMetaspace(const JsonNode& node) {
  Step step;
  MOEBIUS_ASSIGN(step.space, node.GetString("replacement"));
  if (step.space.empty() ||
      static_cast<size_t>(DecodeAt(step.space, 0).size) != step.space.size()) {
    return node.Corrupt("'replacement' is not one character");
  }
  step.prefix = step.space;
  std::string scheme = "always";
  if (const auto named = node.Find("prepend_scheme")) {
    MOEBIUS_ASSIGN(scheme, named->AsString());
  } else {
    // The older spelling.
    MOEBIUS_ASSIGN(const bool add_prefix_space, node.GetBool("add_prefix_space", true));
    if (!add_prefix_space) scheme = "never";
  }
  if (scheme == "always") {
    step.prepend = PrependScheme::kAlways;
  } else if (scheme == "first") {
    step.prepend = PrependScheme::kFirst;
  } else if (scheme != "never") {
    return node.Unsupported(fmt::format("the prepend_scheme '{}' is not supported", scheme));
  }
  MOEBIUS_ASSIGN(const bool split, node.GetBool("split", true));
  if (split) {
    step.pattern = Regex::Literal(step.space);
    step.behavior = Behavior::kMergedWithNext;
  }
  return step;
}

void PreTokenizer::Apply(Pieces& pieces, RegexScratch& scratch) const {
  for (const Step& step : steps_) {
    if (step.prepend != PrependScheme::kNever || !step.space.empty()) Rewrite(step, pieces);
    if (step.pattern) Split(step, pieces, scratch);
    if (step.byte_level) ToByteChars(pieces);
  }
}

void PreTokenizer::Rewrite(const Step& step, Pieces& pieces) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 2);
  std::vector<Span> spans;
  spans.reserve(pieces.spans.size());
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const std::string_view old_piece = pieces[i];
    const bool at_start = pieces.starts_input && pieces.spans[i].begin == 0;
    const bool has_prefix =
        old_piece.starts_with(step.prefix) || (!step.space.empty() && old_piece[0] == ' ');
    const bool wanted = step.prepend == PrependScheme::kAlways ||
                        (step.prepend == PrependScheme::kFirst && at_start);
    const size_t begin = text.size();
    if (wanted && !has_prefix) text += step.prefix;
    if (step.space.empty()) {
      text += old_piece;
    } else {
      for (const char c : old_piece) {
        if (c == ' ') {
          text += step.space;
        } else {
          text += c;
        }
      }
    }
    spans.push_back({begin, text.size()});
  }
  // A first piece that was dropped earlier takes the beginning of the input with it.
  pieces.starts_input = pieces.starts_input && !spans.empty() && pieces.spans[0].begin == 0;
  pieces.text = std::move(text);
  pieces.spans = std::move(spans);
}

void PreTokenizer::Split(const Step& step, Pieces& pieces, RegexScratch& scratch) {
  std::vector<Span> spans;
  spans.reserve(pieces.spans.size() + pieces.text.size() / 4);
  std::vector<Span> matches;
  std::vector<Part> parts;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const std::string_view piece = pieces[i];
    matches.clear();
    step.pattern->FindAll(piece, scratch, matches);
    PartsOf(matches, piece.size(), step.invert, parts);
    const size_t base = pieces.spans[i].begin;
    const size_t first = spans.size();
    const auto join_last = [&](size_t end) {
      if (spans.size() == first) return false;
      spans.back().end = base + end;
      return true;
    };
    // Whether the part before this one, if any, is a match.
    bool previous_match = false;
    for (size_t p = 0; p < parts.size(); ++p) {
      const auto [span, is_match] = parts[p];
      bool joined = false;
      bool dropped = false;
      switch (step.behavior) {
        case Behavior::kIsolated:
          break;
        case Behavior::kRemoved:
          dropped = is_match;
          break;
        case Behavior::kContiguous:
          joined = is_match == previous_match && join_last(span.end);
          break;
        case Behavior::kMergedWithPrevious:
          joined = is_match && !previous_match && join_last(span.end);
          break;
        case Behavior::kMergedWithNext:
          joined = !is_match && previous_match && join_last(span.end);
          break;
      }
      previous_match = is_match;
      if (!joined && !dropped) spans.push_back({base + span.begin, base + span.end});
    }
  }
  std::erase_if(spans, [](const Span& span) { return span.size() == 0; });
  pieces.spans = std::move(spans);
}

void PreTokenizer::ToByteChars(Pieces& pieces) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 2);
  const bool starts = !pieces.spans.empty() && pieces.spans[0].begin == 0;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const size_t begin = text.size();
    AppendByteChars(text, pieces[i]);
    pieces.spans[i] = {begin, text.size()};
  }
  pieces.starts_input = pieces.starts_input && starts;
  pieces.text = std::move(text);
}

}  // namespace moebius::text
