#include "model/field_reader.h"

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

namespace moebius::model {
namespace {

// A value as an error message shows it.
std::string Shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// 1e4 and 64.0 are written for integers, too.
bool IsWhole(const nlohmann::json& value) {
  if (value.is_number_integer()) return true;
  return value.is_number_float() && std::isfinite(value.get<double>()) &&
         value.get<double>() == std::floor(value.get<double>());
}

// And is held exactly.
bool IsIntegral(const nlohmann::json& value) {
  return IsWhole(value) && (value.is_number_integer() || std::fabs(value.get<double>()) < 9e15);
}

bool InRange(const nlohmann::json& value, int64_t min, int64_t max) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return false;
  }
  const int64_t number = value.get<int64_t>();
  return number >= min && number <= max;
}

}  // namespace

FieldReader::FieldReader(const nlohmann::json& object, std::string where, std::string prefix)
    : object_(object), where_(std::move(where)), prefix_(std::move(prefix)) {}

const nlohmann::json* FieldReader::Find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool FieldReader::Has(const char* name) const { return Find(name) != nullptr; }

void FieldReader::Fail(Error error) {
  if (status_) status_ = tl::unexpected<Error>(std::move(error));
}

void FieldReader::Mismatch(ErrorCode code, const char* name, std::string_view expected) {
  const nlohmann::json* value = Find(name);
  Fail(value == nullptr ? Error(code, fmt::format("{}: field '{}' is missing, expected {}", where_,
                                                  FieldName(name), expected))
                        : Error(code, fmt::format("{}: field '{}' is {}, expected {}", where_,
                                                  FieldName(name), Shown(*value), expected)));
}

void FieldReader::Expect(bool ok, const char* name, std::string_view expected) {
  if (!ok) Mismatch(ErrorCode::kUnsupported, name, expected);
}

int64_t FieldReader::Int(const char* name, int64_t min, int64_t max) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr || !IsIntegral(*value) || !InRange(*value, min, max)) {
    // The bounds of a type say nothing to somebody who wrote something else.
    const bool is_bare = min <= -INT32_MAX && max >= INT32_MAX && value && !IsWhole(*value);
    Mismatch(ErrorCode::kInvalidArgument, name,
             is_bare ? "a whole number" : fmt::format("a whole number from {} to {}", min, max));
    return min;
  }
  return value->get<int64_t>();
}

int64_t FieldReader::IntOr(const char* name, int64_t fallback, int64_t min, int64_t max) {
  return Has(name) ? Int(name, min, max) : fallback;
}

double FieldReader::Number(const char* name, double min, double max) {
  const nlohmann::json* value = Find(name);
  const double number =
      value != nullptr && value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max)) {
    const bool is_bare = min <= -FLT_MAX && max >= FLT_MAX && value && !value->is_number();
    Mismatch(ErrorCode::kInvalidArgument, name,
             is_bare ? "a number" : fmt::format("a number from {} to {}", min, max));
    return min;
  }
  return number;
}

double FieldReader::NumberOr(const char* name, double fallback, double min, double max) {
  return Has(name) ? Number(name, min, max) : fallback;
}

bool FieldReader::BoolOr(const char* name, bool fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_number()) return value->get<double>() != 0;
  Mismatch(ErrorCode::kInvalidArgument, name, "true or false");
  return fallback;
}

std::string FieldReader::StringOr(const char* name, std::string_view fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  Mismatch(ErrorCode::kInvalidArgument, name, "a string");
  return std::string(fallback);
}

std::vector<int64_t> FieldReader::IntsOr(const char* name, std::vector<int64_t> fallback,
                                         int64_t min, int64_t max) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  std::vector<int64_t> numbers;
  bool ok = value->is_array();
  if (ok) {
    for (const nlohmann::json& item : *value) {
      if (item.is_boolean()) {
        numbers.push_back(item.get<bool>() ? 1 : 0);
      } else if (IsIntegral(item) && InRange(item, min, max)) {
        numbers.push_back(item.get<int64_t>());
      } else {
        ok = false;
        break;
      }
    }
  }
  if (ok) return numbers;
  Mismatch(ErrorCode::kInvalidArgument, name,
           fmt::format("a list of whole numbers from {} to {}", min, max));
  return fallback;
}

std::vector<std::string> FieldReader::StringsOr(const char* name,
                                                std::vector<std::string> fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  std::vector<std::string> strings;
  bool ok = value->is_array();
  if (ok) {
    for (const nlohmann::json& item : *value) {
      if (!item.is_string()) {
        ok = false;
        break;
      }
      strings.push_back(item.get<std::string>());
    }
  }
  if (ok) return strings;
  Mismatch(ErrorCode::kInvalidArgument, name, "a list of strings");
  return fallback;
}

const nlohmann::json* FieldReader::ObjectOrNull(const char* name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr || value->is_object()) return value;
  Mismatch(ErrorCode::kInvalidArgument, name, "an object");
  return nullptr;
}

const char* FieldReader::Spelling(std::initializer_list<const char*> names) const {
  for (const char* name : names) {
    if (Has(name)) return name;
  }
  return *names.begin();
}

}  // namespace moebius::model
