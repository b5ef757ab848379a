#include "bench/load/rows.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace moebius::load {
namespace {

using nlohmann::json;

Result<std::string> ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return MakeError(ErrorCode::kNotFound, "{}: cannot be read: {}", path, std::strerror(errno));
  }
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

using OnRow = std::function<Status(const json&, const std::string&)>;

Status ReadLines(const std::string& path, const std::string& text, const OnRow& on_row) {
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    const json row = json::parse(line, nullptr, false);
    if (!row.is_object()) {
      return MakeError(ErrorCode::kCorrupt, "{}: expected a JSON object a line", where);
    }
    MOEBIUS_TRY(on_row(row, where));
  }
  return {};
}

}  // namespace

Status ForEachRow(const std::string& path, const OnRow& on_row) {
  MOEBIUS_ASSIGN(std::string text, ReadAll(path));
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return MakeError(ErrorCode::kCorrupt, "{}: is empty", path);
  if (text[first] == '{') {
    // One object over several lines is no row of ours, and ReadLines says so.
    return ReadLines(path, text, on_row);
  }
  if (text[first] == '[') {
    const json rows = json::parse(text, nullptr, false);
    if (!rows.is_array()) return MakeError(ErrorCode::kCorrupt, "{}: is no valid JSON", path);
    size_t index = 0;
    for (const json& row : rows) {
      MOEBIUS_TRY(on_row(row, fmt::format("{}[{}]", path, index++)));
    }
    return {};
  }
  auto rows = ParseCsv(text);
  if (!rows) return tl::unexpected<Error>(rows.error().WithContext(path));
  size_t number = 0;
  for (const std::vector<std::string>& fields : *rows) {
    MOEBIUS_TRY(on_row(json(fields), fmt::format("{}: row {}", path, ++number)));
  }
  return {};
}

Result<std::vector<std::vector<std::string>>> ParseCsv(std::string_view text) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> fields;
  std::string field;
  bool in_quotes = false;
  const auto end_row = [&] {
    fields.push_back(std::move(field));
    field.clear();
    if (fields.size() > 1 || !fields[0].empty()) rows.push_back(std::move(fields));
    fields.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_quotes) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        in_quotes = false;
      }
    } else if (c == '"' && field.empty()) {
      in_quotes = true;
    } else if (c == ',') {
      fields.push_back(std::move(field));
      field.clear();
    } else if (c == '\n') {
      end_row();
    } else if (c != '\r' || i + 1 >= text.size() || text[i + 1] != '\n') {
      field += c;
    }
  }
  if (in_quotes) {
    return MakeError(ErrorCode::kCorrupt, "row {}: a quote never closes", rows.size() + 1);
  }
  if (!field.empty() || !fields.empty()) end_row();
  return rows;
}

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace moebius::load
