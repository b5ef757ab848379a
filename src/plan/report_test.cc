#include "plan/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "plan/search_test_util.h"

namespace moebius::plan {
namespace {

using nlohmann::json;

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

PlanReport Searched(int gpus, int64_t concurrency) {
  PlanReport report;
  report.input = TestInput();
  report.input.gpu_hour_price = 2;
  report.question.gpu_counts = {gpus};
  report.question.concurrency = concurrency;
  report.decision = Decide(report.input, report.question);
  if (!report.decision.ranked.empty()) {
    report.launch = LaunchCommands(report.input, report.decision.ranked.front());
  }
  return report;
}

PlanReport OneLayout() {
  PlanReport report;
  report.input = TestInput();
  report.one_layout = true;
  report.named = TestConfig(4, 2, 1, true);
  report.question.gpu_counts = {8};
  report.question.concurrency = 16;
  report.findings = {
      {"example", layout::Severity::kWarning, "a \"quoted\" <warning>, with commas"}};
  report.decision.ranked = {
      EstimateLayout(report.input, SettleLayout(report.input, report.named, 16), 16)};
  report.decision.curves = {CurveOf(report.input, {report.named})};
  report.launch = LaunchCommands(report.input, report.decision.ranked[0]);
  return report;
}

PlanReport Illegal() {
  PlanReport report;
  report.input = TestInput();
  report.one_layout = true;
  report.named = TestConfig(3, 1, 1, false);
  report.question.gpu_counts = {3};
  report.findings = CheckRules(report.named, report.input.model.numbers);
  report.nearest = NearestLegal(report.named, report.input.model.numbers);
  return report;
}

PlanReport ByPlaybook() {
  PlanReport report = Searched(8, 256);
  PlaybookQuestion question;
  question.concurrency = 256;
  question.num_experts = 256;
  question.top_k = 8;
  question.num_heads = 128;
  question.latent_attention = true;
  report.playbook = PlaybookReport{AskPlaybook(question), {}};
  for (const layout::ParallelConfig& config : report.playbook->answer.configs) {
    report.playbook->estimates.push_back(
        EstimateLayout(report.input, SettleLayout(report.input, config, 256), 256));
  }
  return report;
}

std::vector<PlanReport> All() {
  return {Searched(8, 16), Searched(64, 2048), Searched(2, 16),
          OneLayout(),     Illegal(),          ByPlaybook()};
}

TEST(Report, JsonParsesAndKeepsItsKeys) {
  for (const PlanReport& report : All()) {
    const json parsed = json::parse(JsonReport(report));
    EXPECT_EQ(parsed["schema"], "moebius.plan/1");
    for (const char* key : {"model", "device", "question", "layouts", "recommended", "runner_up",
                            "crossover", "why", "bands", "curves", "width", "rejected", "findings",
                            "nearest_legal", "parts", "playbook", "commands"}) {
      EXPECT_TRUE(parsed.contains(key)) << key;
    }
    for (const json& layout : parsed["layouts"]) {
      for (const char* key : {"layout", "gpus", "status", "memory_bytes", "kv", "traffic_bytes",
                              "decode", "prefill", "ttft_ms", "tpot_ms", "tokens_per_s_gpu",
                              "tokens_per_s_user", "experts_per_gpu", "basis"}) {
        EXPECT_TRUE(layout.contains(key)) << key;
      }
      double us = 0;
      for (const json& op : layout["decode"]["ops"]) us += op["us"].get<double>();
      const int stages = layout["pipeline_parallel_size"];
      EXPECT_NEAR(us * stages / 1e3, layout["decode"]["ms"].get<double>(), 1e-6 * us + 1e-9);
      double bytes = 0;
      for (const auto& [name, value] : layout["memory_bytes"].items()) {
        if (name != "total_without_kv") bytes += value.get<double>();
      }
      EXPECT_NEAR(bytes, layout["memory_bytes"]["total_without_kv"].get<double>(), 1e3);
    }
  }
}

TEST(Report, JsonSaysWhatWasDecided) {
  const json searched = json::parse(JsonReport(Searched(8, 16)));
  EXPECT_EQ(searched["recommended"], searched["layouts"][0]["layout"]);
  EXPECT_EQ(searched["runner_up"], searched["layouts"][1]["layout"]);
  EXPECT_FALSE(searched["commands"]["vllm"].empty());
  EXPECT_TRUE(searched["playbook"].is_null());
  const json illegal = json::parse(JsonReport(Illegal()));
  EXPECT_TRUE(illegal["recommended"].is_null());
  EXPECT_EQ(illegal["findings"][0]["severity"], "error");
  EXPECT_FALSE(illegal["nearest_legal"].is_null());
  EXPECT_EQ(json::parse(JsonReport(OneLayout()))["parts"].size(), size_t{layout::kNumParts});
  EXPECT_EQ(json::parse(JsonReport(ByPlaybook()))["playbook"]["steps"].size(), 4u);
}

// Commas outside of quotes.
size_t NumCells(const std::string& line) {
  bool quoted = false;
  size_t cells = 1;
  for (const char c : line) {
    if (c == '"') quoted = !quoted;
    if (c == ',' && !quoted) ++cells;
  }
  EXPECT_FALSE(quoted) << line;
  return cells;
}

TEST(Report, CsvColumnsAreConstant) {
  std::string header;
  for (const PlanReport& report : All()) {
    const std::vector<std::string> lines = Lines(CsvReport(report));
    ASSERT_FALSE(lines.empty());
    if (header.empty()) header = lines[0];
    EXPECT_EQ(lines[0], header);
    for (const std::string& line : lines) EXPECT_EQ(NumCells(line), NumCells(header)) << line;
    const bool illegal = report.one_layout && report.decision.ranked.empty();  // its findings
    EXPECT_EQ(lines.size(), 1 + report.decision.ranked.size() + report.decision.rejected.size() +
                                (illegal ? 1 : 0));
  }
}

TEST(Report, HtmlNeedsNothingFromOutside) {
  for (const PlanReport& report : All()) {
    const std::string html = HtmlReport(report);
    for (const char* word :
         {"http:", "https:", "//", "src=", "href", "<script", "@import", "url("}) {
      EXPECT_EQ(html.find(word), std::string::npos) << word;
    }
    const auto count = [&](const std::string& word) {
      size_t n = 0;
      for (size_t at = html.find(word); at != std::string::npos; at = html.find(word, at + 1)) ++n;
      return n;
    };
    for (const char* tag : {"table", "tr", "svg", "div", "text", "p", "h2", "body", "html"}) {
      const std::string name(tag);
      EXPECT_EQ(count("<" + name + ">") + count("<" + name + " "), count("</" + name + ">")) << tag;
    }
    EXPECT_EQ(count("<svg"), report.decision.ranked.empty() ? 0u : 2u);
    EXPECT_EQ(html.find("nan"), std::string::npos);
  }
  EXPECT_NE(HtmlReport(OneLayout()).find("&lt;warning&gt;"), std::string::npos);
}

TEST(Report, TheTerminalHasAHundredColumns) {
  for (const PlanReport& report : All()) {
    for (const std::string& line : Lines(TableReport(report))) EXPECT_LE(line.size(), 100u) << line;
  }
}

TEST(Report, MarkdownTablesAreRectangular) {
  for (const PlanReport& report : All()) {
    size_t columns = 0;
    for (const std::string& line : Lines(MarkdownReport(report))) {
      if (line.empty() || line[0] != '|') {
        columns = 0;
        continue;
      }
      size_t bars = 0;
      for (size_t i = 0; i < line.size(); ++i)
        bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\');
      if (columns == 0) columns = bars;
      EXPECT_EQ(bars, columns) << line;
    }
  }
}

TEST(Report, CommandsStartTheLayout) {
  const PlanInput input = TestInput();
  const auto launch = [&](const layout::ParallelConfig& config) {
    return LaunchCommands(input, EstimateLayout(input, SettleLayout(input, config, 64), 64));
  };
  const Launch one = launch(TestConfig(1, 8, 1, true));
  ASSERT_EQ(one.vllm.size(), 1u);
  for (const char* flag : {"vllm serve test/moe", "--data-parallel-size 8",
                           "--enable-expert-parallel", "--all2all-backend", "--max-num-seqs 8"}) {
    EXPECT_NE(one.vllm[0].find(flag), std::string::npos) << flag << " in " << one.vllm[0];
  }
  EXPECT_EQ(one.vllm[0].find("--tensor-parallel-size"), std::string::npos);
  EXPECT_EQ(one.moebius[0].rfind("moebius serve test/moe", 0), 0u);

  const Launch nodes = launch(TestConfig(1, 64, 1, true));
  ASSERT_EQ(nodes.vllm.size(), 2u);
  EXPECT_NE(nodes.vllm[0].find("--data-parallel-size-local 8"), std::string::npos);
  EXPECT_NE(nodes.vllm[1].find("--headless"), std::string::npos);
  EXPECT_NE(nodes.vllm[1].find("--data-parallel-start-rank 8"), std::string::npos);

  const Launch wide_tp = launch(TestConfig(8, 1, 2, false));
  ASSERT_EQ(wide_tp.vllm.size(), 2u);
  EXPECT_NE(wide_tp.vllm[1].find("--nnodes 2 --node-rank 1"), std::string::npos);

  PlanInput spaced = input;
  spaced.model_argument = "my model's";
  EXPECT_EQ(
      LaunchCommands(spaced,
                     EstimateLayout(spaced, SettleLayout(spaced, TestConfig(8, 1, 1, false), 1), 1))
          .vllm[0]
          .rfind("vllm serve 'my model'\\''s'", 0),
      0u);

  // A long command is wrapped at spaces: JSON has none.
  PlanInput overridden = input;
  overridden.model.hf_overrides = R"({"a": 1, "b c": "x \" y"})";
  EXPECT_NE(
      LaunchCommands(
          overridden,
          EstimateLayout(overridden, SettleLayout(overridden, TestConfig(8, 1, 1, false), 1), 1))
          .vllm[0]
          .find(R"('{"a":1,"b c":"x \" y"}')"),
      std::string::npos);
}

TEST(Report, PublishedRowsInEveryFormat) {
  const json parsed = json::parse(RenderPublished(ReportFormat::kJson));
  ASSERT_GT(parsed["rows"].size(), 10u);
  EXPECT_EQ(parsed["summary"].size(), 4u);
  const std::vector<std::string> csv = Lines(RenderPublished(ReportFormat::kCsv));
  EXPECT_EQ(csv.size(), parsed["rows"].size() + 1);
  for (const std::string& line : csv) EXPECT_EQ(NumCells(line), NumCells(csv[0])) << line;
  for (const std::string& line : Lines(RenderPublished(ReportFormat::kTable))) {
    EXPECT_LE(line.size(), 100u) << line;
  }
  EXPECT_EQ(RenderPublished(ReportFormat::kHtml).find("http"), std::string::npos);
}

TEST(Report, FormatsByName) {
  for (const char* name : {"table", "json", "csv", "markdown", "html"}) {
    EXPECT_TRUE(ParseReportFormat(name)) << name;
  }
  EXPECT_NE(ParseReportFormat("xml").error().message().find("xml"), std::string::npos);
}

}  // namespace
}  // namespace moebius::plan
