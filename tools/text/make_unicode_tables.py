#!/usr/bin/env python3
"""Writes src/text/jinja/unicode_tables.cc: what Python's str knows of Unicode, as tables.

Usage: make_unicode_tables.py > src/text/jinja/unicode_tables.cc   (then clang-format)
"""
import sys
import unicodedata

ALL = [chr(c) for c in range(sys.maxunicode + 1)]


def strided(codes):
    """Groups sorted code points into (first, last, step), step 1 or 2."""
    ranges = []
    i = 0
    while i < len(codes):
        best = (codes[i], codes[i], 1, 1)
        for step in (1, 2):
            j = i
            while j + 1 < len(codes) and codes[j + 1] - codes[j] == step:
                j += 1
            if j - i + 1 > best[3]:
                best = (codes[i], codes[j], step, j - i + 1)
        ranges.append(best[:3])
        i += best[3]
    return ranges


def property_table(name, predicate):
    ranges = strided([ord(c) for c in ALL if predicate(c)])
    body = ",".join("{0x%x,0x%x,%d}" % r for r in ranges)
    print(f"const CodeRange k{name}[] = {{{body}}};\nconst size_t kNum{name} = std::size(k{name});")


def case_table(name, convert, same_as=lambda c: c):
    """Leaves out characters that `same_as` converts alike."""
    by_delta = {}
    special = []
    for c in ALL:
        mapped = convert(c)
        if mapped == same_as(c):
            continue
        if len(mapped) == 1:
            by_delta.setdefault(ord(mapped) - ord(c), []).append(ord(c))
        else:
            special.append((ord(c), [ord(m) for m in mapped]))
    ranges = sorted(r + (delta,) for delta, codes in by_delta.items() for r in strided(codes))
    body = ",".join("{0x%x,0x%x,%d,%d}" % r for r in ranges)
    print(f"const CaseRange k{name}[] = {{{body}}};\nconst size_t kNum{name} = std::size(k{name});")
    body = ",".join("{0x%x,{%s}}" % (c, ",".join("0x%x" % m for m in mapped)) for c, mapped in special)
    print(f"const CaseSpecial k{name}Special[] = {{{body}}};")
    print(f"const size_t kNum{name}Special = std::size(k{name}Special);")


def main():
    print(f"// Made by tools/text/make_unicode_tables.py (Unicode {unicodedata.unidata_version}). Not to be edited.")
    print('#include "text/jinja/unicode_tables.h"\n\n#include <iterator>\n')
    print("namespace moebius::text::jinja {\n")
    property_table("Alpha", str.isalpha)
    property_table("Decimal", str.isdecimal)
    property_table("Digit", str.isdigit)
    property_table("Numeric", str.isnumeric)
    property_table("Space", str.isspace)
    property_table("Lower", str.islower)
    property_table("Upper", str.isupper)
    property_table("Title", lambda c: unicodedata.category(c) == "Lt")
    property_table("Unprintable", lambda c: not c.isprintable())
    case_table("ToUpper", str.upper)
    case_table("ToLower", str.lower)
    case_table("ToTitle", str.title, same_as=str.upper)
    print("}  // namespace moebius::text::jinja")


main()
