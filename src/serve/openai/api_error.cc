#include <algorithm>
#include <string>
#include <vector>

#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/openai/json_text.h"

namespace moebius::serve {
namespace {

// Whatever a message quotes; the list of routes fits.
constexpr size_t kMaxMessageBytes = 2000;

const char* TypeOf(int status) {
  switch (status) {
    case 400:
      return "BadRequestError";
    case 401:
      return "AuthenticationError";
    case 403:
      return "PermissionDeniedError";
    case 404:
      return "NotFoundError";
    case 405:
      return "MethodNotAllowedError";
    case 408:
      return "RequestTimeoutError";
    case 413:
      return "RequestTooLargeError";
    case 422:
      return "UnprocessableEntityError";
    case 429:
      return "RateLimitError";
    case 501:
      return "NotImplementedError";
    case 503:
      return "ServiceUnavailableError";
    case 504:
      return "GatewayTimeoutError";
    default:
      return status < 500 ? "BadRequestError" : "InternalServerError";
  }
}

int StatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kUnsupported:
      return 501;
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:  // nobody but a server that is going down cancels for a client
      return 503;
    case ErrorCode::kDeadline:
      return 504;
    case ErrorCode::kInternal:
      break;
  }
  return 500;
}

// The field that a message of the engine or the frontend begins with ("temperature is -1,
// expected ..."), or nothing.
std::string LeadingField(const std::string& message) {
  const auto is_name = [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; };
  const auto end = std::find_if_not(message.begin(), message.end(), is_name);
  const std::string name(message.begin(), end);
  const std::vector<std::string>& known = frontend::SamplingFieldNames();
  const bool is_field = name == "prompt" || name == "messages" || name == "tools" ||
                        std::find(known.begin(), known.end(), name) != known.end();
  return is_field ? name : "";
}

}  // namespace

std::string Shortened(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string ErrorBody(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(out, Shortened(error.message, kMaxMessageBytes));
  out += R"(,"type":)";
  AppendJsonString(out, error.type.empty() ? TypeOf(error.status) : error.type);
  out += R"(,"param":)";
  if (error.param.empty()) {
    out += "null";
  } else {
    AppendJsonString(out, error.param);
  }
  out += R"(,"code":)";
  AppendInt(out, error.status);
  out += "}}";
  return out;
}

ApiError ToApiError(const Error& error) {
  ApiError api;
  api.status = StatusOf(error.code());
  api.message = error.message();
  if (api.status == 400) api.param = LeadingField(error.message());
  // Long enough for a queue to move, short enough for a client to wait.
  if (api.status == 503) api.retry_after_s = 1;
  return api;
}

ApiError RequestError(const Error& error, const std::string& param) {
  ApiError api;
  api.message = error.message();
  api.param = param.empty() ? LeadingField(error.message()) : param;
  return api;
}

}  // namespace moebius::serve
