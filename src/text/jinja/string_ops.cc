#include "text/jinja/string_ops.h"

#include <algorithm>

#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

std::vector<std::string_view> SplitOnSpace(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> parts;
  text = Strip(text, Side::kLeft);
  while (!text.empty()) {
    if (max_splits-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !IsSpace(CodeAt(text, end))) end += CharSize(text, end);
    parts.push_back(text.substr(0, end));
    text = Strip(text.substr(end), Side::kLeft);
  }
  return parts;
}

std::vector<std::string_view> SplitOnSpaceFromRight(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> words = SplitOnSpace(text, -1);
  const auto num_words = static_cast<int64_t>(words.size());
  if (num_words <= max_splits + 1 || max_splits < 0) return words;
  // The first words stay together: up to the end of the last of them.
  const std::string_view last = words[static_cast<size_t>(num_words - max_splits - 1)];
  std::vector<std::string_view> parts = {
      text.substr(0, static_cast<size_t>(last.end() - text.begin()))};
  parts.insert(parts.end(), words.end() - max_splits, words.end());
  return parts;
}

bool IsLineBreak(uint32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

bool HasCase(std::string_view text, bool (*wanted)(uint32_t), bool (*other)(uint32_t)) {
  bool any = false;
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    const uint32_t code = CodeAt(text, at);
    if (other(code) || IsTitle(code)) return false;
    any = any || wanted(code);
  }
  return any;
}

}  // namespace

Status ChargeSearch(std::string_view text, std::string_view wanted, Budget& budget) {
  return budget.Step(static_cast<int64_t>(text.size() / 64 + text.size() * wanted.size() / 1024));
}

std::vector<std::string_view> SplitText(std::string_view text,
                                        const std::optional<std::string>& separator,
                                        int64_t max_splits, bool from_right) {
  max_splits = std::max<int64_t>(max_splits, -1);
  if (!separator)
    return from_right ? SplitOnSpaceFromRight(text, max_splits) : SplitOnSpace(text, max_splits);
  std::vector<std::string_view> parts;
  while (max_splits-- != 0) {
    const size_t at = from_right ? text.rfind(*separator) : text.find(*separator);
    if (at == std::string_view::npos) break;
    const std::string_view after = text.substr(at + separator->size());
    parts.push_back(from_right ? after : text.substr(0, at));
    text = from_right ? text.substr(0, at) : after;
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = CharSize(text, at);
    if (!IsLineBreak(CodeAt(text, at))) {
      at += size;
      continue;
    }
    const size_t break_size = text.substr(at, 2) == "\r\n" ? 2 : size;
    lines.push_back(text.substr(begin, at - begin + (keep_ends ? break_size : 0)));
    at += break_size;
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

Result<std::string> ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                                int64_t max_count, Budget& budget) {
  std::string out;
  max_count = std::max<int64_t>(max_count, -1);
  MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(text.size())));
  MOEBIUS_TRY(ChargeSearch(text, from, budget));
  const auto spend = [&] { return budget.Bytes(static_cast<int64_t>(to.size())); };
  size_t at = 0;
  if (from.empty()) {
    // Python puts `to` before every character and at the end.
    while (max_count != 0) {
      MOEBIUS_TRY(spend());
      out += to;
      --max_count;
      if (at == text.size()) return out;
      const size_t size = CharSize(text, at);
      out += text.substr(at, size);
      at += size;
    }
  } else {
    for (size_t found = 0;
         max_count != 0 && (found = text.find(from, at)) != std::string_view::npos; --max_count) {
      MOEBIUS_TRY(spend());
      out += text.substr(at, found - at);
      out += to;
      at = found + from.size();
    }
  }
  out += text.substr(at);
  return out;
}

std::string RepeatText(std::string_view text, int64_t count) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += text;
  return out;
}

bool IsLowerText(std::string_view text) { return HasCase(text, IsLower, IsUpper); }
bool IsUpperText(std::string_view text) { return HasCase(text, IsUpper, IsLower); }

}  // namespace moebius::text::jinja
