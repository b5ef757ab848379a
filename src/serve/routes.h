// The server's endpoints as a table, and how a request finds its own. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moebius::serve {

enum class Action : uint8_t {
  kChatCompletions,
  kCompletions,
  kTokenize,
  kDetokenize,
  kTokenizerInfo,
  kModels,
  kModel,
  kVersion,
  kLoad,
  kHealth,
  kHealthLive,
  kHealthReady,
  kHealthProgress,
  kMetrics,
  kStats,
  kExpertCounts,
  kPage,
};

struct Route {
  std::string_view method;
  std::string_view path;  // "{id}" at the end stands for the rest, slashes included
  Action action;
  bool is_open = false;  // needs no API key
};

std::span<const Route> Routes();

// Whether a request's body means something there.
bool TakesBody(Action action);

struct RouteMatch {
  const Route* route = nullptr;  // null: none
  std::string argument;          // what {id} stands for, percent-decoded
  std::string allow;             // no route, but the path has other methods: "GET, HEAD"
};

// HEAD is GET (whoever sends the answer leaves out its body). A slash at the path's end is
// tolerated.
RouteMatch FindRoute(std::string_view method, std::string_view path);

// For who asked for a path that there is not: the nearest one and all there are, in one line.
std::string NoRouteMessage(std::string_view path);

// %41 -> A; a malformed escape stays as it is.
std::string PercentDecode(std::string_view text);

}  // namespace moebius::serve
