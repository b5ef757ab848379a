// Sums over ranks against sums on the host, bit by bit: ranks on one GPU, and on GPUs of their own
// where there are some.   all_reduce_test [--gpus-only | --one-gpu-only]
#include <chrono>
#include <cstring>

#include "kernels/cuda/exchange/world.cuh"

namespace moebius::cuda::exchange::testing {
namespace {

using moebius::kernels::cuda::testing::FromFloat;
using moebius::kernels::cuda::testing::ToFloat;
using Bf16 = __nv_bfloat16;
using Rng = std::mt19937_64;

size_t WorldBytes() { return GatherBytes(0) + ReduceBytes(); }

ReduceGroup GroupOf(const World& world, int rank) {
  ReduceGroup group = world.MakeGroup<ReduceGroup>(rank);
  group.abort_offset = static_cast<int64_t>(GatherAbortOffset());
  group.channels_offset = static_cast<int64_t>(GatherBytes(0));
  group.wait_nanoseconds = SlowNanoseconds(std::chrono::seconds(3));
  return group;
}

// Of one rank: where its data begins is `shift` elements behind a multiple of 16 bytes, and behind
// what comes out there is one element that must stay as it was.
template <typename T>
struct Member {
  std::vector<T> in;
  Device<T> data;
  Device<T> out;
};

template <typename T>
struct Call {
  int64_t elements = 0;
  int shift = 0;
  bool in_place = false;
  int num_blocks = 0;
  std::vector<int64_t> begin;  // of what each rank gets; none: all get all
  std::vector<Member<T>> members;

  int64_t first(int rank) const { return begin.empty() ? 0 : begin[rank]; }
  int64_t count(int rank) const { return begin.empty() ? elements : begin[rank + 1] - begin[rank]; }
};

template <typename T>
Call<T> Draw(const World& world, int64_t elements, int most_blocks, Rng& rng) {
  Call<T> call;
  call.elements = elements;
  call.shift = static_cast<int>(rng() % 4 == 0 ? rng() % 8 : 0);
  call.num_blocks = rng() % 3 == 0 ? 3 : most_blocks;
  if (rng() % 3 == 0) {
    // Ragged, some empty; half of the time in whole vectors.
    const int64_t unit = rng() % 2 == 0 ? 1 : 8;
    for (int r = 1; r < world.size(); ++r) {
      call.begin.push_back(static_cast<int64_t>(rng() % (elements + 1)) / unit * unit);
    }
    call.begin.push_back(0);
    call.begin.push_back(elements);
    std::sort(call.begin.begin(), call.begin.end());
  }
  call.in_place = call.begin.empty() && rng() % 2 == 0;
  for (int r = 0; r < world.size(); ++r) {
    world.Select(r);
    std::vector<T> in(elements);
    uint64_t x = rng();
    for (T& value : in) {
      x = x * 6364136223846793005u + 1442695040888963407u;
      value = FromFloat<T>(static_cast<float>(static_cast<int32_t>(x >> 32)) * 0x1p-31f);
    }
    call.members.push_back({in, Device<T>(call.shift + elements + 1),
                            Device<T>(call.shift + (call.in_place ? 0 : elements) + 1)});
    CUDA_OK(cudaMemcpy(call.members[r].data.get() + call.shift, in.data(), elements * sizeof(T),
                       cudaMemcpyHostToDevice));
    CUDA_OK(cudaDeviceSynchronize());
  }
  return call;
}

template <typename T>
void Queue(const World& world, const Call<T>& call, int r, bool early, uint32_t delay) {
  const Member<T>& m = call.members[r];
  ReduceGroup group = GroupOf(world, r);
  group.test_delay = delay;
  Reduction reduction;
  reduction.in = m.data.get() + call.shift;
  reduction.out = (call.in_place ? m.data : m.out).get() + call.shift;
  reduction.is_float32 = sizeof(T) == 4;
  reduction.num_blocks = call.num_blocks;
  reduction.lets_next_in = early;
  LAUNCH_OK(call.begin.empty()
                ? LaunchAllReduce(group, reduction, call.elements, world[r].stream)
                : LaunchReduceScatter(group, reduction, call.begin.data(), world[r].stream));
}

template <typename T>
void CheckSums(const World& world, const Call<T>& call, const std::string& name) {
  std::vector<T> sums(call.elements);
  for (int64_t i = 0; i < call.elements; ++i) {
    float sum = 0;
    for (const Member<T>& m : call.members) sum += ToFloat(m.in[i]);
    sums[i] = FromFloat<T>(sum);
  }
  for (int r = 0; r < world.size(); ++r) {
    world.Select(r);
    const Member<T>& m = call.members[r];
    const std::vector<T> got = (call.in_place ? m.data : m.out).Download();
    const size_t bytes = call.count(r) * sizeof(T);
    const std::string what = name + " of " + std::to_string(call.elements) +
                             (call.begin.empty() ? "" : ", scattered") + ", shifted by " +
                             std::to_string(call.shift) + ", rank " + std::to_string(r);
    Expect(std::memcmp(got.data() + call.shift, sums.data() + call.first(r), bytes) == 0, what);
    constexpr uint32_t kUntouched = 0xffffffff;
    Expect(std::memcmp(&got[call.shift + call.count(r)], &kUntouched, sizeof(T)) == 0,
           what + ": something was written behind it");
  }
}

// Calls of all kinds behind each other, so that channels are used again by other numbers of blocks.
template <typename T>
void TestSums(const std::vector<int>& devices, int ranks_a_gpu, bool early, uint64_t seed) {
  const int ranks = static_cast<int>(devices.size());
  // Ranks of one GPU must fit it together, early kernels beside them.
  const int most_blocks = ranks_a_gpu == 1 ? 0 : 112 / ranks_a_gpu;
  World world(devices, WorldBytes());
  Rng rng(seed);
  std::vector<Call<T>> calls;
  for (const int64_t elements :
       {8, 7168, 0, 7168 * 3, 1001, 7168 * 32, 17, 7168 * 256, 1, 100003}) {
    calls.push_back(Draw<T>(world, elements, most_blocks, rng));
  }
  for (const Call<T>& call : calls) {
    for (int r = 0; r < ranks; ++r) {
      world.Select(r);
      if (rng() % 2 == 0) Sleep(world[r].stream, static_cast<uint32_t>(rng() % 50000));
      Queue(world, call, r, early, seed % 3 == 0 ? static_cast<uint32_t>(seed + r) : 0);
    }
  }
  world.Synchronize();
  const std::string name = std::to_string(ranks) + " ranks, seed " + std::to_string(seed) +
                           (sizeof(T) == 4 ? ", float32: call " : ", bf16: call ");
  for (int r = 0; r < ranks; ++r) Expect(*world[r].host_abort == 0, name + ": aborted");
  for (size_t i = 0; i < calls.size(); ++i) {
    CheckSums(world, calls[i], name + std::to_string(i));
  }
}

// The last rank never comes.
void TestAbort(const std::vector<int>& devices) {
  const int ranks = static_cast<int>(devices.size());
  World world(devices, WorldBytes());
  std::vector<Device<Bf16>> data;
  for (int r = 0; r < ranks; ++r) {
    world.Select(r);
    data.emplace_back(7168);
    CUDA_OK(cudaDeviceSynchronize());
  }
  const auto begin = std::chrono::steady_clock::now();
  for (int r = 0; r < ranks - 1; ++r) {
    world.Select(r);
    ReduceGroup group = GroupOf(world, r);
    group.wait_nanoseconds = 100000000;
    const Reduction reduction = {.in = data[r].get(), .out = data[r].get(), .lets_next_in = false};
    for (int i = 0; i < 50; ++i) {
      LAUNCH_OK(LaunchAllReduce(group, reduction, 7168, world[r].stream));
    }
    CUDA_OK(cudaStreamSynchronize(world[r].stream));
    const Abort abort = DecodeAbort(*world[r].host_abort);
    if (r == 0) {
      Expect(*world[r].host_abort != 0 && abort.phase == Phase::kAllReduce,
             "all-reduce: the host is told that a rank is silent");
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Expect(seconds < SlowSeconds(std::chrono::seconds(1)),
         "all-reduce: 50 waits end together, took " + std::to_string(seconds));
}

void RunOn(const std::vector<int>& gpus) {
  uint64_t seed = 1;
  for (const int ranks : {1, 2, 3, 4, 8}) {
    std::vector<int> devices;
    for (int r = 0; r < ranks; ++r) devices.push_back(gpus[r % gpus.size()]);
    const int ranks_a_gpu = (ranks + static_cast<int>(gpus.size()) - 1) / gpus.size();
    for (int repeat = 0; repeat < 6; ++repeat) {
      TestSums<Bf16>(devices, ranks_a_gpu, repeat % 2 == 1, seed++);
      TestSums<float>(devices, ranks_a_gpu, repeat % 2 == 0, seed++);
    }
    if (ranks > 1) TestAbort(devices);
  }
}

int Main(int argc, char** argv) {
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
  const bool one = argc < 2 || std::strcmp(argv[1], "--gpus-only") != 0;
  const bool several = argc < 2 || std::strcmp(argv[1], "--one-gpu-only") != 0;
  int count = 0;
  CUDA_OK(cudaGetDeviceCount(&count));
  if (one) RunOn({0});
  std::vector<int> gpus;
  for (int d = 0; d < count; ++d) gpus.push_back(d);
  if (several && count >= 2 && EnablePeers(gpus)) {
    RunOn(gpus);
  } else if (several) {
    std::printf("fewer than two GPUs that address each other: ranks of one GPU only\n");
  }
  const int failures = moebius::kernels::cuda::testing::Failures();
  std::printf(failures == 0 ? "all_reduce: passed\n" : "all_reduce: FAILED\n");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebius::cuda::exchange::testing

int main(int argc, char** argv) { return moebius::cuda::exchange::testing::Main(argc, argv); }
