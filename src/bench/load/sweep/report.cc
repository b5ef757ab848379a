#include "bench/load/sweep/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "bench/load/rows.h"
#include "bench/load/stats.h"
#include "bench/load/sweep/report_cells.h"

namespace moebius::load {
namespace {

// Repeats of one cell: mean output rate and its 95 % interval.
struct Repeated {
  std::string name;
  int64_t n = 0;
  double mean = 0;
  std::optional<double> half;  // none with fewer than three
};
std::vector<Repeated> RepeatsOf(const std::vector<SweepRow>& rows) {
  std::vector<Repeated> all;
  std::map<std::string, std::vector<double>> rates;
  for (const SweepRow& row : rows) {
    if (row.status != CellStatus::kOk) continue;
    const std::string name = row.server + " / " + row.load;
    if (rates[name].empty()) all.push_back({.name = name, .n = 0, .mean = 0, .half = {}});
    rates[name].push_back(FiguresOf(row).rate());
  }
  for (Repeated& one : all) {
    const std::vector<double>& samples = rates[one.name];
    one.n = static_cast<int64_t>(samples.size());
    one.mean = Mean(samples);
    if (one.n < 3) continue;
    const auto n = static_cast<double>(one.n);
    const double sample_std = StandardDeviation(samples) * std::sqrt(n / (n - 1));
    one.half = StudentT975(one.n - 1) * sample_std / std::sqrt(n);
  }
  std::erase_if(all, [](const Repeated& one) { return one.n < 2; });
  return all;
}

// M10: by server, the most tokens a second of a cell in which 90 % of the requests met the limits
// that its load named.
std::map<std::string, std::pair<double, std::string>> BestWithinLimits(
    const std::vector<SweepRow>& rows) {
  std::map<std::string, std::pair<double, std::string>> best;
  for (const SweepRow& row : rows) {
    const CellFigures figures = FiguresOf(row);
    if (row.status != CellStatus::kOk || !(figures.goodput >= 0.9 * figures.request_rate)) continue;
    auto& [rate, load] = best[row.server];
    if (figures.rate() <= rate) continue;
    rate = figures.rate();
    load = row.load;
  }
  return best;
}

std::string EscapedCell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

std::string SweepMarkdown(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                          const std::string& state) {
  std::string out = fmt::format("# Sweep {}\n\n", plan.name);
  for (const std::string& paragraph :
       {plan.about, Identity(rows), state, std::string("Times in milliseconds.")}) {
    if (!paragraph.empty()) out += paragraph + "\n\n";
  }
  const std::vector<Column> columns = ColumnsOf(rows);
  std::string rule = "|";
  out += "|";
  for (const Column& column : columns) {
    out += fmt::format(" {} |", column.name);
    rule += " --- |";
  }
  out += "\n" + rule + "\n";
  for (const SweepRow& row : rows) {
    if (row.status == CellStatus::kNotYet) continue;
    const CellFigures figures = FiguresOf(row);
    out += "|";
    for (const Column& column : columns) {
      out += fmt::format(" {} |", EscapedCell(column.value(row, figures)));
    }
    out += "\n";
  }
  const std::vector<Missing> missing = MissingOf(rows);
  if (!missing.empty()) out += "\n| not yet | cells | why |\n| --- | ---: | --- |\n";
  for (const Missing& one : missing) {
    out += fmt::format("| {} | {} | {} |\n", EscapedCell(one.server), one.num_cells,
                       EscapedCell(one.reason));
  }
  const std::vector<Repeated> repeats = RepeatsOf(rows);
  if (!repeats.empty()) {
    out += "\n| repeated | n | mean tok/s | 95 % CI |\n| --- | ---: | ---: | ---: |\n";
    for (const Repeated& one : repeats) {
      out += fmt::format("| {} | {} | {:.1f} | {} |\n", EscapedCell(one.name), one.n, one.mean,
                         one.half ? fmt::format("+-{:.1f}", *one.half) : "three are needed");
    }
  }
  const auto best = BestWithinLimits(rows);
  if (!best.empty()) {
    out += "\n| M10: most tok/s within the limits | tok/s | at |\n| --- | ---: | --- |\n";
    for (const auto& [server, found] : best) {
      out += fmt::format("| {} | {:.1f} | {} |\n", EscapedCell(server), found.first,
                         EscapedCell(found.second));
    }
  }
  return out;
}

std::string SweepCsv(const std::vector<SweepRow>& rows) {
  std::string out;
  for (const Column& column : CommonColumns()) out += CsvField(column.name) + ",";
  out += "hash,version,machine,date,server_command,bench_command\n";
  for (const SweepRow& row : rows) {
    const CellFigures figures = FiguresOf(row);
    for (const Column& column : CommonColumns()) out += CsvField(column.value(row, figures)) + ",";
    out += fmt::format("{},{},{},{},{},{}\n", row.hash, row.version, CsvField(row.machine),
                       row.date, CsvField(row.server_command), CsvField(row.bench_command));
  }
  return out;
}

}  // namespace moebius::load
