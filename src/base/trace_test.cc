#include "base/trace.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace moebius {
namespace {

std::vector<std::string> LinesOf(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::string TestPath(const char* name) { return ::testing::TempDir() + "/" + name; }

TEST(Trace, IsAnArrayOfEvents) {
  const std::string path = TestPath("trace_array.json");
  {
    auto file = TraceFile::Create(path);
    ASSERT_TRUE(file) << file.error().message();
    Trace trace({file->descriptor(), 3}, TraceThread::kDevice);
    const Trace::Clock::time_point begin = Trace::Clock::now();
    trace.Add("plan", begin, 7, 12);
    trace.AddPass(begin, 8, 7, 12, {{"attention", 0.5e-6}, {"experts", 2e-6}});
    EXPECT_EQ(LinesOf(path).size(), 1u);  // nothing but the beginning: it buffers
    trace.Flush();
  }
  const std::vector<std::string> lines = LinesOf(path);
  ASSERT_EQ(lines.size(), 8u);
  EXPECT_EQ(lines[0], "[");
  EXPECT_EQ(lines[1],
            R"({"name":"process_name","ph":"M","pid":3,"tid":0,"args":{"name":"rank 3"}},)");
  EXPECT_EQ(lines[2],
            R"({"name":"thread_name","ph":"M","pid":3,"tid":2,"args":{"name":"device"}},)");
  EXPECT_EQ(lines[3], R"({"name":"process_sort_index","ph":"M","pid":3,"args":{"sort_index":3}},)");
  EXPECT_TRUE(lines[4].starts_with(R"({"name":"plan","ph":"X","pid":3,"tid":2,"ts":)")) << lines[4];
  EXPECT_TRUE(lines[4].ends_with(R"(,"args":{"plan":7,"rows":12}},)")) << lines[4];
  EXPECT_TRUE(lines[5].ends_with(
      R"(,"args":{"step":8,"plan":7,"rows":12,"attention_us":0.5,"experts_us":2.0}},)"))
      << lines[5];
  EXPECT_TRUE(lines[6].starts_with(R"({"name":"the end","ph":"i")")) << lines[6];
  EXPECT_TRUE(lines[6].ends_with("}")) << lines[6];
  EXPECT_EQ(lines[7], "]");
}

TEST(Trace, ThreadsShareAFileByWholeLines) {
  const std::string path = TestPath("trace_threads.json");
  constexpr int kThreads = 4;
  constexpr int kSteps = 200;
  {
    auto file = TraceFile::Create(path);
    ASSERT_TRUE(file);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kThreads; ++rank) {
      threads.emplace_back([&file, rank] {
        Trace trace({file->descriptor(), rank}, TraceThread::kEngine);
        for (int step = 0; step < kSteps; ++step) {
          {
            const TraceSpan span(&trace, "layers");
          }
          trace.Flush();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  const std::vector<std::string> lines = LinesOf(path);
  ASSERT_EQ(lines.size(), static_cast<size_t>(kThreads * (kSteps + 3) + 3));
  for (size_t i = 1; i + 2 < lines.size(); ++i) {
    ASSERT_TRUE(lines[i].starts_with(R"({"name":")") && lines[i].ends_with("},")) << lines[i];
  }
}

TEST(Trace, OffCostsNothing) {
  Trace trace;
  EXPECT_FALSE(trace.is_on());
  trace.Add("plan", {});
  {
    const TraceSpan span(&trace, "layers");
  }
  {
    const TraceSpan span(nullptr, "layers");
  }
  trace.Flush();
}

TEST(Trace, SaysWhatCannotBeWritten) {
  const auto file = TraceFile::Create("/nowhere/at/all.json");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().message(),
            "cannot write the trace /nowhere/at/all.json: No such file or directory");
}

}  // namespace
}  // namespace moebius
