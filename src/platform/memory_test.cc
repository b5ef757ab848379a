#include "platform/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace moebius::platform {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

bool IsAligned(const void* data, size_t alignment) {
  return reinterpret_cast<size_t>(data) % alignment == 0;
}

TEST(Region, SmallOnesAreWholePages) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const Result<Region> region = Region::Allocate(1);
  ASSERT_TRUE(region);
  EXPECT_EQ(region->size(), page);
  EXPECT_TRUE(IsAligned(region->data(), page));
}

TEST(Region, LargeOnesAreAlignedToHugePagesZeroedAndWritable) {
  for (const size_t size : {2 * kMiB, 3 * kMiB, 17 * kMiB}) {
    const Result<Region> region = Region::Allocate(size);
    ASSERT_TRUE(region);
    EXPECT_EQ(region->size(), size);
    EXPECT_TRUE(IsAligned(region->data(), 2 * kMiB));
    for (size_t i = 0; i < size; i += 4096) ASSERT_EQ(region->data()[i], std::byte{0});
    std::memset(region->data(), 0x5a, size);
    EXPECT_EQ(region->data()[size - 1], std::byte{0x5a});
  }
}

TEST(Region, MovesItsMemory) {
  Region first = Region::Allocate(4096).value();
  Region second = Region::Allocate(8192).value();
  first.data()[0] = std::byte{1};
  second.data()[0] = std::byte{2};
  Region moved = std::move(first);
  EXPECT_EQ(first.data(),
            nullptr);  // NOLINT(bugprone-use-after-move): a moved-from Region is empty
  EXPECT_EQ(moved.data()[0], std::byte{1});
  moved = std::move(second);
  EXPECT_EQ(moved.data()[0], std::byte{2});
  EXPECT_EQ(moved.size(), 8192u);
}

TEST(Region, TooLargeIsAnErrorThatNamesTheSize) {
  const Result<Region> region = Region::Allocate(size_t{1} << 60);
  ASSERT_FALSE(region);
  EXPECT_EQ(region.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(region.error().message().find("1152921504606846976 bytes"), std::string::npos);
}

TEST(Region, ARefusedBindingStillGivesMemory) {
  for (const int node : {0, 777, 100000}) {  // there, not there, beyond what can be named
    RegionOptions options;
    options.numa_node = node;
    const Result<Region> region = Region::Allocate(2 * kMiB, options);
    ASSERT_TRUE(region);
    region->data()[0] = std::byte{7};
    EXPECT_EQ(region->data()[0], std::byte{7});
  }
}

// A made-up /proc and /sys.
class SystemMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "system_memory_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    Write("/proc/meminfo",
          "MemTotal:       1048576 kB\nMemFree:  1 kB\nMemAvailable:  524288 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }
  SystemMemory Read() const { return ReadSystemMemory(root_).value(); }

  std::string root_;
};

TEST_F(SystemMemoryTest, WithoutCgroupsAvailableIsThatOfMeminfo) {
  EXPECT_EQ(Read().total, 1024 * kMiB);
  EXPECT_EQ(Read().available, 512 * kMiB);
  EXPECT_EQ(Read().limit, 0u);
}

TEST_F(SystemMemoryTest, TheTightestGroupOfVersionTwoCounts) {
  Write("/proc/self/cgroup", "0::/user/job\n");
  Write("/sys/fs/cgroup/user/job/memory.max", "max\n");
  Write("/sys/fs/cgroup/user/memory.max", "209715200\n");  // 200 MiB
  Write("/sys/fs/cgroup/user/memory.current",
        "104857600\n");  // 100 MiB, of which 40 MiB can be dropped
  Write("/sys/fs/cgroup/user/memory.stat", "anon 1\nfile 2\ninactive_file 41943040\n");
  EXPECT_EQ(Read().limit, 200 * kMiB);
  EXPECT_EQ(Read().available, 140 * kMiB);
}

TEST_F(SystemMemoryTest, AContainersOwnMountHoldsItsLimit) {
  Write("/proc/self/cgroup", "0::/docker/0123456789\n");
  Write("/sys/fs/cgroup/memory.max", "314572800\n");
  EXPECT_EQ(Read().limit, 300 * kMiB);
  EXPECT_EQ(Read().available, 300 * kMiB);
}

TEST_F(SystemMemoryTest, VersionOneIsReadToo) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/\n");
  Write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "104857600\n");
  Write("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "125829120\n");          // above its limit
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  EXPECT_EQ(Read().limit, 100 * kMiB);
  EXPECT_EQ(Read().available, 0u);
}

TEST_F(SystemMemoryTest, AMeminfoThatCannotBeReadIsAnError) {
  Write("/proc/meminfo", "MemTotal: lots\n");
  const Result<SystemMemory> memory = ReadSystemMemory(root_);
  ASSERT_FALSE(memory);
  EXPECT_NE(memory.error().message().find("/proc/meminfo"), std::string::npos);
}

TEST(SystemMemory, ThisMachineHasSome) {
  const Result<SystemMemory> memory = ReadSystemMemory();
  ASSERT_TRUE(memory) << memory.error().message();
  EXPECT_GT(memory->total, 0u);
  EXPECT_GT(memory->available, 0u);
  EXPECT_LE(memory->available, memory->total);
}

}  // namespace
}  // namespace moebius::platform
