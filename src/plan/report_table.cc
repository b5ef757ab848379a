// The report on a terminal: at most kColumns columns.
#include <fmt/core.h>

#include <algorithm>

#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

constexpr size_t kColumns = 100;

// Breaks at spaces; what continues is indented.
std::vector<std::string> Wrapped(const std::string& text, size_t width, size_t indent) {
  std::vector<std::string> lines;
  std::string line;
  bool fresh = true;  // nothing but the indent stands on the line
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    // Spaces that align the head's words stay with the word before them.
    while (end != std::string::npos && end + 1 < text.size() && text[end + 1] == ' ') ++end;
    end = end == std::string::npos ? text.size() : end;
    const std::string word = text.substr(at, end - at);
    at = std::min(end + 1, text.size());
    if (!fresh && line.size() + 1 + word.size() > width) {
      lines.push_back(line);
      line = std::string(indent, ' ');
      fresh = true;
    }
    line += (fresh ? "" : " ") + word;
    fresh = false;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

struct Columns {
  std::vector<size_t> widths;
  size_t gap = 2;
};

// Until the grid fits, the gap and then the widest column that aligns to the left give way; its
// cells wrap.
Columns ColumnsOf(const Grid& grid) {
  Columns columns;
  std::vector<size_t>& widths = columns.widths;
  for (const std::string& name : grid.header) widths.push_back(name.size());
  for (const std::vector<std::string>& row : grid.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto total = [&] {
    size_t sum = 2;
    for (const size_t width : widths) sum += width + columns.gap;
    return sum - columns.gap;
  };
  if (total() > kColumns && grid.num_left < 2) columns.gap = 1;
  while (total() > kColumns) {
    const auto widest =
        std::max_element(widths.begin(), widths.begin() + static_cast<ptrdiff_t>(grid.num_left));
    if (*widest <= 12) break;
    --*widest;
  }
  return columns;
}

void PrintRow(const std::vector<std::string>& row, const Columns& columns, size_t num_left,
              std::string& out) {
  const std::vector<size_t>& widths = columns.widths;
  std::vector<std::vector<std::string>> cells;
  size_t height = 1;
  for (size_t i = 0; i < row.size(); ++i) {
    cells.push_back(i < num_left ? Wrapped(row[i], widths[i], 0)
                                 : std::vector<std::string>{row[i]});
    height = std::max(height, cells.back().size());
  }
  for (size_t line = 0; line < height; ++line) {
    std::string text = "  ";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string cell = line < cells[i].size() ? cells[i][line] : "";
      text += i < num_left ? fmt::format("{:<{}}", cell, widths[i])
                           : fmt::format("{:>{}}", cell, widths[i]);
      text += std::string(columns.gap, ' ');
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
}

}  // namespace

std::string TableReport(const PlanReport& report) { return TableText(ReportSections(report)); }

std::string LayoutReport(const PlanReport& report, const std::vector<std::string>& verdict) {
  std::vector<Section> sections = LayoutSections(report);
  if (!verdict.empty()) sections.push_back({"Against the device", verdict, {}, {}});
  return TableText(sections, /*with_legend=*/false);
}

std::string TableText(const std::vector<Section>& sections, bool with_legend) {
  std::string out;
  bool tagged = false;
  for (const Section& section : sections) {
    if (!out.empty()) out += "\n";
    out += section.title + "\n";
    for (const std::string& line : section.lines) {
      for (const std::string& piece : Wrapped(line, kColumns - 2, 2)) out += "  " + piece + "\n";
    }
    if (!section.grid.header.empty()) {
      const Columns columns = ColumnsOf(section.grid);
      PrintRow(section.grid.header, columns, section.grid.num_left, out);
      for (const std::vector<std::string>& row : section.grid.rows) {
        PrintRow(row, columns, section.grid.num_left, out);
      }
      tagged = with_legend;
    }
    for (const std::string& command : section.code) {
      const std::vector<std::string> lines = Wrapped(command, kColumns - 4, 4);
      for (size_t i = 0; i < lines.size(); ++i) {
        out += "  " + lines[i] + (i + 1 < lines.size() ? " \\" : "") + "\n";
      }
    }
  }
  if (tagged) {
    for (const std::string& line : Wrapped(kLegend, kColumns, 0)) out += "\n" + line;
    out += "\n";
  }
  return out;
}

}  // namespace moebius::plan
