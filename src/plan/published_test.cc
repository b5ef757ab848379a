#include "plan/published.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

namespace moebius::plan {
namespace {

TEST(Published, EveryRowIsShownAndTheErrorsAreWhatWeSay) {
  const std::vector<PublishedComparison> rows = ComparePublished();
  std::vector<PublishedRow> all(PublishedRows().begin(), PublishedRows().end());
  all.insert(all.end(), PublishedOrderings().begin(), PublishedOrderings().end());
  ASSERT_EQ(rows.size(), all.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const PublishedComparison& row = rows[i];
    EXPECT_EQ(row.row.source, all[i].source);
    if (!row.estimate) {
      EXPECT_NE(std::string(row.row.note), "") << row.row.source << ": no estimate and no reason";
      fmt::print("{:6} {:48} {:>10.1f} {:>10}        {}\n", row.row.device, row.row.source,
                 row.row.figure, "-", row.row.note);
      continue;
    }
    EXPECT_GT(*row.estimate, 0) << row.row.source;
    if (row.row.figure > 0) {
      EXPECT_EQ(*row.error, *row.estimate / row.row.figure - 1);
    }
    EXPECT_EQ(row.same_sign.has_value(), row.row.kind == FigureKind::kOrdering);
    fmt::print("{:6} {:48} {:>10.4g} {:>10.4g} {:+6.0f} % {} {} {}, {} {}\n", row.row.device,
               row.row.source, row.row.figure, *row.estimate, row.error.value_or(0) * 100, row.unit,
               row.same_sign ? *row.same_sign ? "right:" : "WRONG:" : "", row.layout, row.load,
               row.row.note);
  }
  // The engine's share of time and the overlap were fitted to these very runs: a bound against
  // regressions, not a forecast for new ones.
  const ErrorSummary runs = Summarise(rows, FigureKind::kRun);
  const ErrorSummary sums = Summarise(rows, FigureKind::kSummed);
  fmt::print("runs: {} rows, {} estimated, median error {:.1f} %, within 15 %: {:.0f} %\n",
             runs.rows, runs.estimated, runs.median * 100, runs.within_15 * 100);
  fmt::print("sums: {} rows, {} estimated, median error {:.1f} %, within 15 %: {:.0f} %\n",
             sums.rows, sums.estimated, sums.median * 100, sums.within_15 * 100);
  EXPECT_GE(runs.estimated, 50);
  EXPECT_LE(runs.median, 0.15);
  EXPECT_GE(runs.within_30, 0.7);
  EXPECT_LE(sums.median, 0.12);
}

TEST(Published, TheDevicesThatWereAskedForAreThere) {
  std::set<std::string> devices;
  for (const PublishedComparison& row : ComparePublished()) {
    if (row.estimate) devices.insert(row.row.device);
  }
  for (const char* device : {"h200", "b200", "gb200", "mi300x"}) EXPECT_TRUE(devices.count(device));
}

}  // namespace
}  // namespace moebius::plan
