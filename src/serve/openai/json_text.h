// Pieces of JSON, appended to a text: what every chunk of a stream is made of, so that no tree of
// values is built for one. Whatever bytes come in, valid JSON and UTF-8 come out. Free functions,
// any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"

namespace moebius::serve {

// `text` in quotes. Malformed UTF-8 becomes U+FFFD. The line ends beyond ASCII (U+0085, U+2028,
// U+2029) are escaped too: clients that split an event stream as Python splits lines would break
// there.
void AppendJsonString(std::string& out, std::string_view text);
// The same without the quotes.
void AppendJsonEscaped(std::string& out, std::string_view text);

void AppendInt(std::string& out, int64_t value);
void AppendIds(std::string& out, std::span<const TokenId> ids);  // [1,2]
// [1,2] of bytes.
void AppendBytes(std::string& out, std::string_view bytes);
// JSON has no infinity: -inf and what is no number become -9999.0, as clients of vLLM know it.
void AppendLogprob(std::string& out, float logprob);

}  // namespace moebius::serve
