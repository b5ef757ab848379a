#include "bench/load/sweep/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/load/rows.h"
#include "bench/load/stats.h"
#include "bench/load/svg.h"

namespace moebius::load {
namespace {

using nlohmann::json;

// What the tables show of a result file; NaN: not there.
struct CellFigures {
  double concurrency = NAN;
  double completed = NAN;
  double failed = NAN;
  double request_rate = NAN;
  double goodput = NAN;
  double output_rate = NAN;         // of the whole run
  double steady_output_rate = NAN;  // in the window
  bool is_steady = false;
  double ttft_p50 = NAN, ttft_p99 = NAN, tpot_p50 = NAN, itl_p99 = NAN, e2el_p50 = NAN;
  std::string flags;  // verdicts that are "flag"

  // The window's where there is one worth the name.
  double rate() const { return is_steady ? steady_output_rate : output_rate; }
};

double NumberAt(const json& root, const std::string& pointer) {
  const json::json_pointer at(pointer);
  return root.contains(at) && root[at].is_number() ? root[at].get<double>() : NAN;
}

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

std::string Shown(double value, int digits = 2) {
  return std::isnan(value) ? "" : fmt::format("{:.{}f}", value, digits);
}

struct Column {
  const char* name;
  std::string (*value)(const SweepRow&, const CellFigures&);
};
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

std::string Identity(const std::vector<SweepRow>& rows) {
  if (rows.empty()) return "";
  const SweepRow& last = rows.back();
  return fmt::format("{}; commit {}; last cell {}", last.machine,
                     last.git.empty() ? "unknown" : last.git, last.date);
}

std::string Pareto(const std::vector<SweepRow>& rows) {
  Plot plot("Tokens/s of all against tokens/s of one user (1 / median TPOT)",
            "tokens/s of one user", "tokens/s");
  struct Dot {
    double user;
    double all;
    std::string label;
  };
  // A curve is one server under one kind of load, from a matrix; a load alone is no curve.
  std::map<std::string, std::vector<Dot>> curves;
  std::vector<std::string> order;
  for (const SweepRow& row : rows) {
    const CellFigures figures = FiguresOf(row);
    const std::string kind = row.load.substr(0, row.load.find(' '));
    if (row.status != CellStatus::kOk || !(figures.tpot_p50 > 0) || kind == row.load) continue;
    const std::string name = row.server + " / " + kind;
    if (curves[name].empty()) order.push_back(name);
    curves[name].push_back({1e3 / figures.tpot_p50, figures.rate(), Shown(figures.concurrency, 0)});
  }
  for (const std::string& name : order) {
    std::vector<Dot>& dots = curves[name];
    std::ranges::sort(dots, {}, &Dot::user);
    Points points;
    std::vector<std::string> labels;
    for (const Dot& dot : dots) {
      points.emplace_back(dot.user, dot.all);
      labels.push_back(dot.label);
    }
    plot.AddDots(name, std::move(points), std::move(labels));
  }
  return plot.Render();
}

// What there is not yet, once a reason: {"tp2", "one rank for now", 6 cells}.
struct Missing {
  std::string server;
  std::string reason;
  int64_t num_cells = 0;
};
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

std::string EscapedCell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

std::string SweepMarkdown(const SweepPlan& plan, const std::vector<SweepRow>& rows) {
  std::string out = fmt::format("# Sweep {}\n\n{}\n\n{}\n\nTimes in milliseconds.\n\n", plan.name,
                                plan.about, Identity(rows));
  std::string rule = "|";
  out += "|";
  for (const Column& column : kColumns) {
    out += fmt::format(" {} |", column.name);
    rule += " --- |";
  }
  out += "\n" + rule + "\n";
  for (const SweepRow& row : rows) {
    if (row.status == CellStatus::kNotYet) continue;
    const CellFigures figures = FiguresOf(row);
    out += "|";
    for (const Column& column : kColumns) {
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
  for (const Column& column : kColumns) out += CsvField(column.name) + ",";
  out += "hash,git,machine,date,server_command,bench_command\n";
  for (const SweepRow& row : rows) {
    const CellFigures figures = FiguresOf(row);
    for (const Column& column : kColumns) out += CsvField(column.value(row, figures)) + ",";
    out += fmt::format("{},{},{},{},{},{}\n", row.hash, row.git, CsvField(row.machine), row.date,
                       CsvField(row.server_command), CsvField(row.bench_command));
  }
  return out;
}

std::string SweepHtml(const SweepPlan& plan, const std::vector<SweepRow>& rows) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Sweep {0}</title>\n"
      "<style>{1}</style></head><body>\n<h1>Sweep {0}</h1>\n<p>{2}</p>\n<p "
      "class=\"head\">{3}</p>\n",
      EscapeXml(plan.name), PageStyle(), EscapeXml(plan.about), EscapeXml(Identity(rows)));
  out += Pareto(rows);
  out += "<h2>Cells (times in milliseconds)</h2>\n<div class=\"wide\"><table>\n<tr>";
  for (const Column& column : kColumns) out += fmt::format("<th>{}</th>", column.name);
  out += "</tr>\n";
  for (const SweepRow& row : rows) {
    if (row.status == CellStatus::kNotYet) continue;
    const CellFigures figures = FiguresOf(row);
    out += "<tr>";
    for (size_t i = 0; i < std::size(kColumns); ++i) {
      const char* style = i == 0                          ? "left"
                          : i != 1                        ? ""
                          : row.status == CellStatus::kOk ? "pass"
                                                          : "failed left";
      out += fmt::format("<td class=\"{}\">{}</td>", style,
                         EscapeXml(kColumns[i].value(row, figures)));
    }
    out += "</tr>\n";
  }
  out += "</table></div>\n<h2>Not yet</h2>\n<div class=\"wide\"><table>\n";
  for (const Missing& one : MissingOf(rows)) {
    out += fmt::format(
        "<tr><td class=\"left\">{}</td><td>{} cells</td><td class=\"left soft\">{}</td></tr>\n",
        EscapeXml(one.server), one.num_cells, EscapeXml(one.reason));
  }
  return out + "</table></div>\n</body></html>\n";
}

}  // namespace moebius::load
