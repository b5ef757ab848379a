// The one-shot all-reduce against sums on the host, bit by bit: ranks on one GPU, and on GPUs of
// their own where there are some.   all_reduce_test [--gpus-only | --one-gpu-only]
#include <chrono>
#include <cstring>

#include "kernels/cuda/exchange/world.cuh"

namespace moebius::cuda::exchange::testing {
namespace {

using Bf16 = __nv_bfloat16;
using Rng = std::mt19937_64;

constexpr int64_t kMaxElements = 128 * 7168;

uint16_t Bits(Bf16 x) {
  uint16_t bits;
  std::memcpy(&bits, &x, 2);
  return bits;
}

void TestSums(const std::vector<int>& devices, int ranks_a_gpu, bool early, uint64_t seed) {
  const int ranks = static_cast<int>(devices.size());
  // Ranks of one GPU must fit it together, early kernels beside them.
  const int most_blocks = ranks_a_gpu == 1 ? 0 : 240 / ranks_a_gpu;
  World world(devices, ReduceBytes(kMaxElements));
  Rng rng(seed);
  const std::vector<int64_t> sizes = {8,  7168,         0,   7168 * 3, 1000, 7168 * 32,
                                      16, kMaxElements, 7168};
  struct Call {
    std::vector<std::vector<Bf16>> in;
    std::vector<Device<Bf16>> data;
    bool in_place;
    std::vector<Device<Bf16>> out;
  };
  std::vector<Call> calls(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    calls[i].in_place = rng() % 2 == 0;
    for (int r = 0; r < ranks; ++r) {
      world.Select(r);
      calls[i].in.push_back(
          moebius::kernels::cuda::testing::RandomNormal<Bf16>(rng, static_cast<size_t>(sizes[i])));
      calls[i].data.emplace_back(calls[i].in[r]);
      calls[i].out.emplace_back(calls[i].in[r].size());
    }
  }
  for (int r = 0; r < ranks; ++r) {
    world.Select(r);
    LAUNCH_OK(LaunchAdvanceStep(world[r].step, world[r].stream));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (int r = 0; r < ranks; ++r) {
      world.Select(r);
      if (rng() % 2 == 0) Sleep(world[r].stream, static_cast<uint32_t>(rng() % 50000));
      ReduceGroup group = world.MakeGroup<ReduceGroup>(r);
      group.max_elements = kMaxElements;
      group.wait_nanoseconds = 3000000000;
      const Call& c = calls[i];
      LAUNCH_OK(LaunchAllReduce(
          group, {world[r].step, static_cast<uint32_t>(sizes.size()), static_cast<uint32_t>(i)},
          {c.data[r].get(), c.in_place ? c.data[r].get() : c.out[r].get(), sizes[i], early,
           most_blocks},
          world[r].stream));
    }
  }
  world.Synchronize();
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (int r = 0; r < ranks; ++r) {
      world.Select(r);
      const std::string name = std::to_string(ranks) + " ranks, all-reduce " + std::to_string(i) +
                               " of " + std::to_string(sizes[i]) + ", rank " + std::to_string(r);
      Expect(*world[r].host_abort == 0, name + ": aborted");
      const auto got = (calls[i].in_place ? calls[i].data[r] : calls[i].out[r]).Download();
      for (int64_t e = 0; e < sizes[i]; ++e) {
        float sum = 0;
        for (int s = 0; s < ranks; ++s) sum += __bfloat162float(calls[i].in[s][e]);
        if (Bits(got[e]) != Bits(__float2bfloat16(sum))) {
          Expect(false, name + ": element " + std::to_string(e));
          break;
        }
      }
    }
  }
}

// The last rank never comes.
void TestAbort(const std::vector<int>& devices) {
  const int ranks = static_cast<int>(devices.size());
  World world(devices, ReduceBytes(7168));
  const auto begin = std::chrono::steady_clock::now();
  for (int r = 0; r < ranks - 1; ++r) {
    world.Select(r);
    Device<Bf16> data(7168);
    ReduceGroup group = world.MakeGroup<ReduceGroup>(r);
    group.max_elements = 7168;
    group.wait_nanoseconds = 100000000;
    for (uint32_t i = 0; i < 50; ++i) {
      LAUNCH_OK(LaunchAllReduce(group, {world[r].step, 50, i}, {data.get(), data.get(), 7168},
                                world[r].stream));
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
  Expect(seconds < 1.0, "all-reduce: 50 waits end together, took " + std::to_string(seconds));
}

void RunOn(const std::vector<int>& gpus) {
  uint64_t seed = 1;
  for (const int ranks : {1, 2, 3, 4, 8}) {
    std::vector<int> devices;
    for (int r = 0; r < ranks; ++r) devices.push_back(gpus[r % gpus.size()]);
    for (int repeat = 0; repeat < 4; ++repeat) {
      TestSums(devices, (ranks + gpus.size() - 1) / gpus.size(), repeat % 2 == 1, seed++);
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
