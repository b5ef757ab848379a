// Dispatch and combine against the host's reference, bit by bit: several ranks on one GPU, and
// ranks on GPUs of their own where there are some.
//   exchange_test [--gpus-only | --one-gpu-only] [--repeats N]
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>

#include "kernels/cuda/exchange/reference.h"
#include "kernels/cuda/exchange/world.cuh"

namespace moebius::cuda::exchange::testing {
namespace {

struct Case {
  std::string name;
  Shape shape;
  std::vector<int> devices;  // of each rank
  Grid grid;
  Routing routing = Routing::kUniform;
  int calls = 6;        // one after another without the host
  bool delays = true;   // between halves and inside kernels
  bool shared = false;  // rows of a shared expert
  bool graph = false;   // a step of all calls, captured and replayed
  bool full = false;    // every rank has max_tokens
  bool serial = false;  // each half ends on all ranks before the next begins
};

// y = row * factor of its slot, rounded: what dispatch delivered shows in what combine returns.
__global__ void ExpertKernel(Shape s, int rank, const uint8_t* rows, const float* scales,
                             int64_t scale_stride, const int32_t* offsets, Bf16* out) {
  const int total = offsets[s.slots_per_rank];
  for (int place = blockIdx.x; place < total; place += gridDim.x) {
    int slot = 0;
    while (offsets[slot + 1] <= place) ++slot;
    const float factor = ExpertFactor(rank * s.slots_per_rank + slot);
    for (int c = threadIdx.x; c < s.hidden; c += blockDim.x) {
      float x;
      if (s.format == RowFormat::kFp8) {
        __nv_fp8_e4m3 value;
        value.__x = rows[int64_t{place} * s.hidden + c];
        x = static_cast<float>(value) * scales[c / kScaleBlock * scale_stride + place];
      } else {
        x = __bfloat162float(reinterpret_cast<const Bf16*>(rows)[int64_t{place} * s.hidden + c]);
      }
      out[int64_t{place} * s.hidden + c] = __float2bfloat16(x * factor);
    }
  }
}

int64_t WireBytes(const Shape& s) { return s.format == RowFormat::kFp8 ? s.hidden : 2 * s.hidden; }

// Everything of one call on one rank.
struct Call {
  Tokens tokens;
  std::vector<Bf16> shared;
  Device<Bf16> rows, shared_rows, expert_rows, out;
  Device<int32_t> slots, count, offsets;
  Device<float> weights, scales;
  Device<uint8_t> received;

  Call(const Shape& s, Tokens t, bool with_shared, Rng& rng)
      : tokens(std::move(t)),
        shared(with_shared ? tokens.rows.size() : 0),
        rows(tokens.rows),
        shared_rows(shared.size()),
        expert_rows(WorstRows(s) * s.hidden),
        out(tokens.rows.size()),
        slots(tokens.slots),
        count(std::vector<int32_t>{tokens.count}),
        offsets(s.slots_per_rank + 1),
        weights(tokens.weights),
        scales(s.hidden / kScaleBlock * WorstRows(s)),
        received(WorstRows(s) * WireBytes(s)) {
    for (Bf16& x : shared) x = __float2bfloat16(static_cast<float>(rng() % 2000) / 1000.0f - 1.0f);
    shared_rows.Upload(shared);
  }
};

class Test {
 public:
  Test(const Case& c, uint64_t seed)
      : case_(c), rng_(seed), world_(c.devices, MakeLayout(c.shape).bytes) {
    const Shape& s = c.shape;
    for (int r = 0; r < s.num_ranks; ++r) {
      world_.Select(r);
      calls_.emplace_back();
      for (int i = 0; i < c.calls; ++i) {
        const int draw = static_cast<int>(rng_() % 4);
        int count = static_cast<int>(rng_() % (s.max_tokens + 1));
        if (draw == 0) count = 0;
        if (draw == 1 || c.full) count = s.max_tokens;
        calls_[r].push_back(
            std::make_unique<Call>(s, DrawTokens(rng_, s, count, c.routing), c.shared, rng_));
      }
    }
  }

  void Run() {
    if (case_.graph) {
      Replay();
    } else {
      for (int r = 0; r < world_.size(); ++r) Advance(r);
      for (int i = 0; i < case_.calls; ++i) {
        for (int half = 0; half < 4; ++half) {
          for (int r = 0; r < world_.size(); ++r) QueueHalf(r, i, half);
          if (case_.serial) world_.Synchronize();
        }
      }
    }
    world_.Synchronize();
    Verify();
  }

 private:
  void Advance(int r) {
    world_.Select(r);
    LAUNCH_OK(LaunchAdvanceStep(world_[r].step, world_[r].stream));
  }

  Group MakeGroup(int r) {
    Group group = world_.MakeGroup(case_.shape, r);
    group.wait_nanoseconds = SlowNanoseconds(std::chrono::seconds(3));
    group.test_delay = case_.delays ? static_cast<uint32_t>(rng_() | 1) : 0;
    return group;
  }

  void QueueHalf(int r, int i, int half) {
    world_.Select(r);
    Call& c = *calls_[r][i];
    const cudaStream_t stream = world_[r].stream;
    const Shape& s = case_.shape;
    const Group group = MakeGroup(r);
    const Sequence sequence = {world_[r].step, static_cast<uint32_t>(case_.calls),
                               static_cast<uint32_t>(i)};
    if (case_.delays && rng_() % 3 == 0) Sleep(stream, static_cast<uint32_t>(rng_() % 40000));
    if (half == 0) {
      LAUNCH_OK(LaunchDispatchSend(group, sequence, case_.grid,
                                   {c.rows.get(), c.slots.get(), c.weights.get(), c.count.get(),
                                    i % 2 == 0 ? -1 : c.tokens.count},
                                   stream));
    } else if (half == 1) {
      LAUNCH_OK(LaunchDispatchReceive(
          group, sequence, case_.grid,
          {c.received.get(), c.scales.get(), WorstRows(s), WorstRows(s), c.offsets.get()}, stream));
    } else if (half == 2) {
      ExpertKernel<<<4, 128, 0, stream>>>(s, r, c.received.get(), c.scales.get(), WorstRows(s),
                                          c.offsets.get(), c.expert_rows.get());
      CUDA_OK(cudaGetLastError());
      LAUNCH_OK(LaunchCombineSend(group, sequence, case_.grid, {c.expert_rows.get()}, stream));
    } else {
      LAUNCH_OK(LaunchCombineReceive(group, sequence, case_.grid,
                                     {c.slots.get(), c.weights.get(), c.count.get(),
                                      case_.shared ? c.shared_rows.get() : nullptr, c.out.get()},
                                     stream));
    }
  }

  void Replay() {
    std::vector<cudaGraphExec_t> graphs(world_.size());
    for (int r = 0; r < world_.size(); ++r) {
      world_.Select(r);
      cudaGraph_t graph;
      CUDA_OK(cudaStreamBeginCapture(world_[r].stream, cudaStreamCaptureModeThreadLocal));
      Advance(r);
      for (int i = 0; i < case_.calls; ++i) {
        for (int half = 0; half < 4; ++half) QueueHalf(r, i, half);
      }
      CUDA_OK(cudaStreamEndCapture(world_[r].stream, &graph));
      CUDA_OK(cudaGraphInstantiate(&graphs[r], graph, 0));
      CUDA_OK(cudaGraphUpload(graphs[r], world_[r].stream));
      CUDA_OK(cudaGraphDestroy(graph));
    }
    world_.Synchronize();
    for (int replay = 0; replay < 4; ++replay) {
      for (int r = 0; r < world_.size(); ++r) {
        world_.Select(r);
        CUDA_OK(cudaGraphLaunch(graphs[r], world_[r].stream));
      }
    }
    world_.Synchronize();
    for (const cudaGraphExec_t graph : graphs) CUDA_OK(cudaGraphExecDestroy(graph));
  }

  void Fail(const std::string& what) {
    const std::lock_guard lock(mutex_);
    Expect(false, case_.name + ": " + what);
  }

  void Verify() {
    for (int r = 0; r < world_.size(); ++r) {
      Expect(*world_[r].host_abort == 0,
             case_.name + ": aborted, word " + std::to_string(*world_[r].host_abort));
    }
    const int pairs = case_.calls * world_.size();
    std::vector<std::vector<WireRow>> wire(pairs);  // [call][rank]
    ForAll(pairs, [&](int call, int rank) {
      const Shape& s = case_.shape;
      const Tokens& t = calls_[rank][call]->tokens;
      for (int token = 0; token < t.count; ++token) {
        wire[call * world_.size() + rank].push_back(
            ToWire(s, &t.rows[static_cast<size_t>(token) * s.hidden]));
      }
    });
    ForAll(pairs, [&](int call, int rank) {
      CUDA_OK(cudaSetDevice(world_[rank].device));
      std::vector<const Tokens*> sources;
      for (int r = 0; r < world_.size(); ++r) sources.push_back(&calls_[r][call]->tokens);
      const auto* rows = &wire[call * world_.size()];
      VerifyDispatch(call, rank, GroupFor(case_.shape, rank, sources), rows);
      VerifyCombine(call, rank, rows[rank]);
    });
  }

  // visit(call, rank), each in a thread.
  template <class Visit>
  void ForAll(int pairs, const Visit& visit) {
    std::vector<std::thread> threads;
    for (int i = 0; i < pairs; ++i) {
      threads.emplace_back([&, i] { visit(i / world_.size(), i % world_.size()); });
    }
    for (std::thread& t : threads) t.join();
  }

  void VerifyDispatch(int i, int r, const Grouped& want, const std::vector<WireRow>* wire) {
    const Shape& s = case_.shape;
    const Call& c = *calls_[r][i];
    const std::string where = "call " + std::to_string(i) + " rank " + std::to_string(r) + ": ";
    if (c.offsets.Download() != want.offsets) {
      Fail(where + "offsets");
      return;
    }
    const auto rows = c.received.Download();
    const auto scales = c.scales.Download();
    const auto bytes = static_cast<size_t>(WireBytes(s));
    for (size_t place = 0; place < want.places.size(); ++place) {
      const Place& from = want.places[place];
      const WireRow& row = wire[from.source][from.token];
      bool same = std::memcmp(&rows[place * bytes], row.bytes.data(), bytes) == 0;
      for (size_t b = 0; b < row.scales.size(); ++b) {
        same = same && scales[b * WorstRows(s) + place] == row.scales[b];
      }
      if (!same) {
        Fail(where + "row " + std::to_string(place) + " of source " + std::to_string(from.source) +
             " token " + std::to_string(from.token));
        return;
      }
    }
    for (size_t at = want.places.size() * bytes; at < rows.size(); ++at) {
      if (rows[at] != 0xff) {
        Fail(where + "wrote behind the last row");
        return;
      }
    }
  }

  void VerifyCombine(int i, int r, const std::vector<WireRow>& wire) {
    const Shape& s = case_.shape;
    const Call& c = *calls_[r][i];
    const auto out = c.out.Download();
    double difference = 0;
    double norm = 0;
    for (int token = 0; token < s.max_tokens; ++token) {
      for (int column = 0; column < s.hidden; ++column) {
        const size_t at = static_cast<size_t>(token) * s.hidden + column;
        uint16_t got;
        std::memcpy(&got, &out[at], 2);
        uint16_t want = 0xffff;  // poison: no token
        if (token < c.tokens.count) {
          const int32_t* slots = &c.tokens.slots[static_cast<size_t>(token) * s.top_k];
          const float* weights = &c.tokens.weights[static_cast<size_t>(token) * s.top_k];
          const float shared = case_.shared ? __bfloat162float(c.shared[at]) : 0.0f;
          double exact = shared;
          const float value = CombineColumn(s, slots, weights, shared, [&](int slot, int j) {
            const float y = __bfloat162float(
                __float2bfloat16(WireValue(s, wire[token], column) * ExpertFactor(slot)));
            exact += static_cast<double>(weights[j]) * y;
            return y;
          });
          const Bf16 rounded = __float2bfloat16(value);
          std::memcpy(&want, &rounded, 2);
          const double error = __bfloat162float(out[at]) - exact;
          difference += error * error;
          norm += exact * exact;
        }
        if (got != want) {
          Fail("call " + std::to_string(i) + " rank " + std::to_string(r) + ": result of token " +
               std::to_string(token) + " column " + std::to_string(column));
          return;
        }
      }
    }
    if (!(difference <= 1e-4 * norm)) Fail("results are not near float64's");
  }

  Case case_;
  Rng rng_;
  World world_;
  std::vector<std::vector<std::unique_ptr<Call>>> calls_;
  std::mutex mutex_;
};

std::vector<int> Spread(int ranks, const std::vector<int>& gpus) {
  std::vector<int> devices;
  for (int r = 0; r < ranks; ++r) devices.push_back(gpus[r % gpus.size()]);
  return devices;
}

// Blocks that let the kernels of all ranks of a GPU be resident together, early ones beside them.
int FittingBlocks(int ranks, const std::vector<int>& gpus, Mode mode) {
  const int each = (ranks + static_cast<int>(gpus.size()) - 1) / static_cast<int>(gpus.size());
  return std::max(2, (mode == Mode::kLatency ? 96 : 48) / each);
}

std::vector<Case> Cases(const std::vector<int>& gpus) {
  std::vector<Case> cases;
  const std::vector<Routing> routings = {Routing::kUniform,  Routing::kOneRank,
                                         Routing::kAllRanks, Routing::kHotExpert,
                                         Routing::kSomeNone, Routing::kAllNone};
  int next = 0;
  for (const int ranks : {1, 2, 4, 8}) {
    if (gpus.size() > 1 && ranks % gpus.size() != 0) continue;
    for (const Mode mode : {Mode::kLatency, Mode::kThroughput}) {
      for (const RowFormat format : {RowFormat::kFp8, RowFormat::kBf16}) {
        for (const bool deterministic : {false, true}) {
          const Routing routing = routings[next % routings.size()];
          const Routing other = routings[(next + 3) % routings.size()];
          Case c;
          c.name = std::to_string(ranks) + " ranks" + (gpus.size() > 1 ? " on GPUs" : "") +
                   (mode == Mode::kLatency ? " latency" : " throughput") +
                   (format == RowFormat::kFp8 ? " fp8" : " bf16") +
                   (deterministic ? " deterministic" : "") + " #" + std::to_string(next);
          c.shape = {ranks,
                     64 / ranks,
                     40 + 23 * (next % 3),
                     next % 2 == 0 ? 8 : 6,
                     256 + 128 * (next % 4),
                     format,
                     deterministic};
          c.devices = Spread(ranks, gpus);
          c.grid = {mode, FittingBlocks(ranks, gpus, mode), next % 2 == 1};
          c.routing = routing;
          c.shared = next % 3 == 1;
          c.serial = next % 8 == 7;
          cases.push_back(c);
          c.name += " other";
          c.routing = other;
          c.grid.num_blocks = 2 + next % 5;
          c.graph = ranks <= 4 && next % 2 == 0;
          c.serial = false;
          cases.push_back(c);
          ++next;
        }
      }
    }
  }
  return cases;
}

// DeepSeek-V3's sizes, full ranks.
std::vector<Case> LargeCases(const std::vector<int>& gpus) {
  std::vector<Case> cases;
  for (const bool deterministic : {false, true}) {
    for (const Mode mode : {Mode::kLatency, Mode::kThroughput}) {
      Case c;
      c.name = std::string("7168 columns, 2 ranks") +
               (mode == Mode::kLatency ? " latency" : " throughput") +
               (deterministic ? " deterministic" : "");
      c.shape = {
          2, 128, 96, 8, 7168, deterministic ? RowFormat::kBf16 : RowFormat::kFp8, deterministic};
      c.devices = Spread(2, gpus);
      c.grid = {mode, FittingBlocks(2, gpus, mode), true};
      c.calls = 2;
      c.full = true;
      cases.push_back(c);
    }
  }
  return cases;
}

// Half `h` of a call, without experts.
void QueueHalf(const World& world, const Shape& shape, int r, const Sequence& sequence, int h,
               uint64_t limit, Call& c) {
  Group group = world.MakeGroup(shape, r);
  group.wait_nanoseconds = limit;
  const Grid grid = {Mode::kLatency, 4, false};
  const cudaStream_t stream = world[r].stream;
  world.Select(r);
  if (h == 0) {
    LAUNCH_OK(LaunchDispatchSend(group, sequence, grid,
                                 {c.rows.get(), c.slots.get(), c.weights.get(), c.count.get()},
                                 stream));
  } else if (h == 1) {
    LAUNCH_OK(LaunchDispatchReceive(
        group, sequence, grid,
        {c.received.get(), c.scales.get(), WorstRows(shape), WorstRows(shape), c.offsets.get()},
        stream));
  } else if (h == 2) {
    LAUNCH_OK(LaunchCombineSend(group, sequence, grid, {c.expert_rows.get()}, stream));
  } else {
    LAUNCH_OK(LaunchCombineReceive(
        group, sequence, grid,
        {c.slots.get(), c.weights.get(), c.count.get(), nullptr, c.out.get()}, stream));
  }
}

// One rank stays silent in `half` (4: none does, the host stops a rank instead): the others' waits
// end, all of the step together, and name it.
void TestAbort(const std::vector<int>& gpus, int ranks, int half) {
  const std::string name =
      "abort in half " + std::to_string(half) + ", " + std::to_string(ranks) + " ranks: ";
  const int silent = ranks - 1;
  const Shape shape = {ranks, 16, 32, 4, 256, RowFormat::kFp8, false};
  World world(Spread(ranks, gpus), MakeLayout(shape).bytes);
  Rng rng(7);
  std::vector<std::unique_ptr<Call>> calls;
  for (int r = 0; r < ranks; ++r) {
    world.Select(r);
    calls.push_back(
        std::make_unique<Call>(shape, DrawTokens(rng, shape, 20, Routing::kUniform), false, rng));
    CUDA_OK(cudaMemset(calls[r]->expert_rows.get(), 0, calls[r]->expert_rows.bytes()));
    LAUNCH_OK(LaunchAdvanceStep(world[r].step, world[r].stream));
  }
  world.Synchronize();
  const auto begin = std::chrono::steady_clock::now();
  constexpr uint32_t kCalls = 40;
  const uint64_t limit = half == 4 ? 20000000000 : 200000000;  // nanoseconds
  for (uint32_t i = 0; i < kCalls; ++i) {
    for (int h = 0; h < 4; ++h) {
      for (int r = 0; r < ranks; ++r) {
        if (r == silent && (i > 0 || h >= half % 4)) continue;
        QueueHalf(world, shape, r, {world[r].step, kCalls, i}, h, limit, *calls[r]);
      }
    }
  }
  if (half == 4) {
    const uint32_t word = AbortWord(Phase::kNone, silent, silent);
    for (int r = 0; r < ranks; ++r) {
      world.Select(r);
      cudaStream_t side;
      CUDA_OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
      CUDA_OK(cudaMemcpyAsync(world[r].memory + offsetof(Signals, abort), &word, sizeof(word),
                              cudaMemcpyHostToDevice, side));
      CUDA_OK(cudaStreamSynchronize(side));
      CUDA_OK(cudaStreamDestroy(side));
    }
  }
  world.Synchronize();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Expect(seconds < SlowSeconds(std::chrono::seconds(2)),
         name + "took " + std::to_string(seconds) + " s");
  for (int r = 0; r < ranks; ++r) {
    if (r == silent) continue;
    world.Select(r);
    uint32_t word = 0;
    CUDA_OK(cudaMemcpy(&word, world[r].memory + offsetof(Signals, abort), sizeof(word),
                       cudaMemcpyDeviceToHost));
    const Abort abort = DecodeAbort(word);
    const Phase phase = half == 4 ? Phase::kNone : half == 0 ? Phase::kDispatch : Phase::kCombine;
    Expect(word != 0 && abort.silent == silent && abort.phase == phase,
           name + "rank " + std::to_string(r) + " has word " + std::to_string(word));
    Expect(calls[r]->offsets.Download() == std::vector<int32_t>(shape.slots_per_rank + 1, 0),
           name + "offsets are not zero after an abort");
    Expect(*world[r].host_abort == word,
           name + "host of rank " + std::to_string(r) + " was not told");
  }
  std::printf("%sended after %.3f s\n", name.c_str(), seconds);
}

void TestRefusals() {
  std::byte* base = nullptr;
  uint32_t* step = nullptr;
  CUDA_OK(cudaMalloc(&base, 4096));
  CUDA_OK(cudaMalloc(&step, 4));
  Group group;
  group.shape = {1, 4, 4, 2, 128, RowFormat::kFp8, false};
  group.bases[0] = base;
  const DispatchSend send = {base, reinterpret_cast<int32_t*>(base), reinterpret_cast<float*>(base),
                             reinterpret_cast<int32_t*>(base)};
  const auto refused = [&](Group g, Sequence sequence, DispatchSend args) {
    return LaunchDispatchSend(g, sequence, {}, args, nullptr) != nullptr;
  };
  Group bad = group;
  bad.shape.hidden = 100;
  Expect(refused(bad, {step}, send), "hidden 100 is refused");
  bad = group;
  bad.shape.num_ranks = 65;
  Expect(refused(bad, {step}, send), "65 ranks are refused");
  bad = group;
  bad.shape.num_ranks = 2;
  Expect(refused(bad, {step}, send), "a rank without memory is refused");
  Expect(refused(group, {}, send), "no step is refused");
  Expect(refused(group, {step}, {}), "no rows are refused");
  Expect(LaunchDispatchReceive(
             group, {step}, {},
             {base, reinterpret_cast<float*>(base), 4, 4, reinterpret_cast<int32_t*>(base)},
             nullptr) != nullptr,
         "too small a capacity is refused");
  CUDA_OK(cudaFree(base));
  CUDA_OK(cudaFree(step));
}

void RunOn(const std::vector<int>& gpus, int repeats) {
  const auto begin = std::chrono::steady_clock::now();
  int runs = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (const Case& c : Cases(gpus)) {
      const int before = moebius::kernels::cuda::testing::Failures();
      Test(c, 1000 * repeat + runs).Run();
      ++runs;
      if (moebius::kernels::cuda::testing::Failures() > before) {
        std::printf("  in run %d\n", runs);
        if (moebius::kernels::cuda::testing::Failures() > 12) return;
      }
    }
  }
  for (const Case& c : LargeCases(gpus)) {
    Test(c, 99).Run();
    ++runs;
  }
  for (const int half : {0, 2, 4}) {
    TestAbort(gpus, 2, half);
    if (gpus.size() == 1) TestAbort(gpus, 4, half);
  }
  std::printf("%d GPU(s): %d runs of up to 6 calls, %.1f s\n", static_cast<int>(gpus.size()), runs,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  // Waiting kernels and lazy loading, or shared hardware queues, would block each other.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
  bool one = true;
  bool several = true;
  int repeats = 3;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--gpus-only") == 0) one = false;
    if (std::strcmp(argv[i], "--one-gpu-only") == 0) several = false;
    if (std::strcmp(argv[i], "--repeats") == 0 && i + 1 < argc) repeats = std::atoi(argv[++i]);
  }
  int count = 0;
  CUDA_OK(cudaGetDeviceCount(&count));
  TestRefusals();
  if (one) RunOn({0}, repeats);
  std::vector<int> gpus;
  for (int d = 0; d < count; ++d) gpus.push_back(d);
  if (several && count >= 2 && EnablePeers(gpus)) {
    RunOn(gpus, repeats);
  } else if (several) {
    std::printf("fewer than two GPUs that address each other: ranks of one GPU only\n");
  }
  std::printf(moebius::kernels::cuda::testing::Failures() == 0 ? "exchange: passed\n"
                                                               : "exchange: FAILED\n");
  return moebius::kernels::cuda::testing::Failures() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebius::cuda::exchange::testing

int main(int argc, char** argv) { return moebius::cuda::exchange::testing::Main(argc, argv); }
