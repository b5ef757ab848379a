#include "platform/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

namespace moebius::platform {
namespace {

// Pools of one thread, of one thread a core, and of more threads than cores (which sleep instead of
// spinning).
std::vector<std::vector<int>> PoolShapes() {
  const std::vector<int> cpus = AllowedCpus();
  std::vector<int> many;
  for (int i = 0; i < 9; ++i) many.push_back(cpus[static_cast<size_t>(i) % cpus.size()]);
  return {{cpus[0]}, cpus, many};
}

TEST(ThreadPool, RunsEachTaskOnce) {
  for (const std::vector<int>& cpus : PoolShapes()) {
    const std::unique_ptr<ThreadPool> pool = ThreadPool::Create(cpus);
    EXPECT_EQ(pool->num_threads(), static_cast<int>(cpus.size()));
    for (const int64_t num_tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(num_tasks));
      pool->Run(num_tasks, [&](int64_t task, int thread_idx) {
        EXPECT_GE(thread_idx, 0);
        EXPECT_LT(thread_idx, pool->num_threads());
        runs[static_cast<size_t>(task)].fetch_add(1);
      });
      for (const std::atomic<int>& count : runs) ASSERT_EQ(count.load(), 1);
    }
  }
}

TEST(ThreadPool, RangesCoverTheCountAndRespectTheGrain) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::Create();
  for (const int64_t count : {0, 1, 63, 64, 65, 100003}) {
    std::vector<std::atomic<int>> touched(static_cast<size_t>(count));
    std::atomic<int64_t> num_ranges{0};
    constexpr int64_t kGrain = 64;
    pool->RunRanges(count, kGrain, [&](int64_t begin, int64_t end, int) {
      ASSERT_LT(begin, end);
      num_ranges.fetch_add(1);
      for (int64_t i = begin; i < end; ++i) touched[static_cast<size_t>(i)].fetch_add(1);
    });
    for (const std::atomic<int>& times : touched) ASSERT_EQ(times.load(), 1);
    EXPECT_LE(num_ranges.load(), (count + kGrain - 1) / kGrain);
  }
}

// Each list reads what the last one wrote, with plain (not atomic) memory: what Run returns from
// must be visible to the next list on any thread. ThreadSanitizer sees a missing edge; an optimised
// build sees a wrong sum.
TEST(ThreadPool, EachListSeesTheWritesOfTheLast) {
  for (const std::vector<int>& cpus : PoolShapes()) {
    const std::unique_ptr<ThreadPool> pool = ThreadPool::Create(cpus);
    constexpr int64_t kWidth = 64;
    const int num_lists = cpus.size() > AllowedCpus().size() ? 300 : 1500;
    std::vector<int64_t> values(kWidth, 0);
    std::vector<int64_t> next(kWidth, 0);
    for (int list = 0; list < num_lists; ++list) {
      pool->Run(kWidth, [&](int64_t task, int) {
        // The neighbour's value was most likely written by another thread.
        next[static_cast<size_t>(task)] = values[static_cast<size_t>((task + 1) % kWidth)] + 1;
      });
      values.swap(next);  // on the owner's thread, between lists
    }
    for (const int64_t value : values) ASSERT_EQ(value, num_lists);
  }
}

// Uneven tasks and a pool that is built and torn down: no list starts before it should, no worker
// is left behind.
TEST(ThreadPool, SurvivesManyShortLives) {
  for (const std::vector<int>& cpus : PoolShapes()) {
    for (int life = 0; life < 30; ++life) {
      const std::unique_ptr<ThreadPool> pool = ThreadPool::Create(cpus);
      int64_t sum = 0;
      std::vector<int64_t> of_thread(static_cast<size_t>(pool->num_threads()), 0);
      for (int list = 0; list < life; ++list) {
        pool->Run(5 + list % 3, [&](int64_t task, int thread_idx) {
          volatile int64_t work = 0;
          for (int64_t i = 0; i < task * 50; ++i) work = work + i;
          of_thread[static_cast<size_t>(thread_idx)] += task;  // one owner a slot: no lock
        });
        const int64_t n = 5 + list % 3;
        sum += n * (n - 1) / 2;
      }
      int64_t total = 0;
      for (const int64_t part : of_thread) total += part;
      ASSERT_EQ(total, sum);
    }
  }
}

TEST(ThreadPool, APinToACpuThatIsNotThereIsOnlyAWarning) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::Create({0, 1023});
  std::atomic<int> count{0};
  pool->Run(100, [&](int64_t, int) { count.fetch_add(1); });
  EXPECT_EQ(count.load(), 100);
}

TEST(ThreadPool, AllowedCpusAreAscendingAndNotEmpty) {
  const std::vector<int> cpus = AllowedCpus();
  ASSERT_FALSE(cpus.empty());
  for (size_t i = 1; i < cpus.size(); ++i) EXPECT_LT(cpus[i - 1], cpus[i]);
}

}  // namespace
}  // namespace moebius::platform
