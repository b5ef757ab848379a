// Checks of our own invariants: they print the condition and its operands, then abort. Never for
// what a user, file or peer can cause (base/result.h). Always on.
#pragma once

#include <fmt/core.h>

#include <string>

namespace moebius {

[[noreturn]] void CheckFailed(const char* file, int line, const std::string& what);

}  // namespace moebius

#define MOEBIUS_CHECK(condition)                              \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::moebius::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

#define MOEBIUS_CHECK_OP(a, op, b)                                                     \
  do {                                                                                 \
    const auto& moebius_a = (a);                                                       \
    const auto& moebius_b = (b);                                                       \
    if (!(moebius_a op moebius_b)) [[unlikely]]                                        \
      ::moebius::CheckFailed(                                                          \
          __FILE__, __LINE__,                                                          \
          fmt::format("{} {} {} ({} against {})", #a, #op, #b, moebius_a, moebius_b)); \
  } while (false)
#define MOEBIUS_CHECK_EQ(a, b) MOEBIUS_CHECK_OP(a, ==, b)
#define MOEBIUS_CHECK_NE(a, b) MOEBIUS_CHECK_OP(a, !=, b)
#define MOEBIUS_CHECK_LE(a, b) MOEBIUS_CHECK_OP(a, <=, b)
#define MOEBIUS_CHECK_LT(a, b) MOEBIUS_CHECK_OP(a, <, b)
#define MOEBIUS_CHECK_GE(a, b) MOEBIUS_CHECK_OP(a, >=, b)
#define MOEBIUS_CHECK_GT(a, b) MOEBIUS_CHECK_OP(a, >, b)
