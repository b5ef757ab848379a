// Errors of this room as values: what a client did wrong, with the field that shows it. Plain.
#pragma once

#include <fmt/core.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "base/result.h"
#include "serve/openai/api_call.h"

namespace moebius::serve {

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

// return BadRequest("n", "n is {}, expected at least 1", n);
template <typename... Args>
tl::unexpected<ApiError> BadRequest(std::string param, fmt::format_string<Args...> format,
                                    Args&&... args) {
  ApiError error;
  error.message = fmt::format(format, std::forward<Args>(args)...);
  error.param = std::move(param);
  return tl::unexpected<ApiError>(std::move(error));
}

// What a client wrote, at a length that a message can quote; cut between characters.
std::string Shortened(std::string_view text, size_t max_bytes = 300);

// What the frontend or the engine says of a request, as the client's error. `param`: the field; if
// empty, the one that the message begins with, if it does.
ApiError RequestError(const Error& error, const std::string& param = "");

}  // namespace moebius::serve

// As MOEBIUS_TRY and MOEBIUS_ASSIGN, for ApiResult.
#define SERVE_TRY(expr)                                                                     \
  do {                                                                                      \
    if (auto serve_status = (expr); !serve_status)                                          \
      return ::tl::unexpected<::moebius::serve::ApiError>(std::move(serve_status).error()); \
  } while (false)

#define SERVE_ASSIGN(lhs, expr) \
  SERVE_ASSIGN_INNER(MOEBIUS_CONCAT(serve_result_, __LINE__), lhs, expr)
#define SERVE_ASSIGN_INNER(result, lhs, expr)                                                  \
  auto result = (expr);                                                                        \
  if (!result) return ::tl::unexpected<::moebius::serve::ApiError>(std::move(result).error()); \
  lhs = std::move(*result)
