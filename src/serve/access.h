// Who may call, from where, and under which name: API keys, CORS, request ids. Pure functions over
// a request's headers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "net/http_message.h"

namespace moebius::serve {

// Whether `Authorization: Bearer KEY` names one of the keys. Without keys everybody may (an empty
// key included). Takes the same time wherever the keys differ.
bool IsAuthorized(const net::HttpRequest& request, const std::vector<std::string>& api_keys);

constexpr size_t kMaxRequestIdBytes = 128;
// X-Request-Id if it is 1 to kMaxRequestIdBytes visible ASCII characters, else a random one: 32
// hexadecimal digits.
std::string RequestIdOf(const net::HttpRequest& request);

// What a web page of the request's origin needs to read the answer; none: no origin, or not
// allowed.
std::vector<net::HttpHeader> CorsHeaders(const net::HttpRequest& request,
                                         const std::vector<std::string>& allowed_origins);

// The answer to a browser that asks before it calls (OPTIONS), without CorsHeaders.
net::HttpResponse Preflight(const net::HttpRequest& request, const std::string& allow);

}  // namespace moebius::serve
