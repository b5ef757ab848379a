#include "comm/shared_communicator.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <numeric>
#include <thread>

#include "comm/sum.h"

namespace moebius::comm {
namespace {

constexpr size_t kChunk = 256;

// A group of threads over heap memory.
class Group {
 public:
  explicit Group(int size, size_t chunk = kChunk, int letters = SharedCommunicator::kNumLetters)
      : size_(size),
        chunk_(chunk),
        letters_(letters),
        lines_(SharedCommunicator::NumBytes(size, chunk, letters) / 64 + 1) {}

  void Run(const std::function<void(SharedCommunicator&)>& body,
           const std::function<RaiseHook(int)>& hook = {},
           std::chrono::milliseconds patience = std::chrono::seconds(30)) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size_; ++rank) {
      threads.emplace_back([&, rank] {
        GroupInfo info{.name = "test group", .rank = rank, .abort = &abort_};
        info.waited_ns = &waited_ns_[static_cast<size_t>(rank)];
        info.world_ranks.resize(static_cast<size_t>(size_));
        std::iota(info.world_ranks.begin(), info.world_ranks.end(), 100);
        SharedCommunicator comm(info,
                                {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * 64},
                                chunk_, hook ? hook(rank) : RaiseHook(), letters_);
        comm.BeginStep(7, Clock::now() + patience);
        body(comm);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  AbortWord& abort() { return abort_; }
  std::chrono::nanoseconds Waited(int rank) const {
    return std::chrono::nanoseconds(waited_ns_[static_cast<size_t>(rank)]);
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  int size_;
  size_t chunk_;
  int letters_;
  std::vector<Line> lines_;
  AbortWord abort_;
  std::array<std::atomic<int64_t>, 64> waited_ns_{};
};

TEST(SharedCommunicator, SplitsEvenly) {
  EXPECT_EQ(SplitEvenly(10, 4), (std::vector<int64_t>{0, 3, 6, 8, 10}));
  EXPECT_EQ(SplitEvenly(2, 3), (std::vector<int64_t>{0, 1, 2, 2}));
  EXPECT_EQ(SplitEvenly(100, 3, 32), (std::vector<int64_t>{0, 64, 96, 100}));
}

TEST(SharedCommunicator, TheTimeThatMembersWaitForOthersIsKnown) {
  Group group(4);
  constexpr auto kSleep = std::chrono::milliseconds(60);
  group.Run([&](SharedCommunicator& comm) {
    for (int turn = 0; turn < 3; ++turn) {
      if (comm.rank() == 2) std::this_thread::sleep_for(kSleep);
      comm.Barrier();
    }
  });
  for (const int rank : {0, 1, 3}) EXPECT_GE(group.Waited(rank), kSleep);
  EXPECT_LT(group.Waited(2), group.Waited(0));
}

TEST(SharedCommunicator, GathersMoreThanAChunkHolds) {
  for (const int size : {1, 2, 3, 8}) {
    Group(size).Run([&](SharedCommunicator& comm) {
      for (int turn = 0; turn < 5; ++turn) {
        std::vector<uint8_t> mine(1000, static_cast<uint8_t>(comm.rank() * 10 + turn));
        std::vector<uint8_t> all(mine.size() * static_cast<size_t>(size));
        comm.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
        ASSERT_TRUE(comm.status());
        for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i / 1000 * 10 + turn);
      }
      EXPECT_EQ(comm.bytes().gather, 5000);
    });
  }
}

TEST(SharedCommunicator, GathersColumnsAndRowsOfUnevenParts) {
  Group(3).Run([&](SharedCommunicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    std::vector<float> all(50 * 7, -1);
    const Mat out(all.data(), DType::kF32, 50, 7);
    const std::vector<int64_t> columns = {0, 3, 3, 7};  // one member has none
    const Mat mine = out.Cols(columns[rank], columns[rank + 1] - columns[rank]);
    for (int64_t row = 0; row < 50; ++row) {
      for (int64_t col = 0; col < mine.cols; ++col) {
        mine.Row<float>(row)[col] = static_cast<float>(row * 100 + columns[rank] + col);
      }
    }
    comm.AllGatherColumns(mine, out, columns);
    for (int64_t row = 0; row < 50; ++row) {
      for (int64_t col = 0; col < 7; ++col) ASSERT_EQ(out.Row<float>(row)[col], row * 100 + col);
    }
    const std::vector<int64_t> rows = {0, 30, 31, 50};
    std::vector<float> again(50 * 7, -1);
    const Mat gathered(again.data(), DType::kF32, 50, 7);
    comm.AllGatherRows(out.Rows(rows[rank], rows[rank + 1] - rows[rank]), gathered, rows);
    EXPECT_TRUE(comm.status());
    EXPECT_EQ(again, all);
  });
}

TEST(SharedCommunicator, SumsInTheOrderOfMembers) {
  Group(4).Run([&](SharedCommunicator& comm) {
    // 1e8 + 1 - 1e8 in float32 depends on the order.
    const float parts[] = {1e8F, 1, -1e8F, 0.5F};
    std::vector<float> data(40 * 3, parts[comm.rank()]);
    comm.AllReduce(Mat(data.data(), DType::kF32, 40, 3));
    const float sum = ((1e8F + 1) - 1e8F) + 0.5F;
    for (const float x : data) ASSERT_EQ(x, sum);

    std::vector<float> mine(40 * 3, static_cast<float>(comm.rank()));
    std::vector<float> out(40 * 3, -1);
    const std::vector<int64_t> rows = {0, 25, 25, 30, 40};
    const auto rank = static_cast<size_t>(comm.rank());
    const int64_t count = rows[rank + 1] - rows[rank];
    comm.ReduceScatter(Mat(mine.data(), DType::kF32, 40, 3), Mat(out.data(), DType::kF32, count, 3),
                       rows);
    for (int64_t i = 0; i < 120; ++i) {
      ASSERT_EQ(out[static_cast<size_t>(i)], i < count * 3 ? 6 : -1);
    }
    EXPECT_TRUE(comm.status());
  });
}

// Large enough for a second round, with gaps between rows and parts that end inside of a row.
TEST(SharedCommunicator, AllReduceHasTheSameBitsInTwoRounds) {
  constexpr int64_t kRows = 401;
  constexpr int64_t kCols = 333;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int size : {3, 5}) {
      const auto value = [](int member, int64_t i) {
        return std::ldexp(static_cast<float>((i * 37 + member * 101) % 257 - 128),
                          static_cast<int>((i + member) % 23) - 11);
      };
      Group(size, size_t{1} << 20).Run([&](SharedCommunicator& comm) {
        std::vector<float> memory(kRows * (kCols + 5), 77);
        const Mat data(memory.data(), dtype, kRows, kCols, kCols + 5);
        const float gap = LoadFloat(data.RowBytes(0), dtype, kCols);
        for (int64_t i = 0; i < kRows * kCols; ++i) {
          StoreFloat(data.RowBytes(i / kCols), dtype, i % kCols, value(comm.rank(), i));
        }
        comm.AllReduce(data);
        ASSERT_TRUE(comm.status());
        for (int64_t i = 0; i < kRows * kCols; ++i) {
          float sum = 0;
          for (int member = 0; member < size; ++member) {
            float rounded = 0;
            StoreFloat(&rounded, dtype, 0, value(member, i));
            sum += LoadFloat(&rounded, dtype, 0);
          }
          float expected = 0;
          StoreFloat(&expected, dtype, 0, sum);
          ASSERT_EQ(LoadFloat(data.RowBytes(i / kCols), dtype, i % kCols),
                    LoadFloat(&expected, dtype, 0))
              << i;
        }
        EXPECT_EQ(LoadFloat(data.RowBytes(0), dtype, kCols), gap);
        const auto element = static_cast<int64_t>(SizeOf(dtype));
        EXPECT_GT(comm.bytes().reduce, kRows * kCols * element);  // there was a second round
      });
    }
  }
}

TEST(SumParts, RoundsAsScalarsDo) {
  // NaN, infinities, ties to even, denormals; a tail that fills no vector.
  constexpr int64_t kCount = 2055;
  std::vector<uint16_t> a(kCount);
  std::vector<uint16_t> b(kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    a[static_cast<size_t>(i)] = static_cast<uint16_t>(i * 32003);
    b[static_cast<size_t>(i)] = static_cast<uint16_t>(i * 257 + 0x3f80);
  }
  std::vector<uint16_t> out(kCount);
  const std::byte* const parts[] = {reinterpret_cast<const std::byte*>(a.data()),
                                    reinterpret_cast<const std::byte*>(b.data())};
  SumParts(parts, DType::kBF16, kCount, reinterpret_cast<std::byte*>(out.data()));
  for (int64_t i = 0; i < kCount; ++i) {
    float sum = 0;
    for (const std::byte* part : parts) sum += LoadFloat(part, DType::kBF16, i);
    const uint16_t bits = out[static_cast<size_t>(i)];
    if (std::isnan(sum)) {
      EXPECT_TRUE(std::isnan(ToFloat(BFloat16{bits})));
    } else {
      ASSERT_EQ(bits, ToBFloat16(sum).bits) << i;
    }
  }
}

TEST(SharedCommunicator, BroadcastsAndSendsInOrder) {
  Group(3).Run([&](SharedCommunicator& comm) {
    std::vector<int> data(500, comm.rank() == 2 ? 42 : 0);
    comm.Broadcast(2, std::as_writable_bytes(std::span(data)));
    for (const int x : data) ASSERT_EQ(x, 42);
    const int next = (comm.rank() + 1) % 3;
    const int last = (comm.rank() + 2) % 3;
    for (int turn = 0; turn < 20; ++turn) {
      int letter = comm.rank() * 100 + turn;
      comm.Send(next, std::as_bytes(std::span(&letter, 1)));
      if (turn % 2 == 0) continue;  // two may lie there
      for (int back = 1; back >= 0; --back) {
        comm.Receive(last, std::as_writable_bytes(std::span(&letter, 1)));
        ASSERT_EQ(letter, last * 100 + turn - back);
      }
    }
    EXPECT_TRUE(comm.status());
  });
}

TEST(SharedCommunicator, SendsWithoutWaitingForAsManyLettersAsThereAre) {
  constexpr size_t kCount = 5 * kChunk - 7;  // five letters; eight there are
  Group(2, kChunk, 5).Run([](SharedCommunicator& comm) {
    std::vector<uint8_t> data(kCount);
    for (int turn = 0; turn < 40; ++turn) {
      if (comm.rank() == 0) {
        for (size_t i = 0; i < kCount; ++i) data[i] = static_cast<uint8_t>(i * 31 + turn);
        comm.Send(1, std::as_bytes(std::span(data)));
      }
      comm.Barrier();  // would wait for ever if Send waited for Receive
      if (comm.rank() == 0) continue;
      comm.Receive(0, std::as_writable_bytes(std::span(data)));
      for (size_t i = 0; i < kCount; ++i) ASSERT_EQ(data[i], static_cast<uint8_t>(i * 31 + turn));
    }
    EXPECT_TRUE(comm.status());
  });
}

TEST(SharedCommunicator, NamesTheMemberThatIsLate) {
  Group group(3);
  std::vector<std::string> errors(3);
  group.Run([&](SharedCommunicator& comm) {
    comm.Barrier();
    if (comm.rank() == 1) return;  // never comes again
    // Rank 0 loses patience, and it waits for rank 1 first.
    if (comm.rank() == 0) comm.BeginStep(7, Clock::now() + std::chrono::milliseconds(200));
    comm.Barrier();
    ASSERT_FALSE(comm.status());
    errors[static_cast<size_t>(comm.rank())] = comm.status().error().message();
    const Clock::time_point begin = Clock::now();
    comm.BeginStep(8, begin + std::chrono::seconds(30));
    comm.Barrier();  // gives up at once
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
  });
  EXPECT_EQ(group.abort().culprit(), 101);
  int num_named = 0;
  for (const std::string& error : errors) {
    if (error.find("rank 101 did not come in time") != std::string::npos) ++num_named;
    EXPECT_TRUE(error.empty() || error.find("barrier of test group, step 7") != std::string::npos);
  }
  EXPECT_EQ(num_named, 1);  // the other heard of it
}

TEST(SharedCommunicator, ALostSignalIsALateMember) {
  Group group(2);
  group.Run(
      [&](SharedCommunicator& comm) {
        // It waits for the next round meanwhile, and must not be the first to lose patience.
        if (comm.rank() == 1) comm.BeginStep(7, Clock::now() + std::chrono::seconds(30));
        for (int i = 0; i < 5; ++i) comm.Barrier();
        EXPECT_FALSE(comm.status());
      },
      [](int rank) { return [rank](uint32_t round) { return rank == 0 || round != 3; }; },
      std::chrono::milliseconds(200));
  EXPECT_EQ(group.abort().culprit(), 101);
}

}  // namespace
}  // namespace moebius::comm
