// HTTP messages as plain values: what a server hands to its handler and a client sends. Header
// names compare without case.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moebius::net {

struct HttpHeader {
  std::string name;
  std::string value;
};

struct HttpRequest {
  std::string method = "GET";
  std::string target = "/";  // path and query, as sent
  std::vector<HttpHeader> headers;
  std::string body;
  std::string peer;  // address:port of who sent it; a server fills it

  std::string_view path() const;                         // the target up to '?'
  std::string_view query() const;                        // behind it, or empty
  const std::string* Find(std::string_view name) const;  // a header's value, or null
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<HttpHeader> headers;  // besides Content-Type, Content-Length, Date, Connection
  std::string body;
};

}  // namespace moebius::net
