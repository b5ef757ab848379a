#include "bench/load/sweep/report_cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moebius::load {
namespace {

using nlohmann::json;

double NumberAt(const json& root, const std::string& pointer) {
  const json::json_pointer at(pointer);
  return root.contains(at) && root[at].is_number() ? root[at].get<double>() : NAN;
}

std::string VersionOf(const SweepRow& row) { return row.version.empty() ? "unknown" : row.version; }

// Of the rows that ran, in their order, each once.
std::vector<std::string> VersionsOf(const std::vector<SweepRow>& rows) {
  std::vector<std::string> versions;
  for (const SweepRow& row : rows) {
    if (row.status == CellStatus::kNotYet) continue;
    if (std::ranges::count(versions, VersionOf(row)) == 0) versions.push_back(VersionOf(row));
  }
  if (versions.empty()) versions.push_back(VersionOf(rows.front()));
  return versions;
}

constexpr Column kColumns[] = {
    {"cell", [](const SweepRow& row, const CellFigures&) { return row.cell; }},
    {"status",
     [](const SweepRow& row, const CellFigures&) {
       return row.reason.empty() ? std::string(CellStatusName(row.status))
                                 : fmt::format("{}: {}", CellStatusName(row.status), row.reason);
     }},
    {"done", [](const SweepRow&, const CellFigures& f) { return Shown(f.completed, 0); }},
    {"failed", [](const SweepRow&, const CellFigures& f) { return Shown(f.failed, 0); }},
    {"req/s", [](const SweepRow&, const CellFigures& f) { return Shown(f.request_rate); }},
    {"good req/s", [](const SweepRow&, const CellFigures& f) { return Shown(f.goodput); }},
    {"out tok/s", [](const SweepRow&, const CellFigures& f) { return Shown(f.output_rate, 1); }},
    {"steady tok/s",
     [](const SweepRow& row, const CellFigures& f) {
       if (row.status != CellStatus::kOk) return std::string();
       return f.is_steady ? Shown(f.steady_output_rate, 1) : std::string("not steady");
     }},
    {"TTFT p50", [](const SweepRow&, const CellFigures& f) { return Shown(f.ttft_p50); }},
    {"TTFT p99", [](const SweepRow&, const CellFigures& f) { return Shown(f.ttft_p99); }},
    {"TPOT p50", [](const SweepRow&, const CellFigures& f) { return Shown(f.tpot_p50); }},
    {"ITL p99", [](const SweepRow&, const CellFigures& f) { return Shown(f.itl_p99); }},
    {"E2EL p50", [](const SweepRow&, const CellFigures& f) { return Shown(f.e2el_p50); }},
    {"flags", [](const SweepRow&, const CellFigures& f) { return f.flags; }},
};

}  // namespace

CellFigures FiguresOf(const SweepRow& row) {
  CellFigures figures;
  const json result = json::parse(row.result, nullptr, false);
  if (!result.is_object()) return figures;
  const auto number = [&](const char* pointer) { return NumberAt(result, pointer); };
  figures.concurrency = number("/max_concurrency");
  figures.completed = number("/completed");
  figures.failed = number("/failed");
  figures.request_rate = number("/request_throughput");
  figures.goodput = number("/request_goodput");
  figures.output_rate = number("/output_throughput");
  figures.steady_output_rate = number("/moebius/steady/output_throughput");
  figures.is_steady = result.value("/moebius/steady/is_steady"_json_pointer, false);
  figures.ttft_p50 = number("/moebius/latencies_ms/ttft/p50");
  figures.ttft_p99 = number("/moebius/latencies_ms/ttft/p99");
  figures.tpot_p50 = number("/moebius/latencies_ms/tpot/p50");
  figures.itl_p99 = number("/moebius/latencies_ms/itl/p99");
  figures.e2el_p50 = number("/moebius/latencies_ms/e2el/p50");
  for (const char* name : {"steady_ratio", "drift", "variation"}) {
    const json::json_pointer at(fmt::format("/moebius/steady/{}_verdict", name));
    if (result.contains(at) && result[at] == "flag") {
      figures.flags += fmt::format("{}{}", figures.flags.empty() ? "" : ", ", name);
    }
  }
  if (result.contains("/moebius/over_saturated"_json_pointer) &&
      result["moebius"]["over_saturated"] == true) {
    figures.flags += figures.flags.empty() ? "over-saturated" : ", over-saturated";
  }
  return figures;
}

std::string Shown(double value, int digits) {
  return std::isnan(value) ? "" : fmt::format("{:.{}f}", value, digits);
}

std::span<const Column> CommonColumns() { return kColumns; }

std::vector<Column> ColumnsOf(const std::vector<SweepRow>& rows) {
  std::vector<Column> columns(std::begin(kColumns), std::end(kColumns));
  if (!rows.empty() && VersionsOf(rows).size() > 1) {
    columns.push_back(
        {"version", [](const SweepRow& row, const CellFigures&) { return VersionOf(row); }});
  }
  return columns;
}

std::string Identity(const std::vector<SweepRow>& rows) {
  if (rows.empty()) return "";
  const auto last = std::ranges::max_element(rows, {}, &SweepRow::date);
  const std::vector<std::string> versions = VersionsOf(rows);
  return fmt::format("{}; moebius {}; last cell {}", last->machine, fmt::join(versions, ", "),
                     last->date);
}

std::vector<Missing> MissingOf(const std::vector<SweepRow>& rows) {
  std::vector<Missing> all;
  for (const SweepRow& row : rows) {
    if (row.status != CellStatus::kNotYet) continue;
    const auto same = std::ranges::find_if(all, [&](const Missing& one) {
      return one.server == row.server && one.reason == row.reason;
    });
    if (same != all.end()) {
      ++same->num_cells;
    } else {
      all.push_back({row.server, row.reason, 1});
    }
  }
  return all;
}

}  // namespace moebius::load
