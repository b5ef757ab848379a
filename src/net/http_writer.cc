#include "net/http_writer.h"

#include <fmt/format.h>
#include <strings.h>

#include <iterator>

namespace moebius::net {
namespace {

bool IsTokenCharacter(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return true;
  return c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool IsToken(std::string_view text) {
  for (const char c : text) {
    if (!IsTokenCharacter(c)) return false;
  }
  return !text.empty();
}

bool IsFieldValue(std::string_view text) {
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) return false;
  }
  return true;
}

// Headers that say how the message ends: their writer knows, not who made the message.
bool IsFramingHeader(std::string_view name) {
  for (const char* framing : {"Content-Length", "Transfer-Encoding", "Connection"}) {
    if (EqualsIgnoreCase(name, framing)) return true;
  }
  return false;
}

void AppendHeader(std::string_view name, std::string_view value, std::string* out) {
  out->append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

const char* ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the sizes are compared before
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

Status CheckHeaders(const std::vector<HttpHeader>& headers) {
  for (const HttpHeader& header : headers) {
    if (!IsToken(header.name)) {
      return MakeError(ErrorCode::kInvalidArgument, "the header name '{}' is no token",
                       header.name);
    }
    if (!IsFieldValue(header.value)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the value of header '{}' has a line break or control character",
                       header.name);
    }
  }
  return {};
}

bool StatusHasBody(int status) { return status >= 200 && status != 204 && status != 304; }

void AppendResponseHead(const HttpResponse& response, const Framing& framing, std::string_view date,
                        std::string* out) {
  fmt::format_to(std::back_inserter(*out), "HTTP/1.1 {} {}\r\n", response.status,
                 ReasonPhrase(response.status));
  AppendHeader("Date", date, out);
  for (const HttpHeader& header : response.headers) {
    if (IsFramingHeader(header.name) || EqualsIgnoreCase(header.name, "Date") ||
        EqualsIgnoreCase(header.name, "Content-Type")) {
      continue;
    }
    AppendHeader(header.name, header.value, out);
  }
  if (StatusHasBody(response.status)) {
    if (!response.content_type.empty()) AppendHeader("Content-Type", response.content_type, out);
    if (framing.content_length) {
      fmt::format_to(std::back_inserter(*out), "Content-Length: {}\r\n", *framing.content_length);
    } else if (framing.http_minor >= 1) {
      out->append("Transfer-Encoding: chunked\r\n");
    }
  }
  if (!framing.keep_alive) {
    out->append("Connection: close\r\n");
  } else if (framing.http_minor == 0) {
    out->append("Connection: keep-alive\r\n");
  }
  out->append("\r\n");
}

void AppendRequestHead(const HttpRequest& request, std::string_view target, std::string_view host,
                       std::string* out) {
  out->append(request.method).append(" ").append(target).append(" HTTP/1.1\r\n");
  AppendHeader("Host", host, out);
  for (const HttpHeader& header : request.headers) {
    if (IsFramingHeader(header.name) || EqualsIgnoreCase(header.name, "Host")) continue;
    AppendHeader(header.name, header.value, out);
  }
  const bool calls_for_body =
      request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (calls_for_body || !request.body.empty()) {
    fmt::format_to(std::back_inserter(*out), "Content-Length: {}\r\n", request.body.size());
  }
  out->append("\r\n");
}

void AppendChunk(std::string_view bytes, std::string* out) {
  if (bytes.empty()) return;
  fmt::format_to(std::back_inserter(*out), "{:x}\r\n", bytes.size());
  out->append(bytes).append("\r\n");
}

}  // namespace moebius::net
