// Every collective between processes over memory that they map: what threads get elsewhere.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <numeric>
#include <vector>

#include "comm/shared_communicator.h"
#include "comm/testing/processes.h"

namespace moebius::comm {
namespace {

constexpr int kProcesses = 4;
constexpr size_t kChunkOfProcesses = 256;
constexpr int64_t kRowsOfAll = 50;
constexpr int64_t kColsOfAll = 6;

std::vector<float> Filled(float value) {
  return std::vector<float>(static_cast<size_t>(kRowsOfAll * kColsOfAll), value);
}

Mat View(std::vector<float>& data) { return Mat(data.data(), DType::kF32, kRowsOfAll, kColsOfAll); }

// One turn of all of them; false: a value was wrong or a member was late.
bool CollectAll(SharedCommunicator& comm, int turn) {
  const auto me = static_cast<float>(comm.rank() + turn);
  const float sum = kProcesses * (kProcesses - 1) / 2 + kProcesses * static_cast<float>(turn);
  bool right = true;
  const auto expect = [&](const std::vector<float>& data, const auto& value) {
    for (size_t i = 0; i < data.size(); ++i) right = right && data[i] == value(i);
  };
  const std::vector<int64_t> begin = {0, 20, 20, 31, kRowsOfAll};  // one member has no rows
  const std::vector<int64_t> columns = {0, 1, 3, 5, kColsOfAll};
  const auto rank = static_cast<size_t>(comm.rank());
  const auto member_of = [](const std::vector<int64_t>& bounds, int64_t at) {
    return std::ranges::upper_bound(bounds, at) - bounds.begin() - 1;
  };

  std::vector<float> all(static_cast<size_t>(kProcesses), -1);
  comm.AllGather(std::as_bytes(std::span(&me, 1)), std::as_writable_bytes(std::span(all)));
  expect(all, [&](size_t i) { return static_cast<float>(i) + static_cast<float>(turn); });

  std::vector<float> mine = Filled(me);
  std::vector<float> out = Filled(-1);
  comm.AllGatherRows(View(mine).Rows(0, begin[rank + 1] - begin[rank]), View(out), begin);
  expect(out, [&](size_t i) {
    return static_cast<float>(member_of(begin, static_cast<int64_t>(i) / kColsOfAll) + turn);
  });
  out = Filled(-1);
  comm.AllGatherColumns(View(mine).Cols(0, columns[rank + 1] - columns[rank]), View(out), columns);
  expect(out, [&](size_t i) {
    return static_cast<float>(member_of(columns, static_cast<int64_t>(i) % kColsOfAll) + turn);
  });
  comm.AllReduce(View(mine));
  expect(mine, [&](size_t) { return sum; });

  mine = Filled(me);
  std::vector<float> part(static_cast<size_t>((begin[rank + 1] - begin[rank]) * kColsOfAll), -1);
  comm.ReduceScatter(
      View(mine), Mat(part.data(), DType::kF32, begin[rank + 1] - begin[rank], kColsOfAll), begin);
  expect(part, [&](size_t) { return sum; });

  const int root = turn % kProcesses;
  comm.Broadcast(root, std::as_writable_bytes(std::span(mine)));
  expect(mine, [&](size_t) { return static_cast<float>(root + turn); });

  comm.Send((comm.rank() + 1) % kProcesses, std::as_bytes(std::span(&me, 1)));
  float letter = -1;
  const int last = (comm.rank() + kProcesses - 1) % kProcesses;
  comm.Receive(last, std::as_writable_bytes(std::span(&letter, 1)));
  right = right && letter == static_cast<float>(last + turn);
  comm.Barrier();
  return right && comm.status();
}

TEST(Processes, CollectAsThreadsDo) {
  constexpr size_t kHead = 64;
  static_assert(sizeof(AbortWord) <= kHead);
  const size_t bytes = kHead + SharedCommunicator::NumBytes(kProcesses, kChunkOfProcesses);
  void* const map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(map, MAP_FAILED);
  auto* const abort = new (map) AbortWord;
  const std::span memory(static_cast<std::byte*>(map) + kHead, bytes - kHead);
  std::vector<pid_t> pids;
  for (int rank = 0; rank < kProcesses; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      GroupInfo info{.name = "processes", .rank = rank, .abort = abort};
      info.world_ranks.resize(kProcesses);
      std::iota(info.world_ranks.begin(), info.world_ranks.end(), 0);
      SharedCommunicator comm(info, memory, kChunkOfProcesses);
      bool right = true;
      for (int turn = 0; turn < 50; ++turn) {
        comm.BeginStep(turn, Clock::now() + std::chrono::seconds(30));
        right = right && CollectAll(comm, turn);
      }
      _exit(right ? 0 : 1);
    }
    pids.push_back(pid);
  }
  testing::ExpectAllEndWell(pids);
  munmap(map, bytes);
}

}  // namespace
}  // namespace moebius::comm
