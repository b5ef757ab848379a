// What the tests of exchanges share: tokens of many ranks, experts that are cheap and tell slots
// apart, a group of threads, and one rank alone (LocalExchange over all tokens) as the truth.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/test_util.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/local.h"
#include "moe/exchange/protocol.h"

namespace moebius::moe::testing {

using comm::Clock;
using kernels::Random;
using kernels::TestMat;

// Zeros that all members of a group map.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes) : lines_(bytes / sizeof(Line) + 1) {}
  std::span<std::byte> bytes() {
    return {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * sizeof(Line)};
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines_;
};

// The tokens of one rank.
struct Tokens {
  TestMat rows;
  TestMat shared;
  std::vector<int32_t> slots;
  std::vector<float> weights;
  int64_t count() const { return rows.view().rows; }
};

// A choice out of `choices` has no slot; the slots of a token are distinct.
inline Tokens DrawTokens(Random& random, const ExchangeShape& shape, int64_t count,
                         int64_t none_in = 12) {
  Tokens tokens{
      TestMat(shape.act, count, shape.hidden), TestMat(shape.act, count, shape.hidden), {}, {}};
  tokens.rows.Fill(random);
  tokens.shared.Fill(random);
  for (int64_t t = 0; t < count; ++t) {
    std::set<int32_t> seen;
    for (int64_t j = 0; j < shape.top_k; ++j) {
      int32_t slot = -1;
      if (random.Below(none_in) != 0) {
        // Half of the choices crowd together: ragged slots, and several of a token on one rank.
        const bool crowd = random.Below(2) == 0;
        do {
          slot = static_cast<int32_t>(crowd && seen.size() < 2 ? random.Below(2)
                                                               : random.Below(shape.num_slots));
        } while (seen.contains(slot));
        seen.insert(slot);
      }
      tokens.slots.push_back(slot);
      tokens.weights.push_back(0.1F + static_cast<float>(random.Below(900)) / 700);
    }
  }
  return tokens;
}

inline std::vector<Tokens> DrawAll(uint64_t seed, const ExchangeShape& shape,
                                   const std::vector<int64_t>& counts) {
  Random random(seed);
  std::vector<Tokens> all;
  for (const int64_t count : counts) all.push_back(DrawTokens(random, shape, count));
  return all;
}

// One rank's tokens after another's.
inline Tokens Concatenate(const ExchangeShape& shape, const std::vector<Tokens>& parts) {
  int64_t count = 0;
  for (const Tokens& part : parts) count += part.count();
  Tokens all{
      TestMat(shape.act, count, shape.hidden), TestMat(shape.act, count, shape.hidden), {}, {}};
  int64_t row = 0;
  for (const Tokens& part : parts) {
    for (int64_t t = 0; t < part.count(); ++t, ++row) {
      const auto bytes = static_cast<size_t>(shape.row_bytes());
      std::memcpy(all.rows.view().RowBytes(row), part.rows.view().RowBytes(t), bytes);
      std::memcpy(all.shared.view().RowBytes(row), part.shared.view().RowBytes(t), bytes);
    }
    all.slots.insert(all.slots.end(), part.slots.begin(), part.slots.end());
    all.weights.insert(all.weights.end(), part.weights.begin(), part.weights.end());
  }
  return all;
}

// What experts do to the rows of a rank's slots; first_slot: the global one of local slot 0.
// scale_input: the router's weights multiply what is read.
using Experts = std::function<void(kernels::ExecContext& ctx, const DispatchedRows& work,
                                   int64_t first_slot, bool scale_input, Mat out)>;

inline void MixColumns(kernels::ExecContext& /*ctx*/, const DispatchedRows& work,
                       int64_t first_slot, bool scale_input, Mat out) {
  for (size_t s = 0; s + 1 < work.offsets.size(); ++s) {
    const auto slot = static_cast<float>(first_slot + static_cast<int64_t>(s));
    for (int32_t place = work.offsets[s]; place < work.offsets[s + 1]; ++place) {
      const auto pair = static_cast<size_t>(work.pairs[static_cast<size_t>(place)]);
      const std::byte* row = work.rows.RowBytes(static_cast<int64_t>(pair) / work.rows_per_pair);
      const float scale = scale_input ? work.weights[pair] : 1.0F;
      for (int64_t c = 0; c < out.cols; ++c) {
        const float x = scale * LoadFloat(row, out.dtype, c);
        const float y = LoadFloat(row, out.dtype, (c + 1) % out.cols);
        StoreFloat(out.RowBytes(place), out.dtype, c,
                   x * (0.5F + 0.25F * std::fmod(slot, 7.0F)) + 0.125F * y + 0.01F * slot);
      }
    }
  }
}

struct StepOptions {
  bool weighted = true;
  bool shared = true;
  Experts experts = MixColumns;
};

// The MoE block of one rank over its tokens, in `num_chunks` calls of at most shape.max_tokens.
inline void RunChunks(Exchange& exchange, kernels::ExecContext& ctx, const ExchangeShape& shape,
                      int rank, int64_t num_chunks, const Tokens& tokens,
                      const StepOptions& options, Mat out) {
  const size_t promised = exchange.ArenaBytes(shape.max_tokens, shape.top_k, shape.num_slots);
  const int64_t max_places = exchange.MaxPlaces(shape.max_tokens, shape.top_k);
  SharedMemory memory(promised + static_cast<size_t>(max_places * shape.row_bytes()) + 64);
  Arena arena(memory.bytes().data(), memory.bytes().size());
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const ArenaScope scope(arena);
    const int64_t begin = std::min(tokens.count(), chunk * shape.max_tokens);
    const int64_t count = std::min(tokens.count() - begin, shape.max_tokens);
    const auto first = static_cast<size_t>(begin * shape.top_k);
    const auto pairs = static_cast<size_t>(count * shape.top_k);
    const DispatchedRows work =
        exchange.Dispatch(ctx,
                          {.rows = tokens.rows.view().Rows(begin, count),
                           .slots = std::span(tokens.slots).subspan(first, pairs),
                           .weights = std::span(tokens.weights).subspan(first, pairs),
                           .k = shape.top_k,
                           .num_slots = shape.num_slots},
                          arena);
    EXPECT_LE(arena.used(), promised);
    EXPECT_LE(work.max_places, max_places);
    EXPECT_EQ(static_cast<int64_t>(work.offsets.size()), NumLocalSlots(shape, rank) + 1);
    const Mat expert_rows = arena.AllocMat(shape.act, work.max_places, shape.hidden);
    options.experts(ctx, work, FirstSlot(shape, rank), !options.weighted, expert_rows);
    CombineArgs combine;
    combine.expert_rows = expert_rows;
    combine.weighted = options.weighted;
    if (options.shared) combine.shared = tokens.shared.view().Rows(begin, count);
    combine.out = out.Rows(begin, count);
    exchange.Combine(ctx, combine);
  }
}

inline int64_t NumChunks(const ExchangeShape& shape, const std::vector<Tokens>& tokens) {
  int64_t most = 1;
  for (const Tokens& part : tokens) {
    most = std::max(most, (part.count() + shape.max_tokens - 1) / shape.max_tokens);
  }
  return most;
}

// The fastest back end of this machine.
inline const kernels::Backend* Best() { return kernels::AvailableBackends().front(); }

inline kernels::ExecContext ContextOn(const kernels::Backend* backend, platform::ThreadPool* pool,
                                      Arena* workspace = nullptr) {
  kernels::ExecContext ctx;
  ctx.backend = backend;
  ctx.pool = pool;
  ctx.workspace = workspace;
  return ctx;
}

inline std::unique_ptr<platform::ThreadPool> MakePool(int num_threads) {
  const std::vector<int> allowed = platform::AllowedCpus();
  std::vector<int> cpus;
  for (int i = 0; i < num_threads; ++i) {
    cpus.push_back(allowed[static_cast<size_t>(i) % allowed.size()]);
  }
  return platform::ThreadPool::Create(cpus);
}

// What each rank must have in the end, from one rank that has all slots and all tokens.
inline std::vector<TestMat> RunAlone(const kernels::Backend* backend, const ExchangeShape& shape,
                                     const std::vector<Tokens>& tokens, const StepOptions& options,
                                     Arena* workspace = nullptr) {
  const Tokens all = Concatenate(shape, tokens);
  TestMat out(shape.act, all.count(), shape.hidden);
  ExchangeShape alone = shape;
  alone.num_ranks = 1;
  alone.max_tokens = std::max<int64_t>(all.count(), 1);
  const auto pool = MakePool(1);
  kernels::ExecContext ctx = ContextOn(backend, pool.get(), workspace);
  LocalExchange exchange;
  RunChunks(exchange, ctx, alone, 0, 1, all, options, out.view());
  std::vector<TestMat> parts;
  int64_t row = 0;
  for (const Tokens& part : tokens) {
    parts.emplace_back(shape.act, part.count(), shape.hidden);
    for (int64_t t = 0; t < part.count(); ++t, ++row) {
      std::memcpy(parts.back().view().RowBytes(t), out.view().RowBytes(row),
                  static_cast<size_t>(shape.row_bytes()));
    }
  }
  return parts;
}

// body(rank) on a thread of its own for each rank.
inline void OnThreads(int num_ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// A member of a test's group: world ranks begin at 100, so that they are not taken for others.
inline comm::GroupInfo MemberInfo(int num_ranks, int rank, comm::AbortWord* abort) {
  comm::GroupInfo info{.name = "test group", .rank = rank, .abort = abort};
  info.world_ranks.resize(static_cast<size_t>(num_ranks));
  std::iota(info.world_ranks.begin(), info.world_ranks.end(), 100);
  return info;
}

inline void ExpectSameBits(const std::vector<TestMat>& got, const std::vector<TestMat>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t r = 0; r < got.size(); ++r) {
    EXPECT_TRUE(got[r].Untouched());
    for (int64_t t = 0; t < want[r].view().rows; ++t) {
      ASSERT_EQ(got[r].RowCopy(t), want[r].RowCopy(t)) << "rank " << r << ", token " << t;
    }
  }
}

// Within the rounding of one partial sum a rank.
inline void ExpectClose(const ExchangeShape& shape, const std::vector<TestMat>& got,
                        const std::vector<TestMat>& want) {
  const float unit = shape.act == DType::kF32 ? 1e-6F : 1.0F / 256;
  for (size_t r = 0; r < got.size(); ++r) {
    EXPECT_TRUE(got[r].Untouched());
    for (int64_t t = 0; t < want[r].view().rows; ++t) {
      float largest = 1;
      for (int64_t c = 0; c < shape.hidden; ++c) {
        largest = std::max(largest, std::fabs(want[r].At(t, c)));
      }
      for (int64_t c = 0; c < shape.hidden; ++c) {
        ASSERT_NEAR(got[r].At(t, c), want[r].At(t, c), 4 * unit * largest)
            << "rank " << r << ", token " << t << ", column " << c;
      }
    }
  }
}

}  // namespace moebius::moe::testing
