// A report as sections of sentences and grids: what the terminal, Markdown and HTML have in common.
// Inside plan/ only.
#pragma once

#include <string>
#include <vector>

#include "plan/report.h"

namespace moebius::plan {

struct Grid {
  std::vector<std::string> header;  // the first column is aligned to the left, others to the right
  std::vector<std::vector<std::string>> rows;
  size_t num_left = 1;  // columns aligned to the left
};

struct Section {
  std::string title;               // empty: none
  std::vector<std::string> lines;  // sentences
  Grid grid;                       // after the lines; no header: none
  std::vector<std::string> code;   // commands, after the grid
};

// The first section is the head: its title is the report's.
std::vector<Section> ReportSections(const PlanReport& report);

// Of one named layout, what needs no figure of a device's speed: findings, and unless they are
// errors parts, memory and traffic.
std::vector<Section> LayoutSections(const PlanReport& report);

// Sections as text. `drawings`: HTML after the head. With a legend: grids have tagged figures.
std::string TableText(const std::vector<Section>& sections, bool with_legend = true);
std::string MarkdownText(const std::vector<Section>& sections);
std::string HtmlText(const std::vector<Section>& sections, const std::string& drawings);

// The playbook's memory table beside the true one; empty for models it does not speak of.
std::vector<Section> PlaybookMemorySections(const PlanReport& report);

// Figures for people.
std::string Gigabytes(double bytes);                         // "81.7"
std::string Tokens(double count);                            // "1.77 M", "598 k", "512"
std::string Parameters(int64_t count, int digits);           // "671 B", "18.5 M" (below 0.1 B)
std::string Milliseconds(double ms);                         // "0.84", "19.9", "1204"
std::string Rate(double value);                              // "7.5", "50", "12.4 k"
std::string Tagged(const std::string& figure, Basis basis);  // "19.9 i"
extern const char* const kLegend;                            // what the tags mean

// "one MLA head", "16 of 128 experts": the head of the report.
std::string ReportTitle(const PlanReport& report);

// What a step's operations are for, for sums: "attention", "experts", "exchange", ...
struct StepShare {
  std::string group;
  double us = 0;
  Basis basis = Basis::kMeasured;  // the weakest of a tenth of it or more
};
std::vector<StepShare> StepShares(const StepTime& step);

// The parts of a GPU's memory, in the order of drawing, with their short names.
struct MemoryPart {
  const char* name;
  const char* key;  // in JSON
  double bytes;
};
std::vector<MemoryPart> MemoryParts(const MemoryUse& memory);

}  // namespace moebius::plan
