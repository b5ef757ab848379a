// The report as one page: no script, no font, no picture from anywhere.
#include <fmt/core.h>

#include <algorithm>

#include "plan/report_drawing.h"
#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

constexpr const char* kStyle = R"(
:root { --ink: #1c2024; --soft: #60646c; --line: #d9dbe0; --page: #fcfcfd; --box: #f3f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #a5a9b2; --line: #3a3d44; --page: #16181c; --box: #212429; } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1.25rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0; max-width: 60rem; } p.head, footer { color: var(--soft); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } .left { text-align: left; white-space: normal; }
tr.first td { font-weight: 600; }
pre { background: var(--box); padding: .7rem 1rem; white-space: pre-wrap; border-radius: 6px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); }
span.tag { color: var(--soft); font-size: .8em; } footer { margin: 2.5rem 0; font-size: .9em; }
)";

// "19.9 i": the tag small.
std::string CellHtml(const std::string& text) {
  const size_t n = text.size();
  const bool tagged = n > 2 && text[n - 2] == ' ' &&
                      std::string("mir").find(text[n - 1]) != std::string::npos && text[0] >= '0' &&
                      text[0] <= '9';
  if (!tagged) return EscapedHtml(text);
  return fmt::format("{} <span class=\"tag\">{}</span>", EscapedHtml(text.substr(0, n - 2)),
                     text[n - 1]);
}

void PrintGrid(const Grid& grid, bool mark_first, std::string& out) {
  out += "<div class=\"wide\"><table>\n<tr>";
  for (size_t i = 0; i < grid.header.size(); ++i) {
    out += fmt::format("<th{}>{}</th>", i < grid.num_left ? " class=\"left\"" : "",
                       EscapedHtml(grid.header[i]));
  }
  out += "</tr>\n";
  for (size_t r = 0; r < grid.rows.size(); ++r) {
    out += mark_first && r == 0 ? "<tr class=\"first\">" : "<tr>";
    for (size_t i = 0; i < grid.rows[r].size(); ++i) {
      out += fmt::format("<td{}>{}</td>", i < grid.num_left ? " class=\"left\"" : "",
                         CellHtml(grid.rows[r][i]));
    }
    out += "</tr>\n";
  }
  out += "</table></div>\n";
}

std::string Drawings(const PlanReport& report) {
  const std::vector<Estimate>& ranked = report.decision.ranked;
  if (ranked.empty()) return "";
  std::string out = "<h2>Memory of a GPU</h2>\n" + MemoryBars(report.input, ranked);
  if (!report.decision.curves.empty()) {
    out += "<h2>Tokens/s for a user against tokens/s of a GPU</h2>\n" +
           CurveDrawing(report.decision.curves);
  }
  return out;
}

}  // namespace

std::string EscapedHtml(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string HtmlReport(const PlanReport& report) {
  return HtmlText(ReportSections(report), Drawings(report));
}

std::string HtmlText(const std::vector<Section>& sections, const std::string& drawings) {
  const std::string title = EscapedHtml(sections.front().title);
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
      title, kStyle, title);
  for (const std::string& line : sections.front().lines) {
    out += fmt::format("<p class=\"head\">{}</p>\n", EscapedHtml(line));
  }
  out += drawings;
  for (size_t s = 1; s < sections.size(); ++s) {
    const Section& section = sections[s];
    out += fmt::format("<h2>{}</h2>\n", EscapedHtml(section.title));
    for (const std::string& line : section.lines) {
      out += fmt::format("<p>{}</p>\n", EscapedHtml(line));
    }
    if (!section.grid.header.empty()) {
      PrintGrid(section.grid, section.title.rfind("Layouts", 0) == 0, out);
    }
    for (const std::string& command : section.code) {
      out += fmt::format("<pre>{}</pre>\n", EscapedHtml(command));
    }
  }
  return out + fmt::format("<footer>{}</footer>\n</body>\n</html>\n", EscapedHtml(kLegend));
}

}  // namespace moebius::plan
