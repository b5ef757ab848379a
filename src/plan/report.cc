#include "plan/report.h"

namespace moebius::plan {

Result<ReportFormat> ParseReportFormat(const std::string& name) {
  if (name == "table") return ReportFormat::kTable;
  if (name == "json") return ReportFormat::kJson;
  if (name == "csv") return ReportFormat::kCsv;
  if (name == "markdown") return ReportFormat::kMarkdown;
  if (name == "html") return ReportFormat::kHtml;
  return MakeError(ErrorCode::kInvalidArgument,
                   "--format is '{}', expected table, json, csv, markdown or html", name);
}

std::string RenderReport(const PlanReport& report, ReportFormat format) {
  switch (format) {
    case ReportFormat::kTable:
      return TableReport(report);
    case ReportFormat::kJson:
      return JsonReport(report);
    case ReportFormat::kCsv:
      return CsvReport(report);
    case ReportFormat::kMarkdown:
      return MarkdownReport(report);
    case ReportFormat::kHtml:
      return HtmlReport(report);
  }
  return {};
}

}  // namespace moebius::plan
