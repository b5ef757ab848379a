#include "text/jinja/unicode.h"

#include <algorithm>

#include "text/jinja/unicode_tables.h"

namespace moebius::text::jinja {
namespace {

constexpr uint32_t kStray = 0xFFFFFFFF;
constexpr uint32_t kCapitalSigma = 0x3A3;
constexpr uint32_t kFinalSigma = 0x3C2;

bool IsContinuation(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;
}

// The range of step 1 or 2 that holds `code`, or null. Ranges of step 2 interleave, so a few before
// are looked at too.
template <typename Range>
const Range* FindRange(const Range* ranges, size_t num_ranges, uint32_t code) {
  const Range* end = ranges + num_ranges;
  const Range* it =
      std::upper_bound(ranges, end, code, [](uint32_t c, const Range& r) { return c < r.first; });
  for (int looked = 0; it != ranges && looked < 3; ++looked) {
    --it;
    if (code <= it->last && (code - it->first) % it->step == 0) return it;
  }
  return nullptr;
}

// ASCII needs no table: letters change case, the rest stays.
bool AppendAscii(std::string& out, uint32_t code, char first, char last) {
  if (code >= 0x80) return false;
  const char c = static_cast<char>(code);
  out += c >= first && c <= last ? static_cast<char>(c ^ 0x20) : c;
  return true;
}

bool AppendMapped(std::string& out, uint32_t code, const CaseRange* ranges, size_t num_ranges,
                  const CaseSpecial* special, size_t num_special) {
  const CaseSpecial* end = special + num_special;
  const CaseSpecial* found = std::lower_bound(
      special, end, code, [](const CaseSpecial& s, uint32_t c) { return s.code < c; });
  if (found != end && found->code == code) {
    for (uint32_t mapped : found->mapped) {
      if (mapped != 0) AppendCode(out, mapped);
    }
    return true;
  }
  if (const CaseRange* range = FindRange(ranges, num_ranges, code)) {
    AppendCode(out, code + static_cast<uint32_t>(range->delta));
    return true;
  }
  return false;
}

void AppendUpper(std::string& out, uint32_t code) {
  if (AppendAscii(out, code, 'a', 'z')) return;
  if (!AppendMapped(out, code, kToUpper, kNumToUpper, kToUpperSpecial, kNumToUpperSpecial))
    AppendCode(out, code);
}

void AppendTitle(std::string& out, uint32_t code) {
  if (AppendAscii(out, code, 'a', 'z')) return;
  if (!AppendMapped(out, code, kToTitle, kNumToTitle, kToTitleSpecial, kNumToTitleSpecial))
    AppendUpper(out, code);
}

bool IsCased(uint32_t code) { return IsLower(code) || IsUpper(code) || IsTitle(code); }

// A capital sigma at the end of a word becomes the final one.
bool IsFinalSigma(std::string_view text, size_t at) {
  const size_t after = at + CharSize(text, at);
  if (after < text.size() && IsCased(CodeAt(text, after))) return false;
  size_t before = at;
  if (before == 0) return false;
  do {
    --before;
  } while (before > 0 && IsContinuation(text, before));
  return IsCased(CodeAt(text, before));
}

// Stray bytes pass through as they are.
template <typename Append>
std::string MapChars(std::string_view text, Append append) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    const uint32_t code = CodeAt(text, at);
    if (code == kStray) {
      out += text[at];
    } else {
      append(out, code, at);
    }
  }
  return out;
}

void AppendLower(std::string& out, std::string_view text, uint32_t code, size_t at) {
  if (AppendAscii(out, code, 'A', 'Z')) return;
  if (code == kCapitalSigma) {
    AppendCode(out, IsFinalSigma(text, at) ? kFinalSigma : kCapitalSigma + 0x20);
  } else if (!AppendMapped(out, code, kToLower, kNumToLower, kToLowerSpecial, kNumToLowerSpecial)) {
    AppendCode(out, code);
  }
}

}  // namespace

size_t WideCharSize(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0xC2 || lead > 0xF4) return 1;
  if (lead < 0xE0) return IsContinuation(text, at + 1) ? 2 : 1;
  const auto second = at + 1 < text.size() ? static_cast<uint8_t>(text[at + 1]) : uint8_t{0};
  if (lead < 0xF0) {
    // Neither overlong forms nor surrogates.
    const bool valid = (lead != 0xE0 || second >= 0xA0) && (lead != 0xED || second < 0xA0);
    return valid && IsContinuation(text, at + 1) && IsContinuation(text, at + 2) ? 3 : 1;
  }
  const bool valid = (lead != 0xF0 || second >= 0x90) && (lead != 0xF4 || second < 0x90);
  return valid && IsContinuation(text, at + 1) && IsContinuation(text, at + 2) &&
                 IsContinuation(text, at + 3)
             ? 4
             : 1;
}

uint32_t WideCodeAt(std::string_view text, size_t at) {
  const size_t size = CharSize(text, at);
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(text[at + i]));
  };
  switch (size) {
    case 1:
      return byte(0) < 0x80 ? byte(0) : kStray;
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

void AppendCode(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

size_t NumChars(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) ++count;
  return count;
}

size_t ByteOffset(std::string_view text, size_t idx) {
  size_t at = 0;
  for (; idx > 0 && at < text.size(); --idx) at += CharSize(text, at);
  return at;
}

namespace {

// Properties of ASCII without a search; other characters ask the tables.
constexpr bool IsAsciiLower(uint32_t code) { return code >= 'a' && code <= 'z'; }
constexpr bool IsAsciiUpper(uint32_t code) { return code >= 'A' && code <= 'Z'; }
constexpr bool IsAsciiDigit(uint32_t code) { return code >= '0' && code <= '9'; }
bool IsAscii(uint32_t code) { return code < 0x80; }

}  // namespace

bool IsSpace(uint32_t code) {
  if (IsAscii(code)) return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20);
  return FindRange(kSpace, kNumSpace, code) != nullptr;
}
bool IsAlpha(uint32_t code) {
  if (IsAscii(code)) return IsAsciiLower(code) || IsAsciiUpper(code);
  return FindRange(kAlpha, kNumAlpha, code) != nullptr;
}
bool IsDecimal(uint32_t code) {
  if (IsAscii(code)) return IsAsciiDigit(code);
  return FindRange(kDecimal, kNumDecimal, code) != nullptr;
}
bool IsDigit(uint32_t code) {
  if (IsAscii(code)) return IsAsciiDigit(code);
  return FindRange(kDigit, kNumDigit, code) != nullptr;
}
bool IsNumeric(uint32_t code) {
  if (IsAscii(code)) return IsAsciiDigit(code);
  return FindRange(kNumeric, kNumNumeric, code) != nullptr;
}
bool IsAlnum(uint32_t code) {
  if (IsAscii(code)) return IsAsciiLower(code) || IsAsciiUpper(code) || IsAsciiDigit(code);
  return IsAlpha(code) || IsNumeric(code) || IsDigit(code);
}
bool IsLower(uint32_t code) {
  if (IsAscii(code)) return IsAsciiLower(code);
  return FindRange(kLower, kNumLower, code) != nullptr;
}
bool IsUpper(uint32_t code) {
  if (IsAscii(code)) return IsAsciiUpper(code);
  return FindRange(kUpper, kNumUpper, code) != nullptr;
}
bool IsTitle(uint32_t code) {
  if (IsAscii(code)) return false;
  return FindRange(kTitle, kNumTitle, code) != nullptr;
}
bool IsPrintable(uint32_t code) {
  return code != kStray && FindRange(kUnprintable, kNumUnprintable, code) == nullptr;
}

std::string ToUpper(std::string_view text) {
  return MapChars(text, [](std::string& out, uint32_t code, size_t) { AppendUpper(out, code); });
}

std::string ToLower(std::string_view text) {
  return MapChars(text, [text](std::string& out, uint32_t code, size_t at) {
    AppendLower(out, text, code, at);
  });
}

std::string ToTitle(std::string_view text) {
  bool in_word = false;
  return MapChars(text, [text, &in_word](std::string& out, uint32_t code, size_t at) {
    in_word ? AppendLower(out, text, code, at) : AppendTitle(out, code);
    in_word = IsCased(code);
  });
}

std::string ToCapitalized(std::string_view text) {
  return MapChars(text, [text](std::string& out, uint32_t code, size_t at) {
    at == 0 ? AppendTitle(out, code) : AppendLower(out, text, code, at);
  });
}

std::string ToSwappedCase(std::string_view text) {
  return MapChars(text, [text](std::string& out, uint32_t code, size_t at) {
    if (IsUpper(code)) {
      AppendLower(out, text, code, at);
    } else if (IsLower(code)) {
      AppendUpper(out, code);
    } else {
      AppendCode(out, code);
    }
  });
}

namespace {

template <typename Drop>
std::string_view StripWhere(std::string_view text, Side side, Drop drop) {
  size_t begin = 0;
  size_t end = text.size();
  if (side != Side::kRight) {
    while (begin < end && drop(begin)) begin += CharSize(text, begin);
  }
  while (side != Side::kLeft && end > begin) {
    // Back to the start of the last character, over at most three continuation bytes; a stray byte
    // stands alone.
    size_t last = end - 1;
    while (last > begin && end - last < 4 && IsContinuation(text, last)) --last;
    if (last + CharSize(text, last) != end) last = end - 1;
    if (!drop(last)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

}  // namespace

std::string_view Strip(std::string_view text, Side side) {
  return StripWhere(text, side, [text](size_t at) { return IsSpace(CodeAt(text, at)); });
}

std::string_view StripChars(std::string_view text, std::string_view chars, Side side) {
  return StripWhere(text, side, [text, chars](size_t at) {
    const std::string_view wanted = text.substr(at, CharSize(text, at));
    for (size_t i = 0; i < chars.size(); i += CharSize(chars, i)) {
      if (chars.substr(i, CharSize(chars, i)) == wanted) return true;
    }
    return false;
  });
}

}  // namespace moebius::text::jinja
