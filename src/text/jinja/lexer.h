// Splits a template into tokens as jinja2 does with trim_blocks and lstrip_blocks on: the newline
// after a block tag and the blanks before one are gone, `-` strips further, `+` keeps. Pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace moebius::text::jinja {

enum class TokenType : uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text;  // data, name, operator, decoded string; what was written for numbers
  int64_t integer = 0;
  double number = 0;
};

// The last token is kEnd. kInvalidArgument: no template ("line 3: ...").
Result<std::vector<Token>> Tokenize(std::string_view source);

// How an error names a token: its text, or what it is.
std::string Describe(const Token& token);

}  // namespace moebius::text::jinja
