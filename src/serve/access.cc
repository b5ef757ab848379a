#include "serve/access.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>

namespace moebius::serve {
namespace {

constexpr std::string_view kScheme = "bearer ";

bool EqualsWithoutCase(std::string_view a, std::string_view lower) {
  return a.size() == lower.size() &&
         std::equal(a.begin(), a.end(), lower.begin(), [](char x, char y) {
           return (x >= 'A' && x <= 'Z' ? static_cast<char>(x - 'A' + 'a') : x) == y;
         });
}

std::string_view Trim(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// Looks at every byte of `given`, whatever it finds; only the key's length shows.
bool EqualsInConstantTime(std::string_view given, std::string_view key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char expected = key.empty() ? '\0' : key[i % key.size()];
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(expected);
  }
  return difference == 0;
}

}  // namespace

bool IsAuthorized(const net::HttpRequest& request, const std::vector<std::string>& api_keys) {
  if (api_keys.empty()) return true;
  const std::string* header = request.Find("Authorization");
  if (header == nullptr || header->size() < kScheme.size()) return false;
  const std::string_view value = *header;
  if (!EqualsWithoutCase(value.substr(0, kScheme.size()), kScheme)) return false;
  const std::string_view given = Trim(value.substr(kScheme.size()));
  unsigned found = 0;
  for (const std::string& key : api_keys) found |= EqualsInConstantTime(given, key) ? 1U : 0U;
  return found != 0;
}

std::string RequestIdOf(const net::HttpRequest& request) {
  const std::string* given = request.Find("X-Request-Id");
  const auto is_visible = [](char c) { return c > ' ' && c < '\x7f'; };
  if (given != nullptr && !given->empty() && given->size() <= kMaxRequestIdBytes &&
      std::ranges::all_of(*given, is_visible)) {
    return *given;
  }
  static thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  const uint64_t high = random();
  return fmt::format("{:016x}{:016x}", high, random());
}

Result<std::optional<int>> DataParallelRankOf(const net::HttpRequest& request,
                                              int64_t data_parallel_size) {
  const std::string* given = request.Find(kDataParallelRankHeader);
  if (given == nullptr) return std::optional<int>();
  const std::string_view text = Trim(*given);
  int rank = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), rank);
  if (failure != std::errc() || end != text.data() + text.size() || rank < 0 ||
      rank >= data_parallel_size) {
    return MakeError(
        ErrorCode::kInvalidArgument, "the header {} is \"{}\", expected a rank from 0 to {}",
        kDataParallelRankHeader, text.substr(0, kMaxRequestIdBytes), data_parallel_size - 1);
  }
  return rank;
}

std::vector<net::HttpHeader> CorsHeaders(const net::HttpRequest& request,
                                         const std::vector<std::string>& allowed_origins) {
  const std::string* origin = request.Find("Origin");
  if (origin == nullptr || allowed_origins.empty()) return {};
  const bool any = std::ranges::find(allowed_origins, "*") != allowed_origins.end();
  if (!any && std::ranges::find(allowed_origins, *origin) == allowed_origins.end()) return {};
  std::vector<net::HttpHeader> headers = {
      {"Access-Control-Allow-Origin", any ? "*" : *origin},
      {"Access-Control-Expose-Headers", "X-Request-Id, Retry-After"}};
  if (!any) headers.push_back({"Vary", "Origin"});
  return headers;
}

net::HttpResponse Preflight(const net::HttpRequest& request, const std::string& allow) {
  net::HttpResponse response;
  response.status = 204;
  response.headers.push_back({"Allow", allow});
  if (request.Find("Access-Control-Request-Method") == nullptr) return response;
  response.headers.push_back({"Access-Control-Allow-Methods", allow});
  if (const std::string* wanted = request.Find("Access-Control-Request-Headers")) {
    response.headers.push_back({"Access-Control-Allow-Headers", *wanted});
  }
  response.headers.push_back({"Access-Control-Max-Age", "600"});
  return response;
}

}  // namespace moebius::serve
