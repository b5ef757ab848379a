// All-reduces between the GPUs of one host, in graph replay, one host thread a GPU; all of the last
// one's sums are checked.
#include <algorithm>
#include <barrier>
#include <thread>

#include "kernels/cuda/exchange/bench_cases.h"
#include "kernels/cuda/exchange/world.cuh"

namespace moebius::cuda::exchange::testing {
namespace {

using Bf16 = __nv_bfloat16;

// Microseconds of an all-reduce on rank r, in graphs that take the inputs in turn.
double TimeReduce(const World& world, int r, const ReduceCase& c,
                  const std::vector<Device<Bf16>>& in, const Device<Bf16>& out, bool early,
                  std::barrier<>& barrier) {
  constexpr int kReplays = 3;
  // Ranks of one GPU must fit it together.
  const bool on_one = world[0].device == world[world.size() - 1].device;
  world.Select(r);
  const cudaStream_t stream = world[r].stream;
  ReduceGroup group = world.MakeGroup<ReduceGroup>(r);
  group.abort_offset = static_cast<int64_t>(GatherAbortOffset());
  group.channels_offset = static_cast<int64_t>(GatherBytes(0));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (const Device<Bf16>& data : in) {
    const Reduction reduction = {
        .in = data.get(), .out = out.get(), .num_blocks = on_one ? 60 : 0, .lets_next_in = early};
    LAUNCH_OK(LaunchAllReduce(group, reduction, static_cast<int64_t>(out.size()), stream));
  }
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  CUDA_OK(cudaGraphUpload(exec, stream));
  CUDA_OK(cudaStreamSynchronize(stream));
  cudaEvent_t begin, end;
  CUDA_OK(cudaEventCreate(&begin));
  CUDA_OK(cudaEventCreate(&end));
  std::vector<double> all;
  for (int repeat = 0; repeat < 15; ++repeat) {
    barrier.arrive_and_wait();
    CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaEventRecord(begin, stream));
    for (int i = 0; i < kReplays; ++i) CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaEventRecord(end, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
    all.push_back(ms * 1e3 / (kReplays * static_cast<double>(in.size())));
  }
  CUDA_OK(cudaGraphExecDestroy(exec));
  CUDA_OK(cudaGraphDestroy(graph));
  return Median(all);
}

// Whether all ranks have the sum of the inputs that came last.
bool SumsCorrect(const World& world, const std::vector<std::vector<Device<Bf16>>>& in,
                 const std::vector<Device<Bf16>>& out) {
  std::vector<float> sums(out[0].size(), 0.0f);
  for (const std::vector<Device<Bf16>>& of_rank : in) {
    const std::vector<Bf16> last = of_rank.back().Download();
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += __bfloat162float(last[i]);
  }
  bool correct = true;
  for (int r = 0; r < world.size(); ++r) {
    const std::vector<Bf16> got = out[r].Download();
    correct = correct && *world[r].host_abort == 0;
    for (size_t i = 0; i < sums.size(); ++i) {
      correct = correct && __bfloat162float(got[i]) == __bfloat162float(__float2bfloat16(sums[i]));
    }
  }
  return correct;
}

bool RunReduce(const ReduceCase& c, bool early, const std::vector<int>& devices, FILE* json) {
  const int ranks = static_cast<int>(devices.size());
  const int64_t elements = int64_t{c.rows} * kHidden;
  const int64_t rounds = std::clamp<int64_t>(4 * kColdBytes / (elements * 2), 4, 32);
  World world(devices, GatherBytes(0) + ReduceBytes());
  std::vector<std::vector<Device<Bf16>>> in(ranks);
  std::vector<Device<Bf16>> out;
  for (int r = 0; r < ranks; ++r) {
    world.Select(r);
    for (int64_t i = 0; i < rounds; ++i) {
      in[r].push_back(moebius::kernels::cuda::testing::DeviceNormal(elements, 100 * r + i + 7));
    }
    out.emplace_back(elements);
    CUDA_OK(cudaDeviceSynchronize());
  }
  std::barrier<> barrier(ranks);
  std::vector<double> times(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back(
        [&, r] { times[r] = TimeReduce(world, r, c, in[r], out[r], early, barrier); });
  }
  for (std::thread& t : threads) t.join();
  const bool correct = SumsCorrect(world, in, out);
  const double us = *std::max_element(times.begin(), times.end());
  const double link = elements * 2.0 * 2 * (ranks - 1) / ranks / kLinkGbs / 1e3;
  std::printf("| %d x %d%s | %.2f | %s | %s | %s | %s |\n", c.rows, kHidden,
              early ? ", early launch" : "", us, Ratio(us, c.peer).c_str(),
              Ratio(us, c.target).c_str(), Ratio(us, link).c_str(), correct ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"case\":\"all_reduce\",\"ranks\":%d,\"rows\":%d,"
                 "\"early_launch\":%s,\"us\":%.2f,\"peer_us\":%.1f,\"target_us\":%.1f,"
                 "\"link_us\":%.2f,\"correct\":%s}\n",
                 ranks, c.rows, early ? "true" : "false", us, c.peer, c.target, link,
                 correct ? "true" : "false");
    std::fflush(json);
  }
  return correct;
}

}  // namespace

bool BenchAllReduce(const std::vector<int>& devices, std::FILE* json) {
  bool correct = true;
  std::printf("all-reduce: us; peer NCCL, target, link at %.0f GB/s: figure (ours / it)\n",
              kLinkGbs);
  std::printf("| rows | ours | peer | target | link | correct |\n");
  for (const ReduceCase& c : ReduceCases(static_cast<int>(devices.size()))) {
    for (const bool early : {false, true}) {
      correct = RunReduce(c, early, devices, json) && correct;
    }
  }
  return correct;
}

}  // namespace moebius::cuda::exchange::testing
