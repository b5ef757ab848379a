#include "app/numbers.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <string_view>

namespace moebius::app {
namespace {

// What 1000 and 1024 are raised to: "k" -> 1; -1: no unit.
int PowerOf(char unit) {
  const size_t at = std::string_view("kmgt").find(unit);
  return at == std::string_view::npos ? -1 : static_cast<int>(at) + 1;
}

// The factor of a unit's name ("", "k", "Gi", "MiB"); 0: no such unit.
double FactorOf(std::string_view unit) {
  if (!unit.empty() && unit.back() == 'B') unit.remove_suffix(1);
  if (unit.empty()) return 1;
  const bool is_small = unit[0] >= 'a';
  const int power = PowerOf(is_small ? unit[0] : static_cast<char>(unit[0] - 'A' + 'a'));
  const bool is_binary = unit.size() == 2 && unit[1] == 'i';
  if (power < 0 || (unit.size() > 1 && !is_binary)) return 0;
  return std::pow(is_small && !is_binary ? 1000.0 : 1024.0, power);
}

}  // namespace

template <typename T>
Result<T> ParseWhole(const std::string& flag, const std::string& text, T low, T high) {
  T value = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && next == end && value >= low && value <= high) return value;
  return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected a whole number from {} to {}",
                   flag, text, low, high);
}
template Result<int32_t> ParseWhole(const std::string&, const std::string&, int32_t, int32_t);
template Result<int64_t> ParseWhole(const std::string&, const std::string&, int64_t, int64_t);
template Result<uint64_t> ParseWhole(const std::string&, const std::string&, uint64_t, uint64_t);

template <typename T>
Result<T> ParseReal(const std::string& flag, const std::string& text) {
  T value = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && next == end) return value;
  return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected a number such as 0.5", flag,
                   text);
}
template Result<float> ParseReal(const std::string&, const std::string&);
template Result<double> ParseReal(const std::string&, const std::string&);

Result<int64_t> ParseSize(const std::string& flag, const std::string& text) {
  constexpr double kMost = 9e18;  // fits an int64_t
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  const double size = value * FactorOf({next, static_cast<size_t>(end - next)});
  const bool is_zero = error == std::errc() && value == 0 && next == end;
  if (is_zero || (error == std::errc() && size >= 1 && size <= kMost)) {
    // Beyond 2^53 a double is no longer exact, but plain digits can be.
    if (next == end) return ParseWhole<int64_t>(flag, text, 0);
    return static_cast<int64_t>(size);
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "{} is '{}', expected a whole number, perhaps with a unit: 4096, 32k, 512M, 4G",
                   flag, text);
}

std::string Count(int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

}  // namespace moebius::app
