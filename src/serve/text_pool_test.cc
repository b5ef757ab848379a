#include "serve/text_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <latch>
#include <mutex>
#include <string>

namespace moebius::serve {
namespace {

constexpr size_t kLarge = 1 << 20;

// Occupies one thread of a pool until it is let go.
class Blocker {
 public:
  TextPool::Job Job() {
    return [this] {
      has_begun_.set_value();
      go_.get_future().wait();
    };
  }
  void WaitUntilRunning() { has_begun_.get_future().wait(); }
  void LetGo() { go_.set_value(); }

 private:
  std::promise<void> has_begun_;
  std::promise<void> go_;
};

struct Order {
  TextPool::Job Note(const std::string& name, std::latch* done) {
    return [this, name, done] {
      {
        const std::lock_guard lock(mutex);
        names += name;
      }
      done->count_down();
    };
  }
  std::mutex mutex;
  std::string names;
};

TEST(TextPool, SmallCallsPassLargeOnesThatWaitAndOldWorkPassesBoth) {
  TextPool pool(1, 100, 1 << 30);
  Blocker blocker;
  ASSERT_TRUE(pool.TryPost(1, blocker.Job()));
  blocker.WaitUntilRunning();
  Order order;
  std::latch done(4);
  ASSERT_TRUE(pool.TryPost(100 * kLarge, order.Note("L", &done)));
  ASSERT_TRUE(pool.TryPost(10 * kLarge, order.Note("m", &done)));
  ASSERT_TRUE(pool.TryPost(10, order.Note("s", &done)));
  pool.Post(order.Note("!", &done));
  EXPECT_EQ(pool.num_queued(), 4);
  blocker.LetGo();
  done.wait();
  EXPECT_EQ(order.names, "!smL");
}

// Its own expected duration is how long a large call can be passed.
TEST(TextPool, ALargeCallIsNotPassedForEver) {
  TextPool pool(1, 100, 1 << 30);
  Blocker blocker;
  ASSERT_TRUE(pool.TryPost(1, blocker.Job()));
  blocker.WaitUntilRunning();
  Order order;
  std::latch done(2);
  ASSERT_TRUE(pool.TryPost(TextPool::kLargeBytes + 1, order.Note("L", &done)));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_TRUE(pool.TryPost(10, order.Note("s", &done)));
  blocker.LetGo();
  done.wait();
  EXPECT_EQ(order.names, "Ls");
}

TEST(TextPool, OneThreadIsKeptForSmallCalls) {
  TextPool pool(2, 100, 1 << 30);
  Blocker large;
  ASSERT_TRUE(pool.TryPost(kLarge, large.Job()));
  large.WaitUntilRunning();
  std::atomic<bool> second_ran{false};
  ASSERT_TRUE(pool.TryPost(kLarge, [&] { second_ran = true; }));
  std::promise<void> small;
  ASSERT_TRUE(pool.TryPost(10, [&] { small.set_value(); }));
  small.get_future().wait();
  EXPECT_FALSE(second_ran);
  EXPECT_EQ(pool.num_queued(), 1);
  std::promise<void> last;
  ASSERT_TRUE(pool.TryPost(2 * kLarge, [&] { last.set_value(); }));
  large.LetGo();
  last.get_future().wait();
  EXPECT_TRUE(second_ran);
}

TEST(TextPool, RefusesWhatIsTooMuchButNotWhatItOwes) {
  TextPool pool(1, 2, 1000);
  Blocker blocker;
  ASSERT_TRUE(pool.TryPost(5000, blocker.Job()));  // alone, any size may come
  blocker.WaitUntilRunning();
  EXPECT_TRUE(pool.TryPost(600, [] {}));
  EXPECT_FALSE(pool.TryPost(600, [] {})) << "bytes";
  EXPECT_TRUE(pool.TryPost(100, [] {}));
  EXPECT_FALSE(pool.TryPost(1, [] {})) << "jobs";
  std::promise<void> owed;
  pool.Post([&] { owed.set_value(); });
  blocker.LetGo();
  owed.get_future().wait();
}

TEST(TextPool, StopDropsWhatWaits) {
  TextPool pool(1, 10, 1000);
  Blocker blocker;
  ASSERT_TRUE(pool.TryPost(1, blocker.Job()));
  blocker.WaitUntilRunning();
  const auto owned = std::make_shared<int>(1);
  ASSERT_TRUE(pool.TryPost(1, [owned] { FAIL(); }));
  pool.Post([owned] { FAIL(); });
  auto stopped = std::async(std::launch::async, [&] { pool.Stop(); });
  while (owned.use_count() > 1) std::this_thread::yield();
  blocker.LetGo();
  stopped.get();
  EXPECT_FALSE(pool.TryPost(1, [] { FAIL(); }));
}

}  // namespace
}  // namespace moebius::serve
