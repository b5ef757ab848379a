#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/load/sweep/runner.h"

namespace moebius::load {
namespace {

using nlohmann::ordered_json;

std::string TextOf(const ordered_json& json, const char* key) {
  return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

}  // namespace

const char* CellStatusName(CellStatus status) {
  return status == CellStatus::kOk ? "ok" : status == CellStatus::kFailed ? "failed" : "not yet";
}

std::string ToJsonLine(const SweepRow& row) {
  ordered_json json = {{"cell", row.cell},    {"server", row.server},
                       {"load", row.load},    {"repeat", row.repeat},
                       {"hash", row.hash},    {"status", CellStatusName(row.status)},
                       {"reason", row.reason}};
  json["identity"] = {{"server_command", row.server_command},
                      {"bench_command", row.bench_command},
                      {"version", row.version},
                      {"machine", row.machine},
                      {"date", row.date}};
  json["result"] =
      row.result.empty() ? ordered_json() : ordered_json::parse(row.result, nullptr, false);
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::vector<SweepRow> ReadRows(const std::string& path) {
  std::vector<SweepRow> rows;
  std::ifstream file(path, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    const ordered_json json = ordered_json::parse(line, nullptr, false);
    if (!json.is_object() || TextOf(json, "cell").empty()) continue;
    SweepRow row;
    row.cell = TextOf(json, "cell");
    row.server = TextOf(json, "server");
    row.load = TextOf(json, "load");
    if (json.contains("repeat") && json["repeat"].is_number()) row.repeat = json["repeat"];
    row.hash = TextOf(json, "hash");
    const std::string status = TextOf(json, "status");
    row.status = status == "ok"        ? CellStatus::kOk
                 : status == "not yet" ? CellStatus::kNotYet
                                       : CellStatus::kFailed;
    row.reason = TextOf(json, "reason");
    const ordered_json identity = json.value("identity", ordered_json::object());
    row.server_command = TextOf(identity, "server_command");
    row.bench_command = TextOf(identity, "bench_command");
    row.version = TextOf(identity, "version");
    row.machine = TextOf(identity, "machine");
    row.date = TextOf(identity, "date");
    if (json.contains("result") && json["result"].is_object()) row.result = json["result"].dump();
    rows.push_back(std::move(row));
  }
  return rows;
}

Status WriteRows(const std::string& path, const std::vector<SweepRow>& rows) {
  const std::string next = path + ".next";
  {
    std::ofstream file(next, std::ios::binary | std::ios::trunc);
    for (const SweepRow& row : rows) file << ToJsonLine(row) << "\n";
    file.close();
    if (!file) return MakeError(ErrorCode::kUnavailable, "{} cannot be written", next);
  }
  std::error_code error;
  std::filesystem::rename(next, path, error);
  if (!error) return {};
  return MakeError(ErrorCode::kUnavailable, "{} cannot be written: {}", path, error.message());
}

void PutRow(const SweepRow& row, std::vector<SweepRow>& rows) {
  const auto same =
      std::ranges::find_if(rows, [&](const SweepRow& one) { return one.cell == row.cell; });
  if (same == rows.end()) {
    rows.push_back(row);
    return;
  }
  *same = row;
  rows.erase(std::remove_if(same + 1, rows.end(),
                            [&](const SweepRow& one) { return one.cell == row.cell; }),
             rows.end());
}

std::string TooManyFailed(const std::string& result, double max_share) {
  const ordered_json json = ordered_json::parse(result, nullptr, false);
  const auto count = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_number() ? json[key].get<double>()
                                                                           : 0.0;
  };
  const double failed = count("failed");
  const double all = failed + count("completed");
  if (failed <= max_share * all) return "";
  std::string why;
  const auto outcomes = "/moebius/outcomes"_json_pointer;
  if (json.contains(outcomes) && json[outcomes].is_object()) {
    for (const auto& [name, number] : json[outcomes].items()) {
      if (name == "ok" || !number.is_number() || number == 0) continue;
      why += fmt::format("{}{} {}", why.empty() ? "" : ", ", number.get<double>(), name);
    }
  }
  const auto first = "/moebius/first_error"_json_pointer;
  if (json.contains(first) && json[first].is_string()) {
    why += fmt::format("{}{}", why.empty() ? "" : "; the first: ", json[first].get<std::string>());
  }
  return fmt::format("{} of {} requests failed{}", failed, all,
                     why.empty() ? "" : fmt::format(" ({})", why));
}

std::vector<SweepRow> RowsOfPlan(const SweepPlan& plan, const std::vector<SweepRow>& rows) {
  std::vector<SweepRow> chosen;
  for (const Cell& cell : CellsOf(plan)) {
    const auto last = std::find_if(rows.rbegin(), rows.rend(), [&](const SweepRow& row) {
      return row.cell == cell.name && row.hash == cell.hash;
    });
    if (last == rows.rend()) continue;
    SweepRow row = *last;
    if (row.status == CellStatus::kOk) {
      row.reason = TooManyFailed(row.result, plan.max_failed_share);
      if (!row.reason.empty()) row.status = CellStatus::kFailed;
    }
    chosen.push_back(std::move(row));
  }
  return chosen;
}

}  // namespace moebius::load
