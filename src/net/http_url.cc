#include "net/http_url.h"

#include <fmt/format.h>

#include <charconv>

namespace moebius::net {
namespace {

tl::unexpected<Error> BadUrl(std::string_view text, std::string_view why) {
  return MakeError(ErrorCode::kInvalidArgument,
                   "the URL '{}' {}; expected http://HOST[:PORT][/PREFIX] or https://...", text,
                   why);
}

bool IsHostCharacter(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
         c == '-' || c == '_';
}

}  // namespace

std::string HttpUrl::authority() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (is_https ? 443 : 80) ? name : fmt::format("{}:{}", name, port);
}

Result<HttpUrl> ParseHttpUrl(std::string_view text) {
  HttpUrl url;
  std::string_view rest = text;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
    url.is_https = true;
    url.port = 443;
  } else {
    return BadUrl(text, "has no scheme that is known");
  }
  for (const char c : rest) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) {
      return BadUrl(text, "has a space or control character");
    }
  }
  const size_t slash = rest.find('/');
  std::string_view authority = rest.substr(0, slash);
  if (slash != std::string_view::npos) url.prefix = rest.substr(slash);
  while (url.prefix.ends_with('/')) url.prefix.pop_back();
  if (rest.find_first_of("?#") != std::string_view::npos) {
    return BadUrl(text, "has a query or fragment");
  }

  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return BadUrl(text, "has a '[' without its ']'");
    url.host = authority.substr(1, end - 1);
    if (url.host.find_first_not_of("0123456789abcdefABCDEF:.") != std::string::npos) {
      return BadUrl(text, "has no IPv6 address in its brackets");
    }
    port = authority.substr(end + 1);
  } else {
    const size_t colon = authority.find(':');
    url.host = authority.substr(0, colon);
    for (const char c : url.host) {
      if (!IsHostCharacter(c)) return BadUrl(text, "has a host that is no name or address");
    }
    if (colon != std::string_view::npos) port = authority.substr(colon);
  }
  if (url.host.empty()) return BadUrl(text, "has no host");
  if (!port.empty()) {
    int value = 0;
    const auto [end, error] =
        std::from_chars(port.data() + 1, port.data() + port.size(), value, 10);
    if (port[0] != ':' || error != std::errc() || end != port.data() + port.size() || value < 1 ||
        value > 65535) {
      return BadUrl(text, "has a port that is not 1 to 65535");
    }
    url.port = value;
  }
  return url;
}

}  // namespace moebius::net
