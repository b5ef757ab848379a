// Dispatch and combine between the GPUs of one host, in graph replay, one host thread a GPU;
// results checked in the same run. Two ranks on one GPU give no figures that count.
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

#include "kernels/cuda/benches.h"
#include "kernels/cuda/exchange/bench_cases.h"
#include "kernels/cuda/exchange/reference.h"
#include "kernels/cuda/exchange/world.cuh"

namespace moebius::cuda::exchange::testing {
namespace {

constexpr uint32_t kCallsPerStep = 64;  // at least the calls of any graph

// Inputs of one call of one rank.
struct InputSet {
  Tokens tokens;  // without rows
  Device<Bf16> rows, expert_rows;
  Device<int32_t> slots;
  Device<float> weights;
};

struct Times {
  double both = 0;
  double halves[4] = {};
  double pairs[2] = {};  // dispatch, combine: halves that may run beside each other

  void Widen(const Times& t) {
    both = std::max(both, t.both);
    for (int h = 0; h < 4; ++h) halves[h] = std::max(halves[h], t.halves[h]);
    for (int h = 0; h < 2; ++h) pairs[h] = std::max(pairs[h], t.pairs[h]);
  }
};

class Bench {
 public:
  static constexpr int kSplitRounds = 4;  // calls of a graph, the last of which is timed in parts

  Bench(const BenchCase& c, const std::vector<int>& devices)
      : case_(c),
        shape_(MakeShape(c, devices)),
        world_(devices, MakeLayout(shape_).bytes),
        barrier_(static_cast<std::ptrdiff_t>(devices.size())) {
    Rng rng(42);
    const int64_t set_bytes = int64_t{c.tokens} * kHidden * 2 * (1 + c.top_k);
    const int64_t sets = std::clamp<int64_t>(kColdBytes / set_bytes, 1, Rounds());
    for (int r = 0; r < world_.size(); ++r) sets_.emplace_back();
    for (int i = 0; i < sets; ++i) {
      std::vector<Tokens> tokens;
      std::vector<int64_t> places(world_.size(), 0);
      for (int r = 0; r < world_.size(); ++r) {
        tokens.push_back(Draw(rng));
        for (const int slot : tokens[r].slots) ++places[slot / shape_.slots_per_rank];
      }
      for (int r = 0; r < world_.size(); ++r) {
        world_.Select(r);
        using moebius::kernels::cuda::testing::DeviceNormal;
        const uint64_t seed = 1000 * i + 10 * r;
        sets_[r].push_back({tokens[r], DeviceNormal(int64_t{c.tokens} * kHidden, seed + 1),
                            DeviceNormal(places[r] * kHidden, seed + 2),
                            Device<int32_t>(tokens[r].slots), Device<float>(tokens[r].weights)});
      }
    }
    for (int r = 0; r < world_.size(); ++r) {
      world_.Select(r);
      count_.emplace_back(std::vector<int32_t>{c.tokens});
      received_.emplace_back(WorstRows(shape_) * (shape_.format == RowFormat::kFp8 ? 1 : 2) *
                             kHidden);
      scales_.emplace_back(WorstRows(shape_) * (kHidden / kScaleBlock));
      offsets_.emplace_back(shape_.slots_per_rank + 1);
      out_.emplace_back(int64_t{c.tokens} * kHidden);
      CUDA_OK(cudaDeviceSynchronize());
    }
  }

  // The slowest rank's medians. The last call is number kSplitRounds - 1.
  Times Run() {
    std::vector<Times> times(world_.size());
    std::vector<std::thread> threads;
    for (int r = 0; r < world_.size(); ++r) {
      threads.emplace_back([this, r, &times] { times[r] = RunRank(r); });
    }
    for (std::thread& t : threads) t.join();
    Times slowest;
    for (const Times& t : times) slowest.Widen(t);
    return slowest;
  }

  // Call 0. Each half ends on all ranks before the next one begins.
  void RunOneByOne() {
    for (int r = 0; r < world_.size(); ++r) {
      world_.Select(r);
      LAUNCH_OK(LaunchAdvanceStep(world_[r].step, world_[r].stream));
    }
    for (int half = 0; half < 4; ++half) {
      for (int r = 0; r < world_.size(); ++r) {
        world_.Select(r);
        QueueHalf(r, 0, half, world_[r].stream);
      }
      world_.Synchronize();
    }
  }

  // Of that call, the last one: all offsets, and samples of rows, scales and results, bit by bit.
  bool Correct(int call) {
    bool good = true;
    const int set = call % static_cast<int>(sets_[0].size());
    std::vector<const Tokens*> sources;
    for (int r = 0; r < world_.size(); ++r) {
      sources.push_back(&sets_[r][set].tokens);
      good = good && *world_[r].host_abort == 0;
    }
    std::vector<Grouped> grouped;
    for (int r = 0; r < world_.size(); ++r) grouped.push_back(GroupFor(shape_, r, sources));
    for (int r = 0; r < world_.size(); ++r) {
      world_.Select(r);
      good = good && offsets_[r].Download() == grouped[r].offsets;
      good = good && RowsCorrect(r, set, grouped[r]) && ResultsCorrect(r, set, grouped);
    }
    return good;
  }

  // Remote bytes of one rank at the link's rate: each token once to each other rank.
  double LinkUs(bool dispatch) const {
    int64_t rows = 0;
    const Tokens& t = sets_[0][0].tokens;
    for (int token = 0; token < t.count; ++token) {
      uint64_t ranks = 0;
      for (int j = 0; j < shape_.top_k; ++j) {
        ranks |= uint64_t{1} << (t.slots[token * shape_.top_k + j] / shape_.slots_per_rank);
      }
      rows += __builtin_popcountll(ranks & ~uint64_t{1});
    }
    const Layout l = MakeLayout(shape_);
    return rows * static_cast<double>(dispatch ? l.row_stride : l.result_stride) / kLinkGbs / 1e3;
  }

 private:
  static Shape MakeShape(const BenchCase& c, const std::vector<int>& devices) {
    const int ranks = static_cast<int>(devices.size());
    return {ranks,   c.experts / ranks, c.tokens,       c.one_a_rank ? ranks : c.top_k,
            kHidden, c.format,          c.deterministic};
  }

  int Rounds() const { return case_.tokens > 1024 ? 4 : 32; }

  Tokens Draw(Rng& rng) {
    Shape small = shape_;
    small.hidden = 0;  // rows are drawn on the device
    return DrawTokens(rng, small, case_.tokens,
                      case_.one_a_rank ? Routing::kAllRanks : Routing::kUniform);
  }

  Grid MakeGrid(int half) const {
    int blocks = half % 2 == 0 ? case_.send_blocks : case_.receive_blocks;
    if (half == 2 && case_.combine_blocks > 0) blocks = case_.combine_blocks;
    return {case_.mode, blocks, case_.early_launch};
  }

  void QueueHalf(int r, int call, int half, cudaStream_t stream) {
    const Group group = world_.MakeGroup(shape_, r);
    const Sequence sequence = {world_[r].step, kCallsPerStep, static_cast<uint32_t>(call)};
    const InputSet& in = sets_[r][call % sets_[r].size()];
    const Grid grid = MakeGrid(half);
    if (half == 0) {
      LAUNCH_OK(LaunchDispatchSend(
          group, sequence, grid, {in.rows.get(), in.slots.get(), in.weights.get(), count_[r].get()},
          stream));
    } else if (half == 1) {
      LAUNCH_OK(LaunchDispatchReceive(group, sequence, grid,
                                      {received_[r].get(), scales_[r].get(), WorstRows(shape_),
                                       WorstRows(shape_), offsets_[r].get()},
                                      stream));
    } else if (half == 2) {
      LAUNCH_OK(LaunchCombineSend(group, sequence, grid, {in.expert_rows.get()}, stream));
    } else {
      LAUNCH_OK(LaunchCombineReceive(
          group, sequence, grid,
          {in.slots.get(), in.weights.get(), count_[r].get(), nullptr, out_[r].get()}, stream));
    }
  }

  // events: recorded in the last call before each half, or before each second one (`every` 2).
  cudaGraphExec_t Capture(int r, int rounds, cudaEvent_t* events, int every) {
    const cudaStream_t stream = world_[r].stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    LAUNCH_OK(LaunchAdvanceStep(world_[r].step, stream));
    for (int call = 0; call < rounds; ++call) {
      const bool split = events != nullptr && call == rounds - 1;
      for (int half = 0; half < 4; ++half) {
        if (split && half % every == 0) {
          CUDA_OK(cudaEventRecordWithFlags(events[half / every], stream, cudaEventRecordExternal));
        }
        QueueHalf(r, call, half, stream);
      }
      if (split) {
        CUDA_OK(cudaEventRecordWithFlags(events[4 / every], stream, cudaEventRecordExternal));
      }
    }
    CUDA_OK(cudaStreamEndCapture(stream, &graph));
    CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    CUDA_OK(cudaGraphUpload(exec, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    CUDA_OK(cudaGraphDestroy(graph));
    return exec;
  }

  Times RunRank(int r) {
    world_.Select(r);
    const cudaStream_t stream = world_[r].stream;
    cudaEvent_t events[5];
    for (cudaEvent_t& e : events) CUDA_OK(cudaEventCreate(&e));
    const cudaGraphExec_t whole = Capture(r, Rounds(), nullptr, 1);
    Times times;
    std::vector<double> both;
    for (int repeat = 0; repeat < 7; ++repeat) {
      constexpr int kReplays = 3;
      barrier_.arrive_and_wait();
      CUDA_OK(cudaGraphLaunch(whole, stream));  // brings the ranks together
      CUDA_OK(cudaEventRecord(events[0], stream));
      for (int i = 0; i < kReplays; ++i) CUDA_OK(cudaGraphLaunch(whole, stream));
      CUDA_OK(cudaEventRecord(events[1], stream));
      CUDA_OK(cudaStreamSynchronize(stream));
      float ms = 0;
      CUDA_OK(cudaEventElapsedTime(&ms, events[0], events[1]));
      both.push_back(ms * 1e3 / (kReplays * Rounds()));
    }
    times.both = Median(both);
    TimeParts(r, events, 1, times.halves);
    TimeParts(r, events, 2, times.pairs);
    CUDA_OK(cudaGraphExecDestroy(whole));
    for (cudaEvent_t& e : events) CUDA_OK(cudaEventDestroy(e));
    return times;
  }

  // Medians of what lies between the events of a graph.
  void TimeParts(int r, cudaEvent_t* events, int every, double* parts) {
    const cudaStream_t stream = world_[r].stream;
    const cudaGraphExec_t split = Capture(r, kSplitRounds, events, every);
    std::vector<double> times[4];
    for (int repeat = 0; repeat < 15; ++repeat) {
      barrier_.arrive_and_wait();
      CUDA_OK(cudaGraphLaunch(split, stream));
      CUDA_OK(cudaStreamSynchronize(stream));
      for (int i = 0; i < 4 / every; ++i) {
        float ms = 0;
        CUDA_OK(cudaEventElapsedTime(&ms, events[i], events[i + 1]));
        times[i].push_back(ms * 1e3);
      }
    }
    for (int i = 0; i < 4 / every; ++i) parts[i] = Median(times[i]);
    CUDA_OK(cudaGraphExecDestroy(split));
  }

  template <class T>
  std::vector<T> Read(const T* from, int64_t count) {
    std::vector<T> values(count);
    CUDA_OK(cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDefault));
    return values;
  }

  bool RowsCorrect(int r, int set, const Grouped& grouped) {
    const size_t step = grouped.places.size() / 50 + 1;
    for (size_t place = 0; place < grouped.places.size(); place += step) {
      const Place& from = grouped.places[place];
      const auto row =
          Read(sets_[from.source][set].rows.get() + int64_t{from.token} * kHidden, kHidden);
      const WireRow want = ToWire(shape_, row.data());
      const auto bytes = static_cast<int64_t>(want.bytes.size());
      if (Read(received_[r].get() + place * bytes, bytes) != want.bytes) return false;
      for (size_t b = 0; b < want.scales.size(); b += 11) {
        if (Read(scales_[r].get() + b * WorstRows(shape_) + place, 1)[0] != want.scales[b]) {
          return false;
        }
      }
    }
    return true;
  }

  bool ResultsCorrect(int r, int set, const std::vector<Grouped>& grouped) {
    const Tokens& t = sets_[r][set].tokens;
    const int step = t.count / 12 + 1;
    for (int token = 0; token < t.count; token += step) {
      std::vector<std::vector<Bf16>> rows(shape_.top_k);
      for (int j = 0; j < shape_.top_k; ++j) {
        const int owner = t.slots[token * shape_.top_k + j] / shape_.slots_per_rank;
        const auto& places = grouped[owner].places;
        size_t place = 0;
        while (places[place].source != r || places[place].token != token ||
               places[place].choice != j) {
          ++place;
        }
        rows[j] = Read(sets_[owner][set].expert_rows.get() + place * kHidden, kHidden);
      }
      const auto got = Read(out_[r].get() + int64_t{token} * kHidden, kHidden);
      for (int c = 0; c < kHidden; ++c) {
        const float want =
            CombineColumn(shape_, &t.slots[token * shape_.top_k], &t.weights[token * shape_.top_k],
                          0.0f, [&](int, int j) { return __bfloat162float(rows[j][c]); });
        if (__bfloat162float(got[c]) != __bfloat162float(__float2bfloat16(want))) return false;
      }
    }
    return true;
  }

  BenchCase case_;
  Shape shape_;
  World world_;
  std::barrier<> barrier_;
  std::vector<std::vector<InputSet>> sets_;  // [rank]
  std::vector<Device<int32_t>> count_, offsets_;
  std::vector<Device<uint8_t>> received_;
  std::vector<Device<float>> scales_;
  std::vector<Device<Bf16>> out_;
};

bool RunCaseOnce(const BenchCase& c, const std::vector<int>& devices) {
  Bench bench(c, devices);
  bench.RunOneByOne();
  const bool correct = bench.Correct(0);
  std::printf("| %s | %d | %s | %s |\n", c.name.c_str(), c.tokens,
              c.format == RowFormat::kFp8 ? "fp8" : "bf16", correct ? "yes" : "NO");
  std::fflush(stdout);
  return correct;
}

bool RunCase(const BenchCase& c, const std::vector<int>& devices, FILE* json) {
  Bench bench(c, devices);
  const Times t = bench.Run();
  const bool correct = bench.Correct(Bench::kSplitRounds - 1);
  const double dispatch = t.pairs[0];
  const double combine = t.pairs[1];
  const double link_dispatch = bench.LinkUs(true);
  const double link_combine = bench.LinkUs(false);
  const double peer_both = c.peer_both > 0 ? c.peer_both : c.peer_dispatch + c.peer_combine;
  const double target_both =
      c.target_both > 0 ? c.target_both : c.target_dispatch + c.target_combine;
  const char* format = c.format == RowFormat::kFp8 ? "fp8" : "bf16";
  std::printf(
      "| %s | %d | %s | %.1f + %.1f, %.1f | %s | %s | %s | %.1f + %.1f, %.1f | %s | %s | %s | %.1f "
      "| "
      "%s | %s | %s | %s |\n",
      c.name.c_str(), c.tokens, format, t.halves[0], t.halves[1], dispatch,
      Ratio(dispatch, c.peer_dispatch).c_str(), Ratio(dispatch, c.target_dispatch).c_str(),
      Ratio(dispatch, link_dispatch).c_str(), t.halves[2], t.halves[3], combine,
      Ratio(combine, c.peer_combine).c_str(), Ratio(combine, c.target_combine).c_str(),
      Ratio(combine, link_combine).c_str(), t.both, Ratio(t.both, peer_both).c_str(),
      Ratio(t.both, target_both).c_str(), Ratio(t.both, link_dispatch + link_combine).c_str(),
      correct ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"case\":\"%s\",\"ranks\":%d,\"tokens\":%d,\"top_k\":%d,\"format\":\"%s\","
                 "\"early_launch\":%s,\"dispatch_send_us\":%.2f,\"dispatch_receive_us\":%.2f,"
                 "\"combine_send_us\":%.2f,\"combine_receive_us\":%.2f,\"dispatch_us\":%.2f,"
                 "\"combine_us\":%.2f,\"both_us\":%.2f,"
                 "\"link_dispatch_us\":%.2f,\"link_combine_us\":%.2f,\"peer_dispatch_us\":%.1f,"
                 "\"peer_combine_us\":%.1f,\"peer_both_us\":%.1f,\"target_both_us\":%.1f,"
                 "\"correct\":%s}\n",
                 c.name.c_str(), static_cast<int>(devices.size()), c.tokens,
                 c.one_a_rank ? static_cast<int>(devices.size()) : c.top_k, format,
                 c.early_launch ? "true" : "false", t.halves[0], t.halves[1], t.halves[2],
                 t.halves[3], dispatch, combine, t.both, link_dispatch, link_combine,
                 c.peer_dispatch, c.peer_combine, peer_both, target_both,
                 correct ? "true" : "false");
    std::fflush(json);
  }
  return correct;
}

bool RunAll(int num_ranks, bool on_one, FILE* json) {
  std::vector<int> devices(static_cast<size_t>(num_ranks));
  if (!on_one) std::iota(devices.begin(), devices.end(), 0);
  const bool once = moebius::kernels::cuda::EachOnce();
  bool correct = once || BenchAllReduce(devices, json);
  std::printf(
      once ? "exchange, each half alone\n| what | tokens | rows | correct |\n"
           : "\nexchange: us; halves send + receive, together; peer, target, link: figure (ours / "
             "it)\n| what | tokens | rows | dispatch | peer | target | link | combine | peer | "
             "target | link | both | peer | target | link | correct |\n");
  for (BenchCase c : BenchCases(num_ranks)) {
    // Kernels of ranks that share a GPU must fit it together, unless they run one after another.
    if (on_one && !once) {
      c.send_blocks = c.receive_blocks = (c.mode == Mode::kLatency ? 96 : 48) / num_ranks;
      c.combine_blocks = 0;
      if (c.tokens > 1024) continue;
    }
    // Launches of a profiler come one after another anyhow.
    c.early_launch = c.early_launch && !once;
    correct = (once ? RunCaseOnce(c, devices) : RunCase(c, devices, json)) && correct;
  }
  return correct;
}

}  // namespace
}  // namespace moebius::cuda::exchange::testing

bool moebius::kernels::cuda::BenchExchange(int num_ranks, bool on_one, std::FILE* json) {
  return moebius::cuda::exchange::testing::RunAll(num_ranks, on_one, json);
}
