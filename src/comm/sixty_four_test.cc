// Every collective among as many members as a machine may have ranks.
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "comm/shared_communicator.h"

namespace moebius::comm {
namespace {

constexpr int kMembers = 64;
constexpr size_t kChunkBytes = 8192;

// body(communicator) on a thread each.
template <typename Body>
void RunMembers(const Body& body) {
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines(SharedCommunicator::NumBytes(kMembers, kChunkBytes) / sizeof(Line) + 1);
  AbortWord abort;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kMembers; ++rank) {
    threads.emplace_back([&, rank] {
      GroupInfo info{.name = "64 members", .rank = rank, .abort = &abort};
      info.world_ranks.resize(kMembers);
      std::iota(info.world_ranks.begin(), info.world_ranks.end(), 0);
      SharedCommunicator comm(
          info, {reinterpret_cast<std::byte*>(lines.data()), lines.size() * sizeof(Line)},
          kChunkBytes);
      comm.BeginStep(1, Clock::now() + std::chrono::minutes(2));
      body(comm);
      EXPECT_TRUE(comm.status()) << comm.status().error().message();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Exact in float32, whatever is added: all sums below stay under 2^24.
float ValueOf(int member, int64_t i) { return static_cast<float>((i * 7 + member * 3) % 101); }
float SumOf(int64_t i) {
  float sum = 0;
  for (int member = 0; member < kMembers; ++member) sum += ValueOf(member, i);
  return sum;
}

TEST(SixtyFourMembers, GatherBytes) {
  RunMembers([](SharedCommunicator& comm) {
    std::vector<uint8_t> mine(kChunkBytes + 100, static_cast<uint8_t>(comm.rank() * 3));
    std::vector<uint8_t> all(mine.size() * kMembers);
    for (int turn = 0; turn < 3; ++turn) {
      comm.Barrier();
      comm.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
    }
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i], static_cast<uint8_t>(i / mine.size() * 3));
    }
  });
}

TEST(SixtyFourMembers, GatherRowsAndColumns) {
  RunMembers([](SharedCommunicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    const std::vector<int64_t> bounds = SplitEvenly(150, kMembers);  // two or three each
    std::vector<float> all(150 * 150, -1);
    const Mat matrix(all.data(), DType::kF32, 150, 150);
    const Mat mine = matrix.Cols(bounds[rank], bounds[rank + 1] - bounds[rank]);
    for (int64_t row = 0; row < 150; ++row) {
      for (int64_t col = 0; col < mine.cols; ++col) {
        mine.Row<float>(row)[col] = static_cast<float>(row * 150 + bounds[rank] + col);
      }
    }
    comm.AllGatherColumns(mine, matrix, bounds);
    for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<float>(i));
    std::vector<float> again(150 * 150, -1);
    comm.AllGatherRows(matrix.Rows(bounds[rank], bounds[rank + 1] - bounds[rank]),
                       Mat(again.data(), DType::kF32, 150, 150), bounds);
    EXPECT_EQ(again, all);
  });
}

TEST(SixtyFourMembers, Sum) {
  RunMembers([](SharedCommunicator& comm) {
    // Few rows: everybody adds up everything. Many: each its part, and a second round.
    for (const int64_t num_rows : {2, 64}) {
      constexpr int64_t kCols = 61;
      std::vector<float> data(static_cast<size_t>(num_rows * kCols));
      const auto fill = [&] {
        for (size_t i = 0; i < data.size(); ++i) {
          data[i] = ValueOf(comm.rank(), static_cast<int64_t>(i));
        }
      };
      fill();
      comm.AllReduce(Mat(data.data(), DType::kF32, num_rows, kCols));
      for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], SumOf(static_cast<int64_t>(i)));
      fill();
      const std::vector<int64_t> bounds = SplitEvenly(num_rows, kMembers);
      const int64_t first = bounds[static_cast<size_t>(comm.rank())];
      const int64_t count = bounds[static_cast<size_t>(comm.rank()) + 1] - first;
      std::vector<float> out(static_cast<size_t>(count * kCols) + 1, -1);
      comm.ReduceScatter(Mat(data.data(), DType::kF32, num_rows, kCols),
                         Mat(out.data(), DType::kF32, count, kCols), bounds);
      for (int64_t i = 0; i < count * kCols; ++i) {
        ASSERT_EQ(out[static_cast<size_t>(i)], SumOf(first * kCols + i));
      }
    }
  });
}

TEST(SixtyFourMembers, BroadcastAndLetters) {
  RunMembers([](SharedCommunicator& comm) {
    for (const int root : {0, 63, 17}) {
      std::vector<int> data(10000, comm.rank() == root ? root + 1 : 0);
      comm.Broadcast(root, std::as_writable_bytes(std::span(data)));
      for (const int x : data) ASSERT_EQ(x, root + 1);
    }
    // To everybody, and from everybody.
    for (int far = 1; far < kMembers; ++far) {
      const int letter[] = {comm.rank(), far};
      comm.Send((comm.rank() + far) % kMembers, std::as_bytes(std::span(letter)));
    }
    for (int far = 1; far < kMembers; ++far) {
      const int from = (comm.rank() + kMembers - far) % kMembers;
      int letter[2] = {};
      comm.Receive(from, std::as_writable_bytes(std::span(letter)));
      ASSERT_EQ(letter[0], from);
      ASSERT_EQ(letter[1], far);
    }
  });
}

}  // namespace
}  // namespace moebius::comm
