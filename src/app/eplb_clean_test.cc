#include "app/eplb_clean.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "platform/named_memory.h"

namespace moebius::app {
namespace {

// No other test program has this base.
std::string CleanBase(const char* test) {
  return fmt::format("moebius_clean_{}_{}", getpid(), test);
}

platform::NamedMemory LiveSegment(const std::string& base, int layer) {
  auto memory = platform::NamedMemory::Create(moe::HostSegmentName(base, layer, 0), 4096);
  EXPECT_TRUE(memory) << memory.error().message();
  return memory ? std::move(*memory) : platform::NamedMemory();
}

// What a killed owner leaves: the same bytes in a file that nobody holds.
void LeaveSegment(const std::string& base, int layer) {
  const platform::NamedMemory owned = LiveSegment(base + "_gone", layer);
  const std::string folder = std::string(platform::kSharedMemoryFolder) + "/";
  std::ifstream from(folder + moe::HostSegmentName(base + "_gone", layer, 0), std::ios::binary);
  std::ofstream to(folder + moe::HostSegmentName(base, layer, 0), std::ios::binary);
  to << from.rdbuf();
}

std::string Printed(const EplbCleanOptions& options) {
  char* buffer = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&buffer, &size);
  EXPECT_TRUE(RunEplbClean(out, options));
  std::fclose(out);
  std::string text(buffer, size);
  std::free(buffer);
  return text;
}

TEST(EplbClean, RemovesWhatIsLeftOverAndNothingElse) {
  EplbCleanOptions options;
  options.name = CleanBase("mixed");
  const platform::NamedMemory live = LiveSegment(options.name, 0);
  LeaveSegment(options.name, 1);
  LeaveSegment(options.name, 10);
  const std::string foreign =
      std::string(platform::kSharedMemoryFolder) + "/" + moe::HostSegmentName(options.name, 2, 0);
  std::ofstream(foreign) << "theirs";

  options.dry_run = true;
  const std::string listed = Printed(options);
  EXPECT_EQ(listed.find("removed\n"), std::string::npos);
  EXPECT_NE(listed.find("4 segments in /dev/shm: 2 left over (0.0 MiB), 0 removed"),
            std::string::npos)
      << listed;
  options.dry_run = false;
  const auto cleaned = CleanHostPools(options);
  ASSERT_TRUE(cleaned) << cleaned.error().message();
  ASSERT_EQ(cleaned->size(), size_t{4});
  const std::vector<bool> removed = {false, true, false, true};  // layers 0, 1, 2, 10
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ((*cleaned)[i].removed, removed[i]) << i;
  const std::string text = Printed(options);
  EXPECT_NE(text.find(fmt::format("live, pid {}", getpid())), std::string::npos) << text;
  EXPECT_NE(text.find("another program or user: not touched"), std::string::npos) << text;
  EXPECT_NE(text.find("2 segments in /dev/shm: 0 left over"), std::string::npos) << text;
  EXPECT_EQ(unlink(foreign.c_str()), 0);
}

TEST(EplbClean, TakesTheNameThatAServerWouldTakeOrAll) {
  const std::string base = CleanBase("variable");
  LeaveSegment(base, 0);
  setenv("MOEBIUS_EPLB_SHM_NAME", base.c_str(), 1);
  const auto listed = CleanHostPools({.name = "", .dry_run = true});
  unsetenv("MOEBIUS_EPLB_SHM_NAME");
  ASSERT_TRUE(listed);
  ASSERT_EQ(listed->size(), size_t{1});
  const auto all = CleanHostPools({.name = "", .all = true, .dry_run = true});
  ASSERT_TRUE(all);
  EXPECT_TRUE(std::ranges::any_of(
      *all, [&](const CleanedSegment& cleaned) { return cleaned.segment.id.base == base; }));
  EXPECT_TRUE(CleanHostPools({.name = base})->at(0).removed);
}

TEST(EplbClean, ABadNameIsAnErrorAndNothingIsNoError) {
  EXPECT_EQ(CleanHostPools({.name = "a/b"}).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CleanHostPools({.name = "a", .all = true}).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(Printed({.name = CleanBase("none")}),
            "0 segments in /dev/shm: 0 left over (0.0 MiB), 0 removed (0.0 MiB).\n");
}

}  // namespace
}  // namespace moebius::app
