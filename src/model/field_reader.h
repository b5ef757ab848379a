// Reads typed fields of a JSON object. The first thing that is wrong is kept as the error, which
// names the file and field, what was found and what was expected; later reads give defaults, so
// that a parser reads straight through and asks once for the status. A field that is null counts as
// absent. Owned by one parser, one thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace moebius::model {

class FieldReader {
 public:
  // `object` must outlive the reader; `where` begins errors, `prefix` ("text_config.") the names of
  // fields.
  FieldReader(const nlohmann::json& object, std::string where, std::string prefix = "");

  bool Has(const char* name) const;
  // The field's value; an absent field is an error unless a default is given. Numbers outside [min,
  // max] are errors.
  int64_t Int(const char* name, int64_t min, int64_t max);
  int64_t IntOr(const char* name, int64_t fallback, int64_t min, int64_t max);
  double Number(const char* name, double min, double max);
  double NumberOr(const char* name, double fallback, double min, double max);
  // true or false, or a number (0 is false), as older configurations write it.
  bool BoolOr(const char* name, bool fallback);
  std::string StringOr(const char* name, std::string_view fallback);
  std::vector<int64_t> IntsOr(const char* name, std::vector<int64_t> fallback, int64_t min,
                              int64_t max);
  std::vector<std::string> StringsOr(const char* name, std::vector<std::string> fallback);
  // The nested object, or null where there is none.
  const nlohmann::json* ObjectOrNull(const char* name);

  // The first of `names` that is there (spellings of one field), else the first.
  const char* Spelling(std::initializer_list<const char*> names) const;
  // kUnsupported unless `ok`: "field 'x' is <found>, expected <expected>".
  void Expect(bool ok, const char* name, std::string_view expected);

  const Status& status() const { return status_; }
  void Fail(Error error);
  const std::string& where() const { return where_; }
  std::string FieldName(const char* name) const { return prefix_ + name; }

 private:
  const nlohmann::json* Find(const char* name) const;
  void Mismatch(ErrorCode code, const char* name, std::string_view expected);

  const nlohmann::json& object_;
  std::string where_;
  std::string prefix_;
  Status status_;
};

}  // namespace moebius::model
