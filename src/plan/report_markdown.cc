// The report as Markdown.
#include <fmt/core.h>

#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '*' || c == '_' || c == '`') out += '\\';
    out += c;
  }
  return out;
}

void PrintRow(const std::vector<std::string>& row, std::string& out) {
  out += "|";
  for (const std::string& cell : row) out += " " + Escaped(cell) + " |";
  out += "\n";
}

}  // namespace

std::string MarkdownReport(const PlanReport& report) {
  return MarkdownText(ReportSections(report));
}

std::string MarkdownText(const std::vector<Section>& sections) {
  std::string out;
  for (const Section& section : sections) {
    out += fmt::format("{} {}\n\n", out.empty() ? "#" : "##", Escaped(section.title));
    for (const std::string& line : section.lines) out += "- " + Escaped(line) + "\n";
    if (!section.lines.empty()) out += "\n";
    if (!section.grid.header.empty()) {
      PrintRow(section.grid.header, out);
      out += "|";
      for (size_t i = 0; i < section.grid.header.size(); ++i) {
        out += i < section.grid.num_left ? " --- |" : " ---: |";
      }
      out += "\n";
      for (const std::vector<std::string>& row : section.grid.rows) PrintRow(row, out);
      out += "\n";
    }
    if (section.code.empty()) continue;
    out += "```\n";
    for (const std::string& command : section.code) out += command + "\n";
    out += "```\n\n";
  }
  return out + std::string(kLegend) + "\n";
}

}  // namespace moebius::plan
