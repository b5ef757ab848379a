// Who may call, from where, under which name, and who is to answer: API keys, CORS, request ids,
// data-parallel ranks. Pure functions over a request's headers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http_message.h"

namespace moebius::serve {

// Whether `Authorization: Bearer KEY` names one of the keys. Without keys everybody may (an empty
// key included). Takes the same time wherever the keys differ.
bool IsAuthorized(const net::HttpRequest& request, const std::vector<std::string>& api_keys);

constexpr size_t kMaxRequestIdBytes = 128;
// X-Request-Id if it is 1 to kMaxRequestIdBytes visible ASCII characters, else a random one: 32
// hexadecimal digits.
std::string RequestIdOf(const net::HttpRequest& request);

inline constexpr char kDataParallelRankHeader[] = "X-data-parallel-rank";
// Which rank that header asks for; none: no header. kInvalidArgument names it unless its value is a
// rank from 0 to data_parallel_size - 1.
Result<std::optional<int>> DataParallelRankOf(const net::HttpRequest& request,
                                              int64_t data_parallel_size);

// What a web page of the request's origin needs to read the answer; none: no origin, or not
// allowed.
std::vector<net::HttpHeader> CorsHeaders(const net::HttpRequest& request,
                                         const std::vector<std::string>& allowed_origins);

// The answer to a browser that asks before it calls (OPTIONS), without CorsHeaders.
net::HttpResponse Preflight(const net::HttpRequest& request, const std::string& allow);

}  // namespace moebius::serve
