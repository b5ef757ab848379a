#include "bench/load/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "bench/load/rows.h"
#include "bench/load/svg.h"
#include "bench/load/testing/records.h"

namespace moebius::load {
namespace {

// Two users for 60 s, and one request that was refused.
ServeBench Example() {
  ServeBench bench;
  bench.model = "demo <1>";
  bench.tokenizer = "ids";
  bench.num_prompts = 13;
  for (int i = 0; i < 12; ++i) {
    bench.run.records.push_back(Served(i / 2 * 10.0, 0.5, 0.5, 20));
    bench.run.records.back().index = i;
  }
  RequestRecord failed;
  failed.sent = 1;
  failed.end = 1.1;
  failed.outcome = Outcome::kRateLimited;
  failed.error = "HTTP 429: \"full\"";
  bench.run.records.push_back(failed);
  bench.run.duration = 60;
  bench.run.cpu_seconds = 0.1;
  bench.figures = MeasureRun(bench.run.records, 60, {1000, {}, {}}, false);
  bench.steady = MeasureWindow(bench.run.records, {.target = 2});
  return bench;
}

ReportOptions Options() {
  ReportOptions options;
  options.date = "20260102-030405";
  options.backend = "openai";
  options.limits.ttft_ms = 1000;
  options.metadata = {{"tp", "1"}};
  options.percentiles = {50, 99.9};
  return options;
}

TEST(Report, JsonHasTheKeysOfVllmsAndOursUnderOne) {
  const auto json = nlohmann::json::parse(JsonReport(Example(), Options()));
  std::set<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.insert(key);
  std::set<std::string> expected = {"date",
                                    "endpoint_type",
                                    "backend",
                                    "label",
                                    "model_id",
                                    "tokenizer_id",
                                    "num_prompts",
                                    "tp",
                                    "request_rate",
                                    "burstiness",
                                    "max_concurrency",
                                    "duration",
                                    "completed",
                                    "failed",
                                    "total_input_tokens",
                                    "total_output_tokens",
                                    "request_throughput",
                                    "request_goodput",
                                    "output_throughput",
                                    "total_token_throughput",
                                    "max_output_tokens_per_s",
                                    "max_concurrent_requests",
                                    "rtfx",
                                    "moebius"};
  for (const char* metric : {"ttft", "tpot", "itl"}) {
    for (const char* part : {"mean", "median", "std", "p50", "p99.9"}) {
      expected.insert(fmt::format("{}_{}_ms", part, metric));
    }
  }
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_EQ(json["completed"], 12);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_DOUBLE_EQ(json["output_throughput"], 4.0);
  EXPECT_DOUBLE_EQ(json["mean_ttft_ms"], 500);
  EXPECT_DOUBLE_EQ(json["request_goodput"], 0.2);
  EXPECT_EQ(json["moebius"]["outcomes"]["rate_limited"], 1);
  EXPECT_EQ(json["moebius"]["steady"]["is_steady"], true);
}

TEST(Report, DetailsAreOneEntryARequest) {
  ReportOptions options = Options();
  options.detailed = true;
  const auto json = nlohmann::json::parse(JsonReport(Example(), options));
  for (const char* key :
       {"input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"}) {
    EXPECT_EQ(json[key].size(), 13u) << key;
  }
  EXPECT_EQ(json["errors"][12], "HTTP 429: \"full\"");
  EXPECT_EQ(json["itls"][0].size(), 19u);
  EXPECT_EQ(json["output_lens"][12], 0);
}

TEST(Report, TheConsoleReadsLikeVllms) {
  const std::string text = ConsoleReport(Example(), Options());
  EXPECT_TRUE(text.starts_with("============ Serving Benchmark Result ============\n")) << text;
  for (const char* line : {"Successful requests:                     12        \n",
                           "Failed requests:                         1         \n",
                           "Request goodput (req/s):                 0.20      \n",
                           "Output token throughput (tok/s):         4.00      \n",
                           "---------------Time to First Token----------------\n",
                           "P99.9 TTFT (ms):                         500.00    \n",
                           "M2 output in W:                          4.0", "1 rate_limited"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

TEST(Report, CsvHasAsManyFieldsAsItsHeader) {
  const auto rows = ParseCsv(CsvReport(Example(), Options()));
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ(rows->at(0).size(), rows->at(1).size());
  EXPECT_EQ(rows->at(0)[2], "model_id");
  EXPECT_EQ(rows->at(1)[2], "demo <1>");
}

TEST(Report, MarkdownTablesAreEven) {
  std::istringstream lines(MarkdownReport(Example(), Options()));
  int64_t columns = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with('|')) {
      columns = 0;
      continue;
    }
    const auto bars = std::count(line.begin(), line.end(), '|');
    EXPECT_TRUE(columns == 0 || bars == columns) << line;
    columns = bars;
  }
}

// Every tag that opens closes, and nothing comes from elsewhere.
TEST(Report, HtmlIsWholeAndAlone) {
  const std::string page = HtmlReport(Example(), Options());
  EXPECT_NE(page.find("demo &lt;1&gt;"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_EQ(page.find("inf,"), std::string::npos);
  for (const char* tag : {"svg", "table", "tr", "td", "h2", "p", "body", "html"}) {
    size_t opened = 0;
    size_t closed = 0;
    for (size_t at = 0; (at = page.find(fmt::format("<{}", tag), at)) != std::string::npos; ++at) {
      const char next = page[at + 1 + std::string(tag).size()];
      if (next == '>' || next == ' ') ++opened;
    }
    for (size_t at = 0; (at = page.find(fmt::format("</{}>", tag), at)) != std::string::npos;
         ++at) {
      ++closed;
    }
    EXPECT_EQ(opened, closed) << tag;
  }
  EXPECT_NE(page.find("class=\"band\""), std::string::npos);
}

// The heights of a plot's line, in pixels from the top.
std::vector<double> HeightsOf(const std::string& page, const std::string& title) {
  constexpr std::string_view kPoints = "points=\"";
  const size_t begin =
      page.find(kPoints, page.find("aria-label=\"" + title + '"')) + kPoints.size();
  std::istringstream points(page.substr(begin, page.find('"', begin) - begin));
  std::vector<double> heights;
  for (std::string point; points >> point;) {
    heights.push_back(std::stod(point.substr(point.find(',') + 1)));
  }
  return heights;
}

// Four at once from the first to the last second, each as long as ten of the plot's stretches:
// requests begin and end where stretches do.
TEST(Report, FourInFlightAreFourAllAlong) {
  ServeBench bench;
  for (int i = 0; i < 120; ++i) bench.run.records.push_back(Served(i / 4 * 0.7, 0.7, 0, 1));
  bench.figures = MeasureRun(bench.run.records, 21, {}, false);
  const std::vector<double> heights = HeightsOf(HtmlReport(bench, Options()), "Requests in flight");
  ASSERT_EQ(heights.size(), 300u);
  const auto [top, bottom] = std::minmax_element(heights.begin(), heights.end());
  EXPECT_LT(*bottom - *top, 0.2);
  EXPECT_LT(*top, 100);  // not all of them zero
}

TEST(Report, ARunWithoutASingleAnswerIsReported) {
  ServeBench bench;
  bench.steady = MeasureWindow({}, {.target = 1});
  EXPECT_NO_THROW(nlohmann::json::parse(JsonReport(bench, Options())));
  EXPECT_NE(ConsoleReport(bench, Options()).find("not steady"), std::string::npos);
  EXPECT_NE(HtmlReport(bench, Options()).find("nothing to draw"), std::string::npos);
}

TEST(Svg, BinsHoldTheSamples) {
  const Bins bins = BinsOf({1, 2, 2, 3, 4}, 3);
  double sum = 0;
  for (const auto& [x, y] : bins.points) sum += y;
  EXPECT_GE(sum, 4);
  EXPECT_TRUE(BinsOf({}, 3).points.empty());
  EXPECT_EQ(BinsOf({2, 2}, 3).points.size(), 3u);
}

}  // namespace
}  // namespace moebius::load
