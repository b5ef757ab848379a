// The address of a server as users write it: scheme://host[:port][/prefix]. A plain value.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::net {

struct HttpUrl {
  bool is_https = false;
  std::string host;  // a name or an address, IPv6 without its brackets
  int port = 80;
  std::string prefix;  // before every target, without a '/' at its end; may be empty

  std::string authority() const;  // for the Host header: the port only if it is not the scheme's
};

// kInvalidArgument: what is wrong, and what a URL looks like. No user, query or fragment.
Result<HttpUrl> ParseHttpUrl(std::string_view text);

}  // namespace moebius::net
