#include "base/metrics_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace moebius {
namespace {

TEST(MetricsText, OneSampleFamily) {
  MetricsText text;
  text.Gauge("running", "Requests in steps.", 3);
  EXPECT_EQ(text.text(), "# HELP running Requests in steps.\n# TYPE running gauge\nrunning 3\n");
}

TEST(MetricsText, LabelsComeCommonFirstAndAreEscaped) {
  MetricsText text({{"model_name", "a\"b\\c\nd"}, {"engine", "0"}});
  text.Counter("done_total", "By reason;\nback\\slash, \"quote\".");
  text.Sample(5, {{"reason", "stop"}});
  EXPECT_EQ(text.text(),
            "# HELP done_total By reason;\\nback\\\\slash, \"quote\".\n"
            "# TYPE done_total counter\n"
            "done_total{model_name=\"a\\\"b\\\\c\\nd\",engine=\"0\",reason=\"stop\"} 5\n");
}

TEST(MetricsText, CommonLabelsCanBeDropped) {
  MetricsText text({{"engine", "0"}});
  text.DropCommonLabels();
  text.Counter("x_total", "X.");
  text.Sample(1);
  text.Sample(2, {{"a", "b"}});
  EXPECT_NE(text.text().find("\nx_total 1\nx_total{a=\"b\"} 2\n"), std::string::npos);
}

TEST(MetricsText, NumbersKeepTheirDigits) {
  MetricsText text;
  text.Gauge("x", "X.");
  text.Sample(0.1);
  text.Sample(1e-9);
  text.Sample(int64_t{9007199254740993});  // a double would round it
  text.Sample(std::numeric_limits<double>::infinity());
  text.Sample(-std::numeric_limits<double>::infinity());
  text.Sample(std::nan(""));
  EXPECT_NE(text.text().find("x 0.1\nx 1e-09\nx 9007199254740993\nx +Inf\nx -Inf\nx NaN\n"),
            std::string::npos)
      << text.text();
}

TEST(MetricsText, HistogramIsCumulativeAndEndsWithInfinity) {
  const double bounds[] = {5e-5, 0.001, 0.25, 1, 1e6};
  Histogram histogram(bounds);
  histogram.Observe(0.001);  // bounds are inclusive
  histogram.Observe(0.5, 2);
  histogram.Observe(2e6);
  MetricsText text({{"engine", "0"}});
  text.HistogramFamily("t_seconds", "T.", histogram);
  EXPECT_EQ(text.text(),
            "# HELP t_seconds T.\n# TYPE t_seconds histogram\n"
            "t_seconds_bucket{engine=\"0\",le=\"5e-05\"} 0\n"
            "t_seconds_bucket{engine=\"0\",le=\"0.001\"} 1\n"
            "t_seconds_bucket{engine=\"0\",le=\"0.25\"} 1\n"
            "t_seconds_bucket{engine=\"0\",le=\"1.0\"} 3\n"
            "t_seconds_bucket{engine=\"0\",le=\"1e+06\"} 3\n"
            "t_seconds_bucket{engine=\"0\",le=\"+Inf\"} 4\n"
            "t_seconds_sum{engine=\"0\"} 2000001.001\n"
            "t_seconds_count{engine=\"0\"} 4\n");
}

TEST(MetricsText, AHistogramWithoutBoundsIsOneBucket) {
  MetricsText text;
  text.HistogramFamily("empty", "E.", Histogram());
  EXPECT_NE(text.text().find("empty_bucket{le=\"+Inf\"} 0\nempty_sum 0\nempty_count 0\n"),
            std::string::npos);
}

}  // namespace
}  // namespace moebius
