// Tables behind unicode.h, made by tools/text/make_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebius::text::jinja {

struct CodeRange {  // first, first + step, ..., last
  uint32_t first;
  uint32_t last;
  uint32_t step;
};
struct CaseRange {  // each of them maps to itself + delta
  uint32_t first;
  uint32_t last;
  uint32_t step;
  int32_t delta;
};
struct CaseSpecial {  // maps to several characters; zeros end them
  uint32_t code;
  uint32_t mapped[3];
};

// Sorted by `first`; ranges of step 2 may overlap their neighbours.
extern const CodeRange kAlpha[], kDecimal[], kDigit[], kNumeric[], kSpace[], kLower[], kUpper[],
    kTitle[], kUnprintable[];
extern const size_t kNumAlpha, kNumDecimal, kNumDigit, kNumNumeric, kNumSpace, kNumLower, kNumUpper,
    kNumTitle, kNumUnprintable;
extern const CaseRange kToUpper[], kToLower[], kToTitle[];
extern const size_t kNumToUpper, kNumToLower, kNumToTitle;
// What kToTitle holds is only where titlecase differs from uppercase.
extern const CaseSpecial kToUpperSpecial[], kToLowerSpecial[], kToTitleSpecial[];
extern const size_t kNumToUpperSpecial, kNumToLowerSpecial, kNumToTitleSpecial;

}  // namespace moebius::text::jinja
