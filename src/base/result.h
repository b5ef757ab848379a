// Errors as values. `Result<T>` carries a T or an Error; whatever a user, a file, a peer or a
// network can cause is one. Broken invariants of our own code abort instead (base/check.h). Safe
// from any thread.
#pragma once

#include <fmt/core.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace moebius {

// What kind of failure this is; the edges (HTTP status, exit code) map it.
enum class ErrorCode {
  kInvalidArgument,  // a flag, field or value that cannot be honoured
  kNotFound,         // a file, tensor, model that is not there
  kCorrupt,          // a file or message that contradicts itself or its format
  kUnsupported,      // well-formed, but this build or machine cannot do it
  kOutOfMemory,      // a reservation that does not fit
  kUnavailable,      // a resource or peer that is not there now
  kDeadline,         // a wait that passed its bound
  kCancelled,
  kInternal,
};

// "invalid argument", "not found", ...
const char* ErrorCodeName(ErrorCode code);

// The message says what was found and what was expected; context, outermost first, says where.
class Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "context: " before its message.
  Error WithContext(const std::string& context) const& {
    return Error(code_, context + ": " + message_);
  }

 private:
  ErrorCode code_;
  std::string message_;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// return MakeError(ErrorCode::kNotFound, "{}: tensor '{}' is missing", file, name);
template <typename... Args>
tl::unexpected<Error> MakeError(ErrorCode code, fmt::format_string<Args...> format,
                                Args&&... args) {
  return tl::unexpected<Error>(Error(code, fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace moebius

#define MOEBIUS_CONCAT_INNER(a, b) a##b
#define MOEBIUS_CONCAT(a, b) MOEBIUS_CONCAT_INNER(a, b)

// MOEBIUS_TRY(expr): returns the error of a Status from the enclosing function.
#define MOEBIUS_TRY(expr)                                                           \
  do {                                                                              \
    if (auto moebius_status = (expr); !moebius_status)                              \
      return ::tl::unexpected<::moebius::Error>(std::move(moebius_status).error()); \
  } while (false)

// MOEBIUS_ASSIGN(auto x, Expr()): unwraps a Result<T> into a declaration or a variable, or returns
// its error.
#define MOEBIUS_ASSIGN(lhs, expr) \
  MOEBIUS_ASSIGN_INNER(MOEBIUS_CONCAT(moebius_result_, __LINE__), lhs, expr)
#define MOEBIUS_ASSIGN_INNER(result, lhs, expr)                                      \
  auto result = (expr);                                                              \
  if (!result) return ::tl::unexpected<::moebius::Error>(std::move(result).error()); \
  lhs = std::move(*result)
