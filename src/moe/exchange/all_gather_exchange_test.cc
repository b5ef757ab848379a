#include "moe/exchange/all_gather_exchange.h"

#include "comm/shared_communicator.h"
#include "moe/exchange/test_util.h"

namespace moebius::moe {
namespace {

using comm::SharedCommunicator;
using testing::Clock;
using testing::TestMat;
using testing::Tokens;

constexpr size_t kChunkBytes = 512;  // small: parts take several rounds

std::vector<TestMat> RunRanks(const ExchangeShape& shape, const std::vector<Tokens>& tokens,
                              const testing::StepOptions& step) {
  testing::SharedMemory memory(SharedCommunicator::NumBytes(shape.num_ranks, kChunkBytes));
  std::vector<TestMat> out;
  for (const Tokens& part : tokens) out.emplace_back(shape.act, part.count(), shape.hidden);
  testing::OnThreads(shape.num_ranks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    const auto pool = testing::MakePool(1);
    kernels::ExecContext ctx = testing::ContextOn(testing::Best(), pool.get());
    SharedCommunicator comm(testing::MemberInfo(shape.num_ranks, rank, nullptr), memory.bytes(),
                            kChunkBytes);
    AllGatherExchange exchange(shape, comm);
    exchange.BeginStep(0, Clock::now() + std::chrono::seconds(60));
    const int64_t chunks = testing::NumChunks(shape, tokens);
    testing::RunChunks(exchange, ctx, shape, rank, chunks, tokens[r], step, out[r].view());
    ASSERT_TRUE(exchange.status()) << exchange.status().error().message();
    // A count a chunk; a token's row, slots and weights; out, the sums of everybody's tokens.
    constexpr int64_t kSlotAndWeight = 8;
    EXPECT_EQ(exchange.bytes().dispatch,
              chunks * 8 + tokens[r].count() * (shape.row_bytes() + kSlotAndWeight * shape.top_k));
    int64_t all = 0;
    for (const Tokens& part : tokens) all += part.count();
    if (!shape.deterministic) {
      EXPECT_EQ(exchange.bytes().combine, all * shape.row_bytes());
    }
    EXPECT_EQ(exchange.num_home_rows(), std::ranges::count_if(tokens[r].slots, [&](int32_t slot) {
                return slot >= FirstSlot(shape, rank) && slot < FirstSlot(shape, rank + 1);
              }));
  });
  return out;
}

TEST(AllGatherExchange, EqualsOneRank) {
  uint64_t seed = 30;
  for (const int num_ranks : {1, 2, 3, 5, 8}) {
    for (const DType act : {DType::kF32, DType::kBF16}) {
      ++seed;
      ExchangeShape shape{.num_ranks = num_ranks,
                          .num_slots = 13,
                          .max_tokens = 6,
                          .top_k = 3,
                          .hidden = 20,
                          .act = act};
      std::vector<int64_t> counts;
      for (int rank = 0; rank < num_ranks; ++rank) counts.push_back(rank * 5 % 14);
      testing::StepOptions step;
      step.weighted = seed % 3 != 0;
      step.shared = seed % 4 != 0;
      const std::vector<Tokens> tokens = testing::DrawAll(seed, shape, counts);
      const auto alone = testing::RunAlone(testing::Best(), shape, tokens, step);
      const auto summed = RunRanks(shape, tokens, step);
      testing::ExpectClose(shape, summed, alone);
      testing::ExpectSameBits(RunRanks(shape, tokens, step), summed);
      shape.deterministic = true;
      testing::ExpectSameBits(RunRanks(shape, tokens, step), alone);
    }
  }
}

TEST(AllGatherExchange, AMissingMemberEndsTheStep) {
  const ExchangeShape shape{
      .num_ranks = 2, .num_slots = 4, .max_tokens = 4, .top_k = 2, .hidden = 8};
  const std::vector<Tokens> tokens = testing::DrawAll(1, shape, {3, 3});
  testing::SharedMemory memory(SharedCommunicator::NumBytes(2, kChunkBytes));
  comm::AbortWord abort;
  SharedCommunicator comm(testing::MemberInfo(2, 0, &abort), memory.bytes(), kChunkBytes);
  AllGatherExchange exchange(shape, comm);
  const auto pool = testing::MakePool(1);
  kernels::ExecContext ctx = testing::ContextOn(testing::Best(), pool.get());
  exchange.BeginStep(5, Clock::now() + std::chrono::milliseconds(100));
  TestMat out(shape.act, 3, shape.hidden);
  const std::vector<uint8_t> before = out.RowCopy(0);
  testing::RunChunks(exchange, ctx, shape, 0, 2, tokens[0], {}, out.view());
  ASSERT_FALSE(exchange.status());
  EXPECT_NE(exchange.status().error().message().find("rank 101 did not come in time"),
            std::string::npos);
  EXPECT_EQ(out.RowCopy(0), before);
}

}  // namespace
}  // namespace moebius::moe
