#include "platform/shared_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace moebius::platform {
namespace {

TEST(SharedMemory, IsZeroedAndOfWholePages) {
  const auto memory = SharedMemory::Create("test", 5000);
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->bytes().size() % static_cast<size_t>(sysconf(_SC_PAGESIZE)), size_t{0});
  EXPECT_GE(memory->bytes().size(), size_t{5000});
  EXPECT_TRUE(std::ranges::all_of(memory->bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(SharedMemory, AnotherMappingSeesWhatIsWritten) {
  const auto memory = SharedMemory::Create("test", 4096);
  ASSERT_TRUE(memory);
  const auto other = SharedMemory::Open(fcntl(memory->descriptor(), F_DUPFD_CLOEXEC, 0));
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_NE(other->bytes().data(), memory->bytes().data());
  other->bytes()[17] = std::byte{42};
  EXPECT_EQ(memory->bytes()[17], std::byte{42});
  const pid_t child = fork();
  if (child == 0) {
    memory->bytes()[18] = std::byte{43};
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(other->bytes()[18], std::byte{43});
}

TEST(SharedMemory, KeepsItsSizeAndIsClosedByExec) {
  const auto memory = SharedMemory::Create("test", 4096);
  ASSERT_TRUE(memory);
  EXPECT_NE(ftruncate(memory->descriptor(), 0), 0);
  EXPECT_NE(ftruncate(memory->descriptor(), 1 << 20), 0);
  EXPECT_EQ(fcntl(memory->descriptor(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(SharedMemory, OtherDescriptorsAreRefused) {
  const auto file = SharedMemory::Open(open("/dev/null", O_RDWR | O_CLOEXEC));
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(SharedMemory::Open(-1));
  const auto huge = SharedMemory::Create("test", size_t{1} << 60);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code(), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace moebius::platform
