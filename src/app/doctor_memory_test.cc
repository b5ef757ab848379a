#include "app/doctor_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

namespace moebius::app {
namespace {

constexpr uint64_t kOneGiB = uint64_t{1} << 30;

bool IsIn(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

tl::unexpected<Error> NotThere(const char* message) {
  return MakeError(ErrorCode::kUnavailable, "{}", message);
}

platform::SharedMemoryRoom RoomOf(uint64_t total, uint64_t free) {
  platform::SharedMemoryRoom room;
  room.total = total;
  room.free = free;
  return room;
}

TEST(DoctorMemory, DockersDefaultSharedMemoryIsTooSmall) {
  const Finding enough = CheckSharedMemory(RoomOf(8 * kOneGiB, 6 * kOneGiB));
  EXPECT_EQ(enough.state, FindingState::kOk);
  EXPECT_EQ(enough.found, "6.0 GiB of 8.0 GiB free");
  const Finding small = CheckSharedMemory(RoomOf(kOneGiB / 16, kOneGiB / 16));
  EXPECT_EQ(small.state, FindingState::kWarning);
  EXPECT_EQ(small.found, "64 MiB of 64 MiB free");
  EXPECT_TRUE(IsIn(small.remedy, "--shm-size"));
  const Finding full = CheckSharedMemory(RoomOf(8 * kOneGiB, 0));
  EXPECT_EQ(full.state, FindingState::kWarning);
  EXPECT_TRUE(IsIn(full.remedy, "moebius eplb clean"));
  constexpr uint64_t kNone = platform::SharedMemoryRoom::kUnlimited;
  EXPECT_EQ(CheckSharedMemory(RoomOf(kNone, kNone)).found, "no limit");
  EXPECT_EQ(CheckSharedMemory(NotThere("/dev/shm: none")).state, FindingState::kWarning);
}

TEST(DoctorMemory, HugePagesForSegmentsComeByTheMount) {
  EXPECT_EQ(CheckSharedHugePages("advise").state, FindingState::kOk);
  EXPECT_EQ(CheckSharedHugePages("advise").remedy, "");
  const Finding never = CheckSharedHugePages("never");
  EXPECT_EQ(never.state, FindingState::kNotApplicable);
  EXPECT_TRUE(IsIn(never.remedy, "As root: mount -o remount,huge=advise /dev/shm"));
  EXPECT_TRUE(IsIn(CheckSharedHugePages("deny").remedy, "shmem_enabled, then mount"));
  EXPECT_EQ(CheckSharedHugePages("").found, "this kernel has none");
}

TEST(DoctorMemory, ALimitOfTheContainerIsSaid) {
  platform::SystemMemory memory;
  EXPECT_EQ(CheckMemoryLimit(memory).state, FindingState::kNotApplicable);
  memory.limit = 16 * kOneGiB;
  EXPECT_EQ(CheckMemoryLimit(memory).state, FindingState::kOk);
  EXPECT_EQ(CheckMemoryLimit(memory).found, "16.0 GiB by a cgroup, and what is in /dev/shm counts");
  EXPECT_EQ(CheckMemoryLimit(NotThere("no meminfo")).found, "no meminfo");
}

TEST(DoctorMemory, LockedMemoryComesWithWhatRdmaNeeds) {
  EXPECT_EQ(CheckLockedMemory(std::numeric_limits<uint64_t>::max()).remedy, "");
  const Finding finding = CheckLockedMemory(uint64_t{8} << 20);
  EXPECT_EQ(finding.found, "8 MiB (ulimit -l)");
  EXPECT_TRUE(IsIn(finding.remedy, "--ulimit memlock=-1"));
}

TEST(DoctorMemory, ARefusedBindingMattersWhereThereAreNodes) {
  const auto one = platform::TopologyFromSynthetic("core:2 pu:1");
  const auto two =
      platform::TopologyFromSynthetic("package:2 [numa(memory=1073741824)] core:4 pu:1");
  EXPECT_EQ(CheckMemoryBinding(two, {}).state, FindingState::kOk);
  EXPECT_EQ(CheckMemoryBinding(two, {}).remedy, "");
  EXPECT_EQ(CheckMemoryBinding(one, NotThere("refused")).state, FindingState::kNotApplicable);
  const Finding refused = CheckMemoryBinding(two, NotThere("refused"));
  EXPECT_EQ(refused.state, FindingState::kWarning);
  EXPECT_EQ(refused.found, "refused");
  EXPECT_TRUE(IsIn(refused.remedy, "--cap-add SYS_NICE"));
}

TEST(DoctorMemory, NodesWithoutCpusAreKeptFreeOfHostMemory) {
  platform::Topology grace;
  for (int node = 0; node < 6; ++node) {
    platform::NumaNode& added = grace.numa_nodes.emplace_back();
    added.id = node;
    if (node < 2) added.cpus = {node};
  }
  EXPECT_TRUE(IsIn(CheckMemoryBinding(grace, {}).remedy, "nodes 2-5 have memory and no cpus"));
  EXPECT_TRUE(IsIn(CheckMemoryBinding(grace, {}).remedy, "numactl -m 0-1 keeps"));
}

TEST(DoctorMemory, WhatACrashLeftIsAWarningWithTheCommand) {
  EXPECT_EQ(CheckHostPools({}).state, FindingState::kNotApplicable);
  std::vector<moe::HostSegment> segments(3);
  segments[0].info.state = platform::SegmentState::kLive;
  segments[1].info.state = platform::SegmentState::kForeign;
  segments[2].info.state = platform::SegmentState::kLive;
  EXPECT_EQ(CheckHostPools(segments).state, FindingState::kOk);
  EXPECT_EQ(CheckHostPools(segments).found, "3 segment(s), 2 live");
  segments[2].info.state = platform::SegmentState::kLeftOver;
  segments[2].info.num_bytes = 3 * kOneGiB;
  const Finding left = CheckHostPools(segments);
  EXPECT_EQ(left.state, FindingState::kWarning);
  EXPECT_EQ(left.found, "3 segment(s), 1 live, 1 left over by a crash (3.0 GiB)");
  EXPECT_EQ(left.remedy, "moebius eplb clean --all");
}

TEST(DoctorMemory, LooksUnderTheRootThatIsGiven) {
  std::string root = testing::TempDir() + "doctor_memory_XXXXXX";
  ASSERT_NE(mkdtemp(root.data()), nullptr);
  const auto write = [&](const std::string& path, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << content;
  };
  write("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n");
  write("/proc/self/cgroup", "0::/\n");
  write("/sys/fs/cgroup/memory.max", "2147483648\n");
  write("/proc/self/mounts", "tmpfs /dev/shm tmpfs rw,huge=within_size 0 0\n");
  write("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise [never] deny force\n");
  write("/dev/shm/moe_shared_l0_lr0_all", "somebody's\n");
  write("/dev/shm/nccl-Ab12", "\n");
  DoctorOptions options;
  options.root = root;
  const auto findings = CheckMemories(options, platform::TopologyFromSynthetic("core:2 pu:1"));
  std::filesystem::remove_all(root);
  const auto found = [&](const std::string& subject) {
    for (const Finding& finding : findings) {
      if (finding.subject == subject) return finding.found;
    }
    return std::string("no such subject");
  };
  EXPECT_TRUE(IsIn(found("/dev/shm"), "free"));
  EXPECT_EQ(found("huge pages in /dev/shm"), "within_size");
  EXPECT_TRUE(IsIn(found("memory limit"), "2.0 GiB by a cgroup"));
  EXPECT_EQ(found("eplb host pools"), "1 segment(s), 0 live");
  EXPECT_NE(found("locked memory"), "no such subject");
  EXPECT_NE(found("memory binding"), "no such subject");
}

}  // namespace
}  // namespace moebius::app
