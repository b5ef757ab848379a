#include "platform/named_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

namespace moebius::platform {
namespace {

// No two test programs that run at once share a name, and none finds what an older one left.
std::string NameOf(const char* test) { return fmt::format("moebius_test_{}_{}", getpid(), test); }

std::string PathOf(const std::string& name) {
  return std::string(kSharedMemoryFolder) + "/" + name;
}

bool Says(const Error& error, const std::string& part) {
  return error.message().find(part) != std::string::npos;
}

constexpr char kHeldName[] = "MOEBIUS_TEST_HELD_SEGMENT";

// Not a test: what the process does that the tests below start, and kill.
TEST(NamedMemoryOwner, DISABLED_HoldsASegmentUntilItIsKilled) {
  const char* name = std::getenv(kHeldName);
  if (name == nullptr) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto memory = NamedMemory::Create(name, 5000);
  if (memory) {
    memory->writable()[0] = std::byte{7};
    memory->Publish();
  }
  while (true) pause();
}

// Another process that owns a segment.
class Owner {
 public:
  explicit Owner(const std::string& name) {
    std::string program = "/proc/self/exe";
    std::string filter = "--gtest_filter=NamedMemoryOwner.*";
    std::string disabled = "--gtest_also_run_disabled_tests";
    std::string variable = std::string(kHeldName) + "=" + name;
    char* arguments[] = {program.data(), filter.data(), disabled.data(), nullptr};
    char* variables[] = {variable.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, variables), 0);
    posix_spawn_file_actions_destroy(&actions);
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!NamedMemory::Open(name) && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  ~Owner() { Kill(); }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  pid_t pid() const { return pid_; }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
};

TEST(NamedMemory, IsReadByOthersOnceItIsPublishedAndGoneWithItsOwner) {
  const std::string name = NameOf("published");
  auto owner = NamedMemory::Create(name, 5000);
  ASSERT_TRUE(owner) << owner.error().message();
  ASSERT_GE(owner->bytes().size(), size_t{5000});
  EXPECT_TRUE(std::ranges::all_of(owner->bytes(), [](std::byte b) { return b == std::byte{0}; }));
  owner->writable()[4999] = std::byte{42};

  const auto early = NamedMemory::Open(name);
  ASSERT_FALSE(early);
  EXPECT_TRUE(Says(early.error(), fmt::format("pid {}) has not filled it yet", getpid())));

  owner->Publish();
  const auto reader = NamedMemory::Open(name);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_EQ(reader->bytes().size(), owner->bytes().size());
  EXPECT_EQ(reader->bytes()[4999], std::byte{42});
  struct stat status{};
  ASSERT_EQ(stat(PathOf(name).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, mode_t{0600});

  *owner = NamedMemory();
  EXPECT_EQ(NamedMemory::Open(name).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(reader->bytes()[4999], std::byte{42}) << "a mapping outlives the name";
}

TEST(NamedMemory, EveryPageIsReservedBeforeAnybodyWrites) {
  const std::string name = NameOf("reserved");
  const size_t num_bytes = size_t{3} << 20;
  const auto owner = NamedMemory::Create(name, num_bytes);
  ASSERT_TRUE(owner) << owner.error().message();
  const auto info = InspectSegment(name);
  ASSERT_TRUE(info);
  EXPECT_GE(info->reserved_bytes, num_bytes);
  EXPECT_EQ(info->state, SegmentState::kLive);
  EXPECT_EQ(info->owner, getpid());
}

TEST(NamedMemory, ALiveOneIsRefusedWithItsPid) {
  const std::string name = NameOf("live");
  const auto mine = NamedMemory::Create(name, 4096);
  ASSERT_TRUE(mine) << mine.error().message();
  const auto second = NamedMemory::Create(name, 4096);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(Says(second.error(), fmt::format("(pid {})", getpid()))) << second.error().message();
  EXPECT_TRUE(InspectSegment(name)) << "the refused one took nothing away";
  EXPECT_FALSE(RemoveLeftOver(name).value());
}

TEST(NamedMemory, WhatAKilledProcessLeftIsKnownAndRemoved) {
  const std::string name = NameOf("killed");
  Owner owner(name);
  const auto live = InspectSegment(name);
  ASSERT_TRUE(live);
  EXPECT_EQ(live->state, SegmentState::kLive);
  EXPECT_EQ(live->owner, owner.pid());
  const auto refused = NamedMemory::Create(name, 4096);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(Says(refused.error(), fmt::format("(pid {})", owner.pid())));
  const auto reader = NamedMemory::Open(name);
  ASSERT_TRUE(reader) << reader.error().message();

  const pid_t pid = owner.pid();
  owner.Kill();
  EXPECT_EQ(reader->bytes()[0], std::byte{7});
  const auto left = InspectSegment(name);
  ASSERT_TRUE(left);
  EXPECT_EQ(left->state, SegmentState::kLeftOver) << "though somebody still maps it";
  EXPECT_EQ(left->owner, pid);
  const auto dead = NamedMemory::Open(name);
  ASSERT_FALSE(dead);
  EXPECT_TRUE(Says(dead.error(), "is dead")) << dead.error().message();

  const auto mine = NamedMemory::Create(name, 4096);
  ASSERT_TRUE(mine) << mine.error().message();
  EXPECT_EQ(InspectSegment(name)->owner, getpid());
  EXPECT_EQ(mine->bytes()[0], std::byte{0});
}

TEST(NamedMemory, OneOfSeveralRemoversRemoves) {
  const std::string name = NameOf("removers");
  Owner(name).Kill();
  std::atomic<int> num_removed{0};
  std::vector<std::thread> removers;
  for (int i = 0; i < 4; ++i) {
    removers.emplace_back([&] { num_removed += RemoveLeftOver(name).value() ? 1 : 0; });
  }
  for (std::thread& remover : removers) remover.join();
  EXPECT_EQ(num_removed, 1);
  EXPECT_FALSE(InspectSegment(name));
}

TEST(NamedMemory, WhatAnotherProgramMadeIsNeitherOpenedNorRemoved) {
  const std::string name = NameOf("foreign");
  std::ofstream(PathOf(name)) << std::string(8192, 'x');
  EXPECT_EQ(InspectSegment(name)->state, SegmentState::kForeign);
  EXPECT_FALSE(RemoveLeftOver(name).value());
  EXPECT_EQ(NamedMemory::Open(name).error().code(), ErrorCode::kCorrupt);
  const auto refused = NamedMemory::Create(name, 4096);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(Says(refused.error(), "another program")) << refused.error().message();
  EXPECT_EQ(unlink(PathOf(name).c_str()), 0);
}

TEST(NamedMemory, OneThatWasCutIsRefused) {
  const std::string name = NameOf("cut");
  auto owner = NamedMemory::Create(name, 16384);
  ASSERT_TRUE(owner) << owner.error().message();
  owner->Publish();
  ASSERT_EQ(truncate(PathOf(name).c_str(), 8192), 0);
  EXPECT_EQ(NamedMemory::Open(name).error().code(), ErrorCode::kCorrupt);
  ASSERT_EQ(truncate(PathOf(name).c_str(), 100), 0);
  EXPECT_EQ(NamedMemory::Open(name).error().code(), ErrorCode::kCorrupt);
}

TEST(NamedMemory, TooLargeIsAnErrorWithTheMountLineAndLeavesNothing) {
  const std::string name = NameOf("large");
  const auto room = ReadSharedMemoryRoom();
  ASSERT_TRUE(room) << room.error().message();
  const size_t beyond = std::max(room->free, room->memory) + (uint64_t{1} << 30);
  const auto memory = NamedMemory::Create(name, beyond);
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_TRUE(Says(memory.error(), "mount -o remount,size=")) << memory.error().message();
  EXPECT_FALSE(InspectSegment(name));
  EXPECT_EQ(NamedMemory::Create(name, size_t{1} << 60).error().code(), ErrorCode::kOutOfMemory);
}

TEST(NamedMemory, BadNamesAndFoldersAreErrors) {
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(".hidden"),
                                  std::string(256, 'a'), std::string("..")}) {
    EXPECT_EQ(NamedMemory::Create(name, 4096).error().code(), ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(NamedMemory::Open(name).error().code(), ErrorCode::kInvalidArgument) << name;
  }
  const auto nowhere = NamedMemory::Create("a", 4096, testing::TempDir() + "no_such_folder");
  ASSERT_FALSE(nowhere);
  EXPECT_TRUE(Says(nowhere.error(), "no_such_folder"));
}

}  // namespace
}  // namespace moebius::platform
