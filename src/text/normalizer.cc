#include "text/normalizer.h"

namespace moebius::text {
namespace {

std::optional<NormalForm> NormalFormNamed(std::string_view name) {
  if (name == "NFC") return NormalForm::kNfc;
  if (name == "NFD") return NormalForm::kNfd;
  if (name == "NFKC") return NormalForm::kNfkc;
  if (name == "NFKD") return NormalForm::kNfkd;
  return std::nullopt;
}

std::string_view Strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && IsWhitespace(DecodeAt(text, 0).value)) {
    text.remove_prefix(static_cast<size_t>(DecodeAt(text, 0).size));
  }
  while (right && !text.empty() && IsWhitespace(DecodeBefore(text, text.size()).value)) {
    text.remove_suffix(static_cast<size_t>(DecodeBefore(text, text.size()).size));
  }
  return text;
}

}  // namespace

Result<Regex> ParsePattern(const JsonNode& node) {
  if (const auto text = node.Find("String")) {
    MOEBIUS_ASSIGN(const std::string literal, text->AsString());
    if (literal.empty()) return text->Unsupported("an empty pattern is not supported");
    return Regex::Literal(literal);
  }
  MOEBIUS_ASSIGN(const JsonNode expression, node.Get("Regex"));
  MOEBIUS_ASSIGN(const std::string source, expression.AsString());
  Result<Regex> regex = Regex::Compile(source);
  if (!regex) return tl::unexpected<Error>(regex.error().WithContext(expression.path()));
  return regex;
}

std::string ReplaceAll(std::string_view text, const Regex& pattern, std::string_view content,
                       RegexScratch& scratch) {
  std::vector<Span> matches;
  pattern.FindAll(text, scratch, matches);
  std::string out;
  out.reserve(text.size() + matches.size() * content.size());
  size_t copied = 0;
  for (const Span& match : matches) {
    out += text.substr(copied, match.begin - copied);
    out += content;
    copied = match.end;
  }
  out += text.substr(copied);
  return out;
}

Result<Normalizer> Normalizer::Parse(const JsonNode& node) {
  Normalizer normalizer;
  MOEBIUS_TRY(normalizer.ParseInto(node));
  return normalizer;
}

Status Normalizer::ParseInto(const JsonNode& node) {
  MOEBIUS_ASSIGN(const std::string type, node.GetString("type"));
  if (type == "Sequence") {
    MOEBIUS_ASSIGN(const JsonNode list, node.Get("normalizers"));
    MOEBIUS_ASSIGN(const std::vector<JsonNode> parts, list.AsArray());
    for (const JsonNode& part : parts) MOEBIUS_TRY(ParseInto(part));
    return {};
  }
  MOEBIUS_ASSIGN(Step step, ParseStep(node, type));
  steps_.push_back(std::move(step));
  return {};
}

Result<Normalizer::Step> Normalizer::ParseStep(const JsonNode& node, std::string_view type) {
  Step step;
  if (const auto form = NormalFormNamed(type)) {
    step.kind = Step::kNormalForm;
    step.form = *form;
  } else if (type == "Lowercase") {
    step.kind = Step::kLowercase;
  } else if (type == "Strip") {
    step.kind = Step::kStrip;
    MOEBIUS_ASSIGN(step.strip_left, node.GetBool("strip_left"));
    MOEBIUS_ASSIGN(step.strip_right, node.GetBool("strip_right"));
  } else if (type == "Prepend") {
    step.kind = Step::kPrepend;
    MOEBIUS_ASSIGN(step.content, node.GetString("prepend"));
  } else if (type == "Replace") {
    step.kind = Step::kReplace;
    MOEBIUS_ASSIGN(step.content, node.GetString("content"));
    MOEBIUS_ASSIGN(const JsonNode pattern, node.Get("pattern"));
    MOEBIUS_ASSIGN(step.pattern, ParsePattern(pattern));
  } else {
    return node.Unsupported(fmt::format("the normalizer '{}' is not supported", type));
  }
  return step;
}

bool Normalizer::Apply(std::string& text, RegexScratch& scratch) const {
  bool keeps_start = true;
  for (const Step& step : steps_) {
    if (text.empty()) break;
    switch (step.kind) {
      case Step::kNormalForm:
        text = Normalize(text, step.form);
        break;
      case Step::kLowercase:
        text = Lowercase(text);
        break;
      case Step::kStrip: {
        const std::string_view rest = Strip(text, step.strip_left, step.strip_right);
        if (rest.data() != text.data()) keeps_start = false;
        text = std::string(rest);
        break;
      }
      case Step::kPrepend:
        text.insert(0, step.content);
        break;
      case Step::kReplace: {
        std::vector<Span> first;
        if (step.content.empty()) step.pattern->FindAll(text, scratch, first);
        if (!first.empty() && first[0].begin == 0 && first[0].size() > 0) keeps_start = false;
        text = ReplaceAll(text, *step.pattern, step.content, scratch);
        break;
      }
    }
  }
  return keeps_start;
}

}  // namespace moebius::text
