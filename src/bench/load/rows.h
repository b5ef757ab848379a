// Rows of a data file: JSON lines, a JSON array, or CSV (RFC 4180), as the file's beginning tells.
// Plain functions, any thread.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace moebius::load {

// `on_row` gets every row in order with where it stands ("FILE:LINE", or "FILE[index]" of an
// array); its error ends the reading. A row of CSV is an array of strings. kNotFound, kCorrupt name
// the place.
Status ForEachRow(
    const std::string& path,
    const std::function<Status(const nlohmann::json& row, const std::string& where)>& on_row);

// The fields of CSV text, by line. kCorrupt: a quote that never closes.
Result<std::vector<std::vector<std::string>>> ParseCsv(std::string_view text);

// A field as CSV has it: quoted where it must be.
std::string CsvField(const std::string& text);

}  // namespace moebius::load
