// Every rank's files come to every other one, from threads and from processes; what comes from
// elsewhere counts nowhere; and whatever happens, no descriptor stays open.
#include "comm/descriptor_mail.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>

#include "comm/shared_communicator.h"
#include "comm/testing/processes.h"

namespace moebius::comm {
namespace {

using platform::FileDescriptor;
using Descriptors = DescriptorMail::Descriptors;
using Mails = Result<std::vector<Descriptors>>;

WaitBound Within(std::chrono::milliseconds time, const AbortWord* abort = nullptr) {
  return {.deadline = Clock::now() + time, .abort = abort};
}
WaitBound Soon() { return Within(std::chrono::seconds(30)); }

int64_t NumOpen() {
  DIR* const folder = opendir("/proc/self/fd");
  int64_t count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

// A file that holds a number.
FileDescriptor FileOf(int value) {
  FileDescriptor file(memfd_create("a test", MFD_CLOEXEC));
  EXPECT_EQ(pwrite(file.get(), &value, sizeof(value), 0), ssize_t{sizeof(value)});
  return file;
}

int ValueOf(const FileDescriptor& file) {
  int value = -1;
  return pread(file.get(), &value, sizeof(value), 0) == ssize_t{sizeof(value)} ? value : -1;
}

// Rank r sends r % 3 + 1 files: 10 r, 10 r + 1, ...
Descriptors FilesOf(int rank) {
  Descriptors files;
  for (int i = 0; i <= rank % 3; ++i) files.push_back(FileOf(10 * rank + i));
  return files;
}

bool IsRight(const Mails& mails, int rank, size_t num_ranks) {
  if (!mails || mails->size() != num_ranks) return false;
  for (int r = 0; r < static_cast<int>(num_ranks); ++r) {
    const Descriptors& files = (*mails)[static_cast<size_t>(r)];
    if (files.size() != static_cast<size_t>(r == rank ? 0 : r % 3 + 1)) return false;
    for (size_t i = 0; i < files.size(); ++i) {
      if (ValueOf(files[i]) != 10 * r + static_cast<int>(i)) return false;
      if ((fcntl(files[i].get(), F_GETFD) & FD_CLOEXEC) == 0) return false;
    }
  }
  return true;
}

struct Mailboxes {
  explicit Mailboxes(size_t num_ranks) {
    for (size_t r = 0; r < num_ranks; ++r) {
      Result<DescriptorMail> box = DescriptorMail::Open();
      EXPECT_TRUE(box) << box.error().message();
      addresses.push_back(box->address());
      boxes.push_back(std::move(*box));
    }
  }
  std::vector<DescriptorMail> boxes;
  std::vector<MailAddress> addresses;
};

TEST(DescriptorMail, EveryFileComesToEveryThread) {
  // More letters for one mailbox than wait in it.
  constexpr size_t kRanks = 24;
  const int64_t num_open = NumOpen();
  {
    Mailboxes ranks(kRanks);
    std::vector<std::thread> threads;
    for (size_t r = 0; r < kRanks; ++r) {
      threads.emplace_back([&, r] {
        const int rank = static_cast<int>(r);
        if (rank == 5) std::this_thread::sleep_for(std::chrono::milliseconds(50));
        const Mails mails = ranks.boxes[r].Exchange(rank, ranks.addresses, FilesOf(rank), Soon());
        EXPECT_TRUE(mails) << mails.error().message();
        EXPECT_TRUE(IsRight(mails, rank, kRanks)) << rank;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(NumOpen(), num_open);
}

// What a process does with its part; true: as it should be.
bool TradeInProcess(int rank, size_t num_ranks, SharedCommunicator& world) {
  const int64_t num_open = NumOpen();
  bool is_right = false;
  {
    Result<DescriptorMail> box = DescriptorMail::Open();
    if (!box) return false;
    std::vector<MailAddress> all(num_ranks);
    world.AllGather(std::as_bytes(std::span(&box->address(), 1)),
                    std::as_writable_bytes(std::span(all)));
    // Files that their owner has closed live in the letters.
    const Mails mails = box->Exchange(rank, all, FilesOf(rank), Soon());
    is_right = world.status() && IsRight(mails, rank, num_ranks);
  }
  return is_right && NumOpen() == num_open;
}

TEST(DescriptorMail, EveryFileComesToEveryProcess) {
  constexpr int kRanks = 5;
  constexpr size_t kChunk = 1024;
  const size_t bytes = SharedCommunicator::NumBytes(kRanks, kChunk);
  void* const map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(map, MAP_FAILED);
  std::vector<pid_t> pids;
  for (int rank = 0; rank < kRanks; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      GroupInfo info{.name = "processes", .rank = rank};
      info.world_ranks.resize(kRanks);
      std::iota(info.world_ranks.begin(), info.world_ranks.end(), 0);
      SharedCommunicator world(info, std::span(static_cast<std::byte*>(map), bytes), kChunk);
      world.BeginStep(0, Clock::now() + std::chrono::seconds(30));
      _exit(TradeInProcess(rank, kRanks, world) ? 0 : 1);
    }
    pids.push_back(pid);
  }
  testing::ExpectAllEndWell(pids);
  munmap(map, bytes);
}

TEST(DescriptorMail, WhoDoesNotComeIsNamed) {
  const int64_t num_open = NumOpen();
  {
    Mailboxes ranks(3);
    const auto trade = [&](int rank, const WaitBound& bound) {
      return ranks.boxes[static_cast<size_t>(rank)].Exchange(rank, ranks.addresses, FilesOf(rank),
                                                             bound);
    };
    // Each has the other's letter, none that of rank 2.
    for (const int rank : {0, 1}) {
      const Mails mails = trade(rank, Within(std::chrono::milliseconds(rank == 0 ? 10 : 100)));
      ASSERT_FALSE(mails);
      EXPECT_EQ(mails.error().code(), ErrorCode::kDeadline);
      const std::string& message = mails.error().message();
      EXPECT_EQ(message.rfind(rank == 0 ? "rank 1 " : "rank 2 ", 0), 0U) << message;
      EXPECT_NE(message.find(rank == 0 ? "within 0.0 s" : "within 0.1 s"), std::string::npos);
    }
    AbortWord abort;
    abort.Set(2, 2);
    const Mails given_up = trade(0, Within(std::chrono::seconds(30), &abort));
    ASSERT_FALSE(given_up);
    EXPECT_EQ(given_up.error().code(), ErrorCode::kUnavailable);
    EXPECT_NE(given_up.error().message().find("rank 2 saw"), std::string::npos);
    // One that has gone.
    {
      const DescriptorMail gone = std::move(ranks.boxes[2]);
    }
    const Mails refused = trade(0, Soon());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(refused.error().message().rfind("rank 2 ", 0), 0U) << refused.error().message();
  }
  EXPECT_EQ(NumOpen(), num_open);
}

// A letter as a rank would write it, from a process that is none.
void WriteAsStranger(const MailAddress& to, int as_rank) {
  const pid_t pid = fork();
  if (pid == 0) {
    const int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, to.name.data(), static_cast<size_t>(to.name_bytes));
    const int32_t letter[2] = {as_rank, 1};
    iovec text = {const_cast<int32_t*>(letter), sizeof(letter)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_name = &name;
    message.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path)) +
                          static_cast<socklen_t>(to.name_bytes);
    message.msg_iov = &text;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    const int file = memfd_create("a stranger's", MFD_CLOEXEC);
    std::memcpy(CMSG_DATA(head), &file, sizeof(int));
    _exit(sendmsg(own, &message, 0) == sizeof(letter) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(DescriptorMail, AStrangersLetterIsDropped) {
  const int64_t num_open = NumOpen();
  {
    Mailboxes ranks(2);
    WriteAsStranger(ranks.addresses[0], 1);
    WriteAsStranger(ranks.addresses[0], 77);
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      EXPECT_TRUE(IsRight(ranks.boxes[1].Exchange(1, ranks.addresses, FilesOf(1), Soon()), 1, 2));
    });
    EXPECT_TRUE(IsRight(ranks.boxes[0].Exchange(0, ranks.addresses, FilesOf(0), Soon()), 0, 2));
    other.join();
    EXPECT_EQ(NumOpen(), num_open + 2);  // the mailboxes
  }
  EXPECT_EQ(NumOpen(), num_open);
}

}  // namespace
}  // namespace moebius::comm
