// Estimates beside published and measured figures: all rows, none hidden.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "plan/published.h"
#include "plan/report_sections.h"

namespace moebius::plan {
namespace {

const char* KindName(FigureKind kind) {
  switch (kind) {
    case FigureKind::kRun:
      return "runs on hardware";
    case FigureKind::kSummed:
      return "sums of measured operations";
    case FigureKind::kOrdering:
      return "orderings of two layouts";
    case FigureKind::kMemory:
      return "memory that was left";
  }
  return "";
}

// Of an ordering without a factor only the side is known.
std::string PublishedText(const PublishedComparison& row) {
  if (row.row.kind != FigureKind::kOrdering || row.row.figure > 0) {
    return fmt::format("{:.5g}", row.row.figure);
  }
  return row.row.above ? "> 1" : "< 1";
}

std::string ErrorText(const PublishedComparison& row) {
  std::string text = row.error ? fmt::format("{:+.0f} %", *row.error * 100) : "-";
  if (row.same_sign) text = (*row.same_sign ? "right side" : "WRONG side") + (", " + text);
  return text;
}

std::vector<Section> PublishedSections(const std::vector<PublishedComparison>& rows) {
  Section head{"Estimates beside published and measured figures", {}, {}, {}};
  for (const FigureKind kind : kFigureKinds) {
    const ErrorSummary sum = Summarise(rows, kind);
    head.lines.push_back(
        fmt::format("{}: {} of {} estimated; median error {:.0f} %, {:.0f} % of them within 15 %, "
                    "{:.0f} % within 30 %.",
                    KindName(kind), sum.estimated, sum.rows, sum.median * 100, sum.within_15 * 100,
                    sum.within_30 * 100));
    if (kind == FigureKind::kOrdering) {
      head.lines.back() +=
          fmt::format(" The leading layout is the published one in {} of {}; the others are wrong.",
                      sum.same_sign, sum.estimated);
    }
  }
  std::vector<Section> sections = {head};
  for (const FigureKind kind : kFigureKinds) {
    Section section{fmt::format("Against {}", KindName(kind)),
                    {},
                    {{"device, layout", "load", "source", "published", "estimate", "error"}, {}, 3},
                    {}};
    for (const PublishedComparison& row : rows) {
      if (row.row.kind != kind) continue;
      std::string source = row.row.source;
      if (row.row.note[0] != '\0') source += fmt::format(" ({})", row.row.note);
      section.grid.rows.push_back(
          {fmt::format("{} {}", row.row.device, row.layout),
           row.load.empty() ? "-" : fmt::format("{} at {}", row.unit, row.load), source,
           PublishedText(row),
           row.estimate ? Tagged(fmt::format("{:.4g}", *row.estimate), row.basis) : "-",
           ErrorText(row)});
    }
    sections.push_back(std::move(section));
  }
  return sections;
}

std::string PublishedJson(const std::vector<PublishedComparison>& rows) {
  nlohmann::ordered_json json;
  json["schema"] = "moebius.published/1";
  json["rows"] = nlohmann::ordered_json::array();
  const auto number = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  const auto published = [](const PublishedComparison& row) {
    return row.row.figure > 0 ? nlohmann::ordered_json(row.row.figure)
                              : nlohmann::ordered_json(nullptr);  // the note says the side
  };
  for (const PublishedComparison& row : rows) {
    json["rows"].push_back({{"kind", KindName(row.row.kind)},
                            {"device", row.row.device},
                            {"model", row.row.model},
                            {"layout", row.layout},
                            {"load", row.load},
                            {"unit", row.unit},
                            {"published", published(row)},
                            {"estimate", number(row.estimate)},
                            {"error", number(row.error)},
                            {"same_sign", row.same_sign ? nlohmann::ordered_json(*row.same_sign)
                                                        : nlohmann::ordered_json(nullptr)},
                            {"basis", BasisName(row.basis)},
                            {"source", row.row.source},
                            {"note", row.row.note}});
  }
  json["summary"] = nlohmann::ordered_json::array();
  for (const FigureKind kind : kFigureKinds) {
    const ErrorSummary sum = Summarise(rows, kind);
    json["summary"].push_back({{"kind", KindName(kind)},
                               {"rows", sum.rows},
                               {"estimated", sum.estimated},
                               {"median_error", sum.median},
                               {"within_15", sum.within_15},
                               {"within_30", sum.within_30}});
  }
  return json.dump(2) + "\n";
}

std::string PublishedCsv(const std::vector<PublishedComparison>& rows) {
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
  };
  std::string out =
      "kind,device,model,layout,load,unit,published,estimate,error,same_sign,basis,source,note\n";
  for (const PublishedComparison& row : rows) {
    out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{}\n", KindName(row.row.kind),
                       row.row.device, row.row.model, row.layout, quoted(row.load), row.unit,
                       row.row.figure > 0 ? PublishedText(row) : "",
                       row.estimate ? fmt::format("{:.6g}", *row.estimate) : "",
                       row.error ? fmt::format("{:.4f}", *row.error) : "",
                       row.same_sign ? *row.same_sign ? "yes" : "no" : "", BasisName(row.basis),
                       quoted(row.row.source), quoted(row.row.note));
  }
  return out;
}

}  // namespace

std::string RenderPublished(ReportFormat format) {
  const std::vector<PublishedComparison> rows = ComparePublished();
  switch (format) {
    case ReportFormat::kTable:
      return TableText(PublishedSections(rows));
    case ReportFormat::kMarkdown:
      return MarkdownText(PublishedSections(rows));
    case ReportFormat::kHtml:
      return HtmlText(PublishedSections(rows), "");
    case ReportFormat::kJson:
      return PublishedJson(rows);
    case ReportFormat::kCsv:
      return PublishedCsv(rows);
  }
  return {};
}

}  // namespace moebius::plan
