// Ranks are threads over memory as processes would map it, one thread each.
#include <fmt/format.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "bench/micro/micro_bench.h"
#include "comm/shared_communicator.h"
#include "kernels/backend.h"
#include "moe/exchange/all_gather_exchange.h"
#include "moe/exchange/group_exchange.h"
#include "platform/memory.h"

namespace moebius::bench {
namespace {

using comm::Clock;
using comm::SharedCommunicator;
using moe::Exchange;
using moe::ExchangeMode;
using moe::ExchangeShape;

constexpr int64_t kTopK = 8;
constexpr int64_t kNumSlots = 256;
constexpr size_t kChunkBytes = 1 << 20;

constexpr int kNumIterations = 20;

platform::Region Zeros(size_t bytes) {
  auto region = platform::Region::Allocate(bytes);
  MOEBIUS_CHECK(region.has_value());
  return std::move(*region);
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct RankTimes {
  double wall = 0;  // of one iteration
  double cpu = 0;   // of all ranks
  bool right = true;
};

// What one rank does in iteration i, from 0; and whether its result of the last one is right.
struct Turns {
  std::function<void(int64_t)> run;
  std::function<bool()> is_right;
};

// make: on the rank's thread.
RankTimes MeasureRanks(int num_ranks, const std::function<Turns(int)>& make) {
  std::barrier<> barrier(num_ranks);
  std::vector<double> cpu(static_cast<size_t>(num_ranks));
  std::vector<char> right(static_cast<size_t>(num_ranks));
  double wall = 0;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const Turns turns = make(rank);
      for (int64_t i = 0; i < 2; ++i) turns.run(i);
      barrier.arrive_and_wait();
      const Clock::time_point begin = Clock::now();
      const double cpu_begin = CpuSeconds();
      for (int64_t i = 0; i < kNumIterations; ++i) turns.run(i + 2);
      cpu[static_cast<size_t>(rank)] = CpuSeconds() - cpu_begin;
      barrier.arrive_and_wait();
      if (rank == 0) wall = std::chrono::duration<double>(Clock::now() - begin).count();
      right[static_cast<size_t>(rank)] = turns.is_right();
    });
  }
  for (std::thread& thread : threads) thread.join();
  constexpr double kNum = kNumIterations;
  return {wall / kNum, std::accumulate(cpu.begin(), cpu.end(), 0.0) / kNum,
          std::ranges::find(right, 0) == right.end()};
}

// A row that tells ranks and rows apart, in numbers that bfloat16 has.
void FillRow(const Mat& rows, int64_t row, int rank) {
  for (int64_t col = 0; col < rows.cols; ++col) {
    const int64_t value = 1 + (rank * 31 + row * 7 + col) % 64;
    StoreFloat(rows.RowBytes(row), rows.dtype, col, static_cast<float>(value));
  }
}

comm::GroupInfo Member(int num_ranks, int rank) {
  comm::GroupInfo info{.name = "bench", .rank = rank};
  info.world_ranks.resize(static_cast<size_t>(num_ranks));
  std::iota(info.world_ranks.begin(), info.world_ranks.end(), 0);
  return info;
}

Clock::time_point Soon() { return Clock::now() + std::chrono::seconds(60); }

class RanksBench {
 public:
  RanksBench(int64_t hidden, int num_ranks, std::FILE* json)
      : hidden_(hidden), num_ranks_(num_ranks), json_(json) {
    fmt::print(
        "\n{} ranks, rows of {} bfloat16; share: of what plain copies move in a CPU second\n",
        num_ranks, hidden);
    fmt::print("{:<54} {:>9} {:>9} {:>12} {:>7}\n", "", "us", "GB/s", "GB/CPU-s", "share");
  }

  bool all_right() const { return all_right_; }

  // bytes: that arrive at all ranks in one iteration.
  void Print(const std::string& what, double bytes, const RankTimes& times) {
    all_right_ = all_right_ && times.right;
    const double per_cpu = 1e-9 * bytes / times.cpu;
    const double share = copy_ == 0 ? 1.0 : per_cpu / copy_;
    fmt::print("{:<54} {:>9.1f} {:>9.2f} {:>12.2f} {:>7.2f}  {}\n", what, 1e6 * times.wall,
               1e-9 * bytes / times.wall, per_cpu, share, times.right ? "right" : "WRONG");
    std::fflush(stdout);
    if (json_ == nullptr) return;
    fmt::print(json_,
               "{{\"benchmark\":\"exchange\",\"device\":\"cpu\",\"ranks\":{},\"hidden\":{},"
               "\"what\":\"{}\",\"us\":{:.3f},\"cpu_us\":{:.3f},\"bytes\":{:.0f},"
               "\"copy_share\":{:.4f},\"correct\":{}}}\n",
               num_ranks_, hidden_, what, 1e6 * times.wall, 1e6 * times.cpu, bytes, share,
               times.right);
  }

  // Every rank copies what no cache holds.
  void Copies() {
    constexpr size_t kBytes = 32 << 20;
    std::vector<platform::Region> regions;
    for (int i = 0; i < 2 * num_ranks_; ++i) regions.push_back(Zeros(kBytes));
    const RankTimes times = MeasureRanks(num_ranks_, [&](int rank) -> Turns {
      std::byte* const from = regions[2 * static_cast<size_t>(rank)].data();
      std::byte* const to = regions[2 * static_cast<size_t>(rank) + 1].data();
      std::memset(from, 1 + rank, kBytes);
      return {[=](int64_t) { std::memcpy(to, from, kBytes); },
              [=] { return std::memcmp(to, from, kBytes) == 0; }};
    });
    const double bytes = static_cast<double>(kBytes) * num_ranks_;
    Print("plain copies of 32 MiB", bytes, times);
    copy_ = 1e-9 * bytes / times.cpu;
  }

  void Collectives(int64_t rows) {
    Gathers(rows);
    Reductions(rows);
  }

  void Exchanges(int64_t tokens, ExchangeMode mode, bool deterministic = false) {
    const ExchangeShape shape{.num_ranks = num_ranks_,
                              .num_slots = kNumSlots,
                              .max_tokens = tokens,
                              .top_k = kTopK,
                              .hidden = hidden_,
                              .act = DType::kBF16,
                              .deterministic = deterministic};
    const platform::Region memory = Zeros(moe::GroupExchange::NumBytes(shape));
    const std::span<std::byte> span(memory.data(), memory.size());
    RunExchange(fmt::format("dispatch + combine, {} tokens a rank, {}{}", tokens,
                            ExchangeModeName(mode), deterministic ? ", deterministic" : ""),
                shape, [&](int rank) -> std::shared_ptr<Exchange> {
                  return std::make_shared<moe::GroupExchange>(
                      shape, Member(num_ranks_, rank), span,
                      moe::GroupExchangeOptions{.mode = mode});
                });
  }

  void AllGatherExchanges(int64_t tokens) {
    const ExchangeShape shape{.num_ranks = num_ranks_,
                              .num_slots = kNumSlots,
                              .max_tokens = tokens,
                              .top_k = kTopK,
                              .hidden = hidden_,
                              .act = DType::kBF16};
    const platform::Region memory = Zeros(SharedCommunicator::NumBytes(num_ranks_, kChunkBytes));
    const std::span<std::byte> span(memory.data(), memory.size());
    std::vector<std::unique_ptr<SharedCommunicator>> comms;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      comms.push_back(
          std::make_unique<SharedCommunicator>(Member(num_ranks_, rank), span, kChunkBytes));
    }
    RunExchange(fmt::format("dispatch + combine, {} tokens, all-gather", tokens), shape,
                [&](int rank) -> std::shared_ptr<Exchange> {
                  return std::make_shared<moe::AllGatherExchange>(
                      shape, *comms[static_cast<size_t>(rank)]);
                });
  }

 private:
  void Gathers(int64_t rows) {
    const auto bytes = static_cast<size_t>(rows * hidden_ * 2);
    const platform::Region memory = Zeros(SharedCommunicator::NumBytes(num_ranks_, kChunkBytes));
    const std::span<std::byte> span(memory.data(), memory.size());
    const auto members = static_cast<size_t>(num_ranks_);
    const RankTimes times = MeasureRanks(num_ranks_, [&](int rank) -> Turns {
      auto comm = std::make_shared<SharedCommunicator>(Member(num_ranks_, rank), span, kChunkBytes);
      auto mine = std::make_shared<std::vector<std::byte>>(bytes, std::byte(rank + 1));
      auto all = std::make_shared<std::vector<std::byte>>(bytes * members);
      return {[=](int64_t i) {
                comm->BeginStep(i, Soon());
                comm->AllGather(*mine, *all);
              },
              [=] {
                bool right = comm->status().has_value();
                for (size_t i = 0; i < all->size(); ++i) {
                  right = right && (*all)[i] == std::byte(i / bytes + 1);
                }
                return right;
              }};
    });
    const double total = static_cast<double>(bytes) * num_ranks_;
    Print(fmt::format("all-gather, {} rows a rank", rows), total * num_ranks_, times);
  }

  // In place, so that each call multiplies what the first one gave: exactly, by a power of two.
  void Reductions(int64_t rows) {
    const platform::Region memory = Zeros(SharedCommunicator::NumBytes(num_ranks_, kChunkBytes));
    const std::span<std::byte> span(memory.data(), memory.size());
    const RankTimes times = MeasureRanks(num_ranks_, [&](int rank) -> Turns {
      auto comm = std::make_shared<SharedCommunicator>(Member(num_ranks_, rank), span, kChunkBytes);
      auto data = std::make_shared<std::vector<uint16_t>>(static_cast<size_t>(rows * hidden_));
      const Mat mat(data->data(), DType::kBF16, rows, hidden_);
      for (int64_t i = 0; i < rows * hidden_; ++i) {
        StoreFloat(mat.data, mat.dtype, i, static_cast<float>(rank + 1));
      }
      return {[=](int64_t i) {
                comm->BeginStep(i, Soon());
                comm->AllReduce(mat);
              },
              [=, this] {
                const double sum = num_ranks_ * (num_ranks_ + 1) / 2.0;
                const double want = sum * std::pow(num_ranks_, kNumIterations + 1);
                bool right = comm->status().has_value();
                for (size_t i = 0; i < data->size(); ++i) {
                  right = right &&
                          LoadFloat(data->data(), DType::kBF16, static_cast<int64_t>(i)) == want;
                }
                return right;
              }};
    });
    Print(fmt::format("all-reduce, {} rows", rows),
          static_cast<double>(rows * hidden_ * 2) * num_ranks_, times);
  }

  struct Rank {
    platform::Region memory;
    Arena arena;
    std::unique_ptr<platform::ThreadPool> pool = platform::ThreadPool::Create({0});
    kernels::ExecContext ctx;
    std::vector<int32_t> slots;
    std::vector<float> weights;
    Mat rows;
    Mat expert_rows;
    Mat out;
  };

  // Everything but the experts, which give back what they get.
  std::shared_ptr<Rank> MakeRank(const Exchange& exchange, const ExchangeShape& shape,
                                 int rank) const {
    auto state = std::make_shared<Rank>();
    const int64_t tokens = shape.max_tokens;
    const int64_t places = exchange.MaxPlaces(tokens, kTopK);
    state->memory = Zeros(exchange.ArenaBytes(tokens, kTopK, kNumSlots) +
                          static_cast<size_t>((places + 2 * tokens) * shape.row_bytes()) + 4096);
    state->arena = Arena(state->memory.data(), state->memory.size());
    state->rows = state->arena.AllocMat(shape.act, tokens, shape.hidden);
    state->out = state->arena.AllocMat(shape.act, tokens, shape.hidden);
    state->expert_rows = state->arena.AllocMat(shape.act, places, shape.hidden);
    state->ctx.backend = kernels::AvailableBackends().front();
    state->ctx.pool = state->pool.get();
    std::mt19937 random(static_cast<unsigned>(rank));
    std::vector<int32_t> all(kNumSlots);
    std::iota(all.begin(), all.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(all.begin(), all.end(), random);
      state->slots.insert(state->slots.end(), all.begin(), all.begin() + kTopK);
    }
    state->weights.assign(state->slots.size(), 1.0F / kTopK);
    for (int64_t t = 0; t < tokens; ++t) FillRow(state->rows, t, rank);
    return state;
  }

  static void CopyToPlaces(const moe::DispatchedRows& got, const Mat& expert_rows) {
    for (int64_t place = 0; place < got.offsets.back(); ++place) {
      const int64_t row =
          got.pairs.empty() ? place : got.pairs[static_cast<size_t>(place)] / got.rows_per_pair;
      std::memcpy(expert_rows.RowBytes(place), got.rows.RowBytes(row),
                  static_cast<size_t>(got.rows.cols) * SizeOf(got.rows.dtype));
    }
  }

  // Weights add up to one and experts change nothing: each token's own row comes home. Partial sums
  // of ranks are rounded to bfloat16 on their way.
  static bool IsHome(const Rank& state) {
    bool right = true;
    for (int64_t row = 0; row < state.rows.rows; ++row) {
      for (int64_t col = 0; col < state.rows.cols; ++col) {
        const float want = LoadFloat(state.rows.RowBytes(row), state.rows.dtype, col);
        const float got = LoadFloat(state.out.RowBytes(row), state.out.dtype, col);
        right = right && std::abs(got - want) <= want / 32;
      }
    }
    return right;
  }

  // Rows that arrive count, a rank's own too.
  void RunExchange(const std::string& what, const ExchangeShape& shape,
                   const std::function<std::shared_ptr<Exchange>(int)>& make) {
    std::vector<double> rows(static_cast<size_t>(num_ranks_));
    const RankTimes times = MeasureRanks(num_ranks_, [&](int rank) -> Turns {
      auto exchange = make(rank);
      auto state = MakeRank(*exchange, shape, rank);
      rows[static_cast<size_t>(rank)] = RowsSent(shape, state->slots);
      return {[=](int64_t i) {
                exchange->BeginStep(i, Soon());
                const ArenaScope scope(state->arena);
                const moe::DispatchedRows got = exchange->Dispatch(state->ctx,
                                                                   {.rows = state->rows,
                                                                    .slots = state->slots,
                                                                    .weights = state->weights,
                                                                    .k = kTopK,
                                                                    .num_slots = kNumSlots},
                                                                   state->arena);
                if (i == 0) CopyToPlaces(got, state->expert_rows);  // the same in every iteration
                moe::CombineArgs combine;
                combine.expert_rows = state->expert_rows;
                combine.out = state->out;
                exchange->Combine(state->ctx, combine);
              },
              [=] { return exchange->status().has_value() && IsHome(*state); }};
    });
    const double sent = std::accumulate(rows.begin(), rows.end(), 0.0);
    Print(what, 2 * sent * static_cast<double>(shape.row_bytes()), times);
  }

  // Tokens once a rank: what both halves have to move.
  static double RowsSent(const ExchangeShape& shape, const std::vector<int32_t>& slots) {
    double rows = 0;
    for (size_t begin = 0; begin < slots.size(); begin += kTopK) {
      std::vector<bool> seen(static_cast<size_t>(shape.num_ranks));
      for (size_t j = 0; j < kTopK; ++j) {
        seen[static_cast<size_t>(slots[begin + j] / shape.slots_per_rank())] = true;
      }
      rows += static_cast<double>(std::count(seen.begin(), seen.end(), true));
    }
    return rows;
  }

  const int64_t hidden_;
  const int num_ranks_;
  std::FILE* const json_;
  double copy_ = 0;
  bool all_right_ = true;
};

bool RunRanks(int64_t hidden, int num_ranks, std::FILE* json) {
  RanksBench bench(hidden, num_ranks, json);
  bench.Copies();
  for (const int64_t rows : {1, 32, 512}) bench.Collectives(rows);
  for (const int64_t tokens : {1, 8, 32, 128, 512}) {
    bench.Exchanges(tokens, ExchangeMode::kLatency);
    bench.Exchanges(tokens, ExchangeMode::kThroughput);
  }
  for (const int64_t tokens : {8, 512}) {
    bench.Exchanges(tokens, ExchangeMode::kAuto, true);
    bench.AllGatherExchanges(tokens);
  }
  return bench.all_right();
}

}  // namespace

Result<bool> BenchExchange(const ExchangeBenchOptions& options, std::FILE* json) {
  if (options.num_ranks != 0 && options.num_ranks != 2 && options.num_ranks != 4 &&
      options.num_ranks != 8) {
    return MakeError(ErrorCode::kInvalidArgument, "--ranks is {}, expected 2, 4 or 8",
                     options.num_ranks);
  }
  if (options.share_gpus) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--share-gpus is of GPUs, expected --device cuda");
  }
  bool right = true;
  for (const int num_ranks : {2, 4, 8}) {
    const bool wanted = options.num_ranks == 0 ? num_ranks != 4 : num_ranks == options.num_ranks;
    if (wanted) right = RunRanks(options.hidden, num_ranks, json) && right;
  }
  return right;
}

}  // namespace moebius::bench
