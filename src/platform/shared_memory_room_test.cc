#include "platform/shared_memory_room.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace moebius::platform {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

bool Mentions(const Status& status, const std::string& part) {
  return !status && status.error().message().find(part) != std::string::npos;
}

TEST(SharedMemoryRoom, ASmallFileSystemIsAnErrorWithTheCommands) {
  SharedMemoryRoom room;
  room.folder = "/dev/shm";
  room.total = 64 * kGiB;
  room.free = 60 * kGiB;
  EXPECT_TRUE(CheckRoom(room, "pool", 60 * kGiB));
  const Status status = CheckRoom(room, "pool", 600 * kGiB + 1);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kOutOfMemory);
  // The 4 GiB that others hold stay.
  EXPECT_TRUE(Mentions(status, "mount -o remount,size=605G /dev/shm")) << status.error().message();
  EXPECT_TRUE(Mentions(status, "--shm-size=605g"));
  EXPECT_TRUE(Mentions(status, "medium: Memory and sizeLimit: 605Gi"));
  EXPECT_TRUE(Mentions(status, "pool needs 600.00 GiB"));
  EXPECT_TRUE(Mentions(status, "60.00 GiB of 64.00 GiB are free"));
}

TEST(SharedMemoryRoom, ASmallContainerIsAnErrorWithItsLimit) {
  SharedMemoryRoom room;
  room.folder = "/dev/shm";
  room.total = room.free = 640 * kGiB;
  room.memory = 20 * kGiB;
  EXPECT_TRUE(CheckRoom(room, "pool", 20 * kGiB));
  EXPECT_TRUE(Mentions(CheckRoom(room, "pool", 21 * kGiB), "20.00 GiB are available on this"));
  room.memory_limit = 32 * kGiB;
  const Status status = CheckRoom(room, "pool", 21 * kGiB);
  EXPECT_TRUE(Mentions(status, "the container's limit of 32.00 GiB"));
  EXPECT_TRUE(Mentions(status, "docker run --memory"));
}

TEST(SharedMemoryRoom, KnowsThisMachine) {
  const auto room = ReadSharedMemoryRoom();
  ASSERT_TRUE(room) << room.error().message();
  EXPECT_LE(room->free, room->total);
  EXPECT_GT(room->memory, uint64_t{0});
  EXPECT_FALSE(ReadSharedMemoryRoom("/no/such/folder"));
}

TEST(SharedMemoryRoom, TheMountDecidesOnHugePagesUnlessSysfsForbidsOrForces) {
  std::string root = testing::TempDir() + "room_XXXXXX";
  ASSERT_NE(mkdtemp(root.data()), nullptr);
  const auto write = [&](const std::string& path, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << content;
  };
  const std::string setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  EXPECT_EQ(SharedHugePages("/dev/shm", root), "");
  write(setting, "always within_size advise [never] deny force\n");
  EXPECT_EQ(SharedHugePages("/dev/shm", root), "never");
  write("/proc/self/mounts",
        "tmpfs /dev/shm tmpfs rw 0 0\nshm /dev/shm tmpfs rw,size=9k,huge=advise 0 0\n"
        "tmpfs /mnt tmpfs rw,huge=always 0 0\n");
  EXPECT_EQ(SharedHugePages("/dev/shm", root), "advise");
  EXPECT_EQ(SharedHugePages("/mnt", root), "always");
  EXPECT_EQ(SharedHugePages("/other", root), "never");
  write(setting, "always within_size advise never [deny] force\n");
  EXPECT_EQ(SharedHugePages("/dev/shm", root), "deny");
  std::filesystem::remove_all(root);
  EXPECT_TRUE(GivesHugePages("force"));
  EXPECT_TRUE(GivesHugePages("advise"));
  EXPECT_FALSE(GivesHugePages("deny"));
  EXPECT_FALSE(GivesHugePages("never"));
  EXPECT_FALSE(GivesHugePages(""));
}

}  // namespace
}  // namespace moebius::platform
