// HTTP messages as bytes: the heads that the server and the client send. What would let a value
// smuggle a line of its own is refused. Pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http_message.h"

namespace moebius::net {

const char* ReasonPhrase(int status);  // "OK", "Not Found", ...; "" if unknown

// Case is ignored; ASCII.
bool EqualsIgnoreCase(std::string_view a, std::string_view b);

// A name is a token of RFC 9110; a value has no control characters but tabs. kInvalidArgument names
// the header.
Status CheckHeaders(const std::vector<HttpHeader>& headers);

// Whether an answer of this status has a body at all (not 1xx, 204, 304).
bool StatusHasBody(int status);

// How an answer's body ends.
struct Framing {
  int http_minor = 1;  // of the client: HTTP/1.0 or 1.1
  bool keep_alive = true;
  std::optional<size_t> content_length;  // none: chunked for HTTP/1.1, else until the close
};
// Appends the status line and headers, with the empty line. `date`: "Sun, 06 Nov 1994 08:49:37
// GMT". Content-Type, Content-Length, Transfer-Encoding, Date and Connection among the response's
// own headers are left out: they are the server's.
void AppendResponseHead(const HttpResponse& response, const Framing& framing, std::string_view date,
                        std::string* out);

// The head of a request with its Host, and Content-Length if it has a body or its method calls for
// one. `target` is what stands in the request line.
void AppendRequestHead(const HttpRequest& request, std::string_view target, std::string_view host,
                       std::string* out);

void AppendChunk(std::string_view bytes, std::string* out);  // nothing for no bytes
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace moebius::net
