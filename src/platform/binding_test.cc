#include "platform/binding.h"

#include <gtest/gtest.h>

#include <thread>

#include "platform/thread_pool.h"
#include "platform/topology.h"

namespace moebius::platform {
namespace {

// On a thread of its own: bindings last.
template <typename Body>
void OnAThread(const Body& body) {
  std::thread(body).join();
}

TEST(Binding, AThreadRunsWhereItWasBound) {
  const std::vector<int> all = AllowedCpus();
  for (const std::vector<int>& cpus : {std::vector<int>{all.back()}, all}) {
    OnAThread([&] {
      const Status bound = BindThread(pthread_self(), cpus, "the test");
      ASSERT_TRUE(bound) << bound.error().message();
      EXPECT_EQ(CpusOfThread(pthread_self()), cpus);
      OnAThread([&] { EXPECT_EQ(CpusOfThread(pthread_self()), cpus); });  // inherited
    });
  }
}

TEST(Binding, WhatTheSystemDoesNotHaveIsAnError) {
  OnAThread([] {
    const Status none = BindThread(pthread_self(), {1023}, "rank 3");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().message(), "rank 3 cannot be bound to cpus 1023: Invalid argument");
    const std::vector<int> all = AllowedCpus();
    const Status some = BindThread(pthread_self(), {all[0], 1023}, "rank 3");
    ASSERT_FALSE(some);
    EXPECT_EQ(some.error().message(),
              fmt::format("rank 3 runs on cpus {}, planned were {},1023", all[0], all[0]));
  });
}

TEST(Binding, MemoryComesFromTheNodesThatItWasBoundTo) {
  const Result<Topology> topology = DetectTopology();
  ASSERT_TRUE(topology);
  const int node = topology->numa_nodes.front().id;
  OnAThread([&] {
    EXPECT_TRUE(MemoryNodesOfThread().empty());
    const Result<bool> bound = BindMemory({node}, "the test");
    ASSERT_TRUE(bound) << bound.error().message();
    if (!*bound) GTEST_SKIP() << "this system refuses to bind memory";
    EXPECT_EQ(MemoryNodesOfThread(), std::vector<int>{node});
    OnAThread([&] { EXPECT_EQ(MemoryNodesOfThread(), std::vector<int>{node}); });
  });
}

TEST(Binding, AMismatchSaysBoth) {
  EXPECT_TRUE(CheckBinding("runs on cpus", {3, 1}, {1, 3}, "rank 0"));
  const Status status = CheckBinding("has its memory on NUMA nodes", {}, {1}, "rank 0");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(),
            "rank 0 has its memory on NUMA nodes none in particular, planned were 1");
}

TEST(Binding, APoolsThreadsAreWhereTheyWerePlanned) {
  const std::vector<int> all = AllowedCpus();
  OnAThread([&] {
    const auto own =
        ThreadPool::CreatePlanned({.cpus = all, .num_threads = static_cast<int>(all.size())});
    const Status bound = own->BindCaller("rank 1");
    ASSERT_TRUE(bound) << bound.error().message();
    EXPECT_EQ(CpusOfThread(pthread_self()), std::vector<int>{all[0]});
  });
  OnAThread([&] {
    const auto group = ThreadPool::CreatePlanned({.cpus = all, .num_threads = 3, .is_group = true});
    EXPECT_EQ(group->num_threads(), 3);
    ASSERT_TRUE(group->BindCaller("rank 1"));
    EXPECT_EQ(CpusOfThread(pthread_self()), all);
  });
  OnAThread([&] {
    const auto pool = ThreadPool::CreatePlanned({.cpus = {all[0], 1023}, .num_threads = 2});
    const Status bound = pool->BindCaller("rank 1");
    ASSERT_FALSE(bound);
    EXPECT_NE(bound.error().message().find("worker 1 of rank 1 runs on cpus"), std::string::npos)
        << bound.error().message();
  });
}

TEST(Binding, AProbeOfANodeThatIsNotThereIsAnErrorAndChangesNothing) {
  const std::vector<int> before = MemoryNodesOfThread();
  EXPECT_FALSE(ProbeMemoryBinding(-1));
  const Status far = ProbeMemoryBinding(1023);
  ASSERT_FALSE(far);
  EXPECT_NE(far.error().message().find("NUMA node 1023"), std::string::npos);
  EXPECT_EQ(MemoryNodesOfThread(), before);
}

}  // namespace
}  // namespace moebius::platform
