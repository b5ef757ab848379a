#include "serve/routes.h"

#include <fmt/format.h>

#include <vector>

#include "base/suggest.h"

namespace moebius::serve {
namespace {

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", Action::kChatCompletions},
    {"POST", "/v1/completions", Action::kCompletions},
    {"GET", "/v1/models", Action::kModels},
    {"GET", "/v1/models/{id}", Action::kModel},
    {"POST", "/tokenize", Action::kTokenize},
    {"POST", "/detokenize", Action::kDetokenize},
    {"GET", "/tokenizer_info", Action::kTokenizerInfo},
    {"GET", "/version", Action::kVersion},
    {"GET", "/load", Action::kLoad},
    {"GET", "/health", Action::kHealth, true},
    {"GET", "/health/live", Action::kHealthLive, true},
    {"GET", "/health/ready", Action::kHealthReady, true},
    {"GET", "/health/progress", Action::kHealthProgress, true},
    {"GET", "/ping", Action::kHealth, true},
    {"POST", "/ping", Action::kHealth, true},
    {"GET", "/metrics", Action::kMetrics, true},
    {"GET", "/moebius/stats", Action::kStats},
    {"GET", "/eplb/counts", Action::kExpertCounts},
    {"GET", "/", Action::kPage, true},
};
constexpr std::string_view kArgument = "{id}";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool Matches(const Route& route, std::string_view path, std::string_view* argument) {
  if (!route.path.ends_with(kArgument)) return route.path == path;
  const std::string_view prefix = route.path.substr(0, route.path.size() - kArgument.size());
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return false;
  *argument = path.substr(prefix.size());
  return true;
}

}  // namespace

std::span<const Route> Routes() { return kRoutes; }

bool TakesBody(Action action) {
  return action == Action::kChatCompletions || action == Action::kCompletions ||
         action == Action::kTokenize || action == Action::kDetokenize;
}

RouteMatch FindRoute(std::string_view method, std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  RouteMatch match;
  for (const Route& route : kRoutes) {
    std::string_view argument;
    if (!Matches(route, path, &argument)) continue;
    if (route.method == method || (route.method == "GET" && method == "HEAD")) {
      return {&route, PercentDecode(argument), ""};
    }
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.method == "GET" ? "GET, HEAD" : route.method;
  }
  return match;
}

std::string NoRouteMessage(std::string_view path) {
  std::vector<std::string> all;
  std::string list;
  std::string_view last = "-";  // no path begins so
  for (const Route& route : kRoutes) {
    if (route.path != last && !route.path.ends_with(kArgument)) all.emplace_back(route.path);
    // What is below one that was named just before goes without saying.
    if (route.path.starts_with(last)) continue;
    last = route.path;
    if (!list.empty()) list += ", ";
    list += last;
  }
  constexpr size_t kLongestGuess = 64;
  return fmt::format("there is no {} here{}; this server has {}", path,
                     path.size() > kLongestGuess ? "" : DidYouMean(path, all), list);
}

std::string PercentDecode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
    const int low = high >= 0 ? HexDigit(text[i + 2]) : -1;
    if (low < 0) {
      decoded += text[i];
      continue;
    }
    decoded += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return decoded;
}

}  // namespace moebius::serve
