// A sweep as one page: no script, no font, no picture from anywhere.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "bench/load/svg.h"
#include "bench/load/sweep/report.h"
#include "bench/load/sweep/report_cells.h"

namespace moebius::load {
namespace {

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

}  // namespace

std::string SweepHtml(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                      const std::string& state) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Sweep {0}</title>\n"
      "<style>{1}</style></head><body>\n<h1>Sweep {0}</h1>\n<p>{2}</p>\n<p "
      "class=\"head\">{3}</p>\n",
      EscapeXml(plan.name), PageStyle(), EscapeXml(plan.about), EscapeXml(Identity(rows)));
  if (!state.empty()) out += fmt::format("<p><b>{}</b></p>\n", EscapeXml(state));
  const std::vector<Column> columns = ColumnsOf(rows);
  out += Pareto(rows);
  out += "<h2>Cells (times in milliseconds)</h2>\n<div class=\"wide\"><table>\n<tr>";
  for (const Column& column : columns) out += fmt::format("<th>{}</th>", column.name);
  out += "</tr>\n";
  for (const SweepRow& row : rows) {
    if (row.status == CellStatus::kNotYet) continue;
    const CellFigures figures = FiguresOf(row);
    out += "<tr>";
    for (size_t i = 0; i < columns.size(); ++i) {
      const char* style = i == 0                          ? "left"
                          : i != 1                        ? ""
                          : row.status == CellStatus::kOk ? "pass"
                                                          : "failed left";
      out +=
          fmt::format("<td class=\"{}\">{}</td>", style, EscapeXml(columns[i].value(row, figures)));
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
