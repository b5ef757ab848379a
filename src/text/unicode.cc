#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace moebius::text {
namespace {

// Whether no normal form changes `c` and nothing composes with a character before it, so that text
// can be cut in front of it. Conservative: Hangul and everything with a decomposition say no.
bool StartsSegment(char32_t c) {
  if (c < 0x80) return true;
  if (c >= 0x4E00 && c <= 0x9FFF) return true;  // unified ideographs: most of Chinese text
  if (c == 0x11A7) return true;  // composes with nothing, but utf8proc 2.8 would swallow it
  if (c >= 0x1100 && c <= 0x11FF) return false;
  if (c >= 0xAC00 && c <= 0xD7FF) return false;
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return property->combining_class == 0 && property->decomp_seqindex == UINT16_MAX &&
         property->comb_index == UINT16_MAX;
}

// Decomposes, orders and composes in steps of our own: utf8proc's ordering is quadratic in a run of
// combining marks, and linear on one that is ordered already.
void AppendNormalized(std::string& out, std::string_view segment, NormalForm form) {
  int flags = UTF8PROC_STABLE;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  flags |= compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) flags |= UTF8PROC_COMPAT;
  const auto options = static_cast<utf8proc_option_t>(flags);

  std::vector<utf8proc_int32_t> chars;
  constexpr int kMaxDecomposition = 32;  // the longest is 18 (U+FDFA)
  for (size_t pos = 0; pos < segment.size();) {
    const CodePoint c = DecodeAt(segment, pos);
    pos += static_cast<size_t>(c.size);
    const size_t size = chars.size();
    chars.resize(size + kMaxDecomposition);
    int boundary_class = 0;
    const utf8proc_ssize_t num_chars =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), chars.data() + size,
                                kMaxDecomposition, options, &boundary_class);
    MOEBIUS_CHECK(num_chars >= 0 && num_chars <= kMaxDecomposition);
    chars.resize(size + static_cast<size_t>(num_chars));
  }
  const auto combining_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  const auto is_starter = [&](utf8proc_int32_t c) { return combining_class(c) == 0; };
  for (auto begin = chars.begin(); begin != chars.end();) {
    const auto end = std::find_if(begin + 1, chars.end(), is_starter);
    std::stable_sort(begin, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
  const auto num_chars = static_cast<utf8proc_ssize_t>(chars.size());
  chars.push_back(0);  // utf8proc_reencode ends its text with a zero
  const utf8proc_ssize_t size = utf8proc_reencode(chars.data(), num_chars, options);
  MOEBIUS_CHECK(size >= 0);
  out.append(reinterpret_cast<const char*>(chars.data()), static_cast<size_t>(size));
}

}  // namespace

Utf8Unit ScanUtf8(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Unit::kCharacter, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Unit::kMalformed, 1};
  const int size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range is narrower where overlong forms, surrogates or code points past
  // U+10FFFF would begin.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (int i = 1; i < size; ++i) {
    if (static_cast<size_t>(i) == bytes.size()) return {Utf8Unit::kTruncated, i};
    const uint8_t next = byte(static_cast<size_t>(i));
    if (next < low || next > high) return {Utf8Unit::kMalformed, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Unit::kCharacter, size};
}

size_t ValidPrefix(std::string_view bytes) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    if (static_cast<uint8_t>(bytes[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Utf8Unit unit = ScanUtf8(bytes.substr(pos));
    if (unit.kind != Utf8Unit::kCharacter) break;
    pos += static_cast<size_t>(unit.size);
  }
  return pos;
}

std::string ReplaceMalformed(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t valid = ValidPrefix(bytes);
    out += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    out += kReplacementChar;
    bytes.remove_prefix(static_cast<size_t>(ScanUtf8(bytes).size));
  }
  return out;
}

CodePoint DecodeAt(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[pos + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const auto tail = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  if (lead < 0xE0) return {static_cast<char32_t>(lead & 0x1F) << 6 | tail(1), 2};
  if (lead < 0xF0) return {static_cast<char32_t>(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  return {static_cast<char32_t>(lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

CodePoint DecodeBefore(std::string_view text, size_t end) {
  size_t pos = end - 1;
  while ((static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80) --pos;
  return DecodeAt(text, pos);
}

void AppendUtf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t value) { out += static_cast<char>(value); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

std::string Utf8(char32_t code_point) {
  std::string out;
  AppendUtf8(out, code_point);
  return out;
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = DecodeAt(text, pos);
    pos += static_cast<size_t>(c.size);
    if (c.value == 0x130) {
      out += "i\xCC\x87";
    } else {
      AppendUtf8(out,
                 static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))));
    }
  }
  return out;
}

std::string Normalize(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size());
  // Segments of a starter and what may interact with it; those of one starter alone, nearly all of
  // ordinary text, are copied.
  size_t copied = 0;  // text before it is in `out`
  size_t segment = 0;
  bool plain = true;  // the segment is one starter that no form changes
  const auto flush = [&](size_t end) {
    if (plain) return;
    out += text.substr(copied, segment - copied);
    AppendNormalized(out, text.substr(segment, end - segment), form);
    copied = end;
  };
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = DecodeAt(text, pos);
    if (StartsSegment(c.value)) {
      flush(pos);
      segment = pos;
      plain = true;
    } else {
      plain = false;
    }
    pos += static_cast<size_t>(c.size);
  }
  flush(text.size());
  out += text.substr(copied);
  return out;
}

}  // namespace moebius::text
