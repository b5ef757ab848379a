// Several engines as one: where requests go and how they come back, with engines whose every event
// is given by hand.
#include "rank/data_parallel_client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <set>

#include "engine/token_stream.h"
#include "rank/data_parallel_fake_engine_test.h"

namespace moebius::rank {
namespace {

using engine::FinishReason;
using engine::RequestId;
using engine::TokenStream;

std::vector<TokenId> Tokens(int64_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

engine::RequestInput Input(std::vector<TokenId> prompt, int32_t max_tokens = 8) {
  engine::RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.max_tokens = max_tokens;
  return input;
}

struct Rig {
  explicit Rig(size_t num_ranks) {
    std::vector<std::unique_ptr<engine::EngineClient>> owned;
    for (size_t i = 0; i < num_ranks; ++i) {
      engines.push_back(new HandEngine);
      owned.emplace_back(engines.back());
    }
    auto made = DataParallelClient::Create(std::move(owned), {.block_size = 4});
    EXPECT_TRUE(made.has_value()) << made.error().message();
    client = std::move(*made);
  }

  struct Placed {
    RequestId id;
    size_t rank = 0;
    RequestId there;  // its engine's id
  };
  Placed Submit(engine::RequestInput input, const engine::TokenSink& sink = [](const auto&) {}) {
    std::vector<std::set<RequestId>> before;
    for (const HandEngine* engine : engines) {
      const auto ids = engine->ids();
      before.emplace_back(ids.begin(), ids.end());
    }
    const auto id = client->Submit(std::move(input), sink);
    EXPECT_TRUE(id.has_value()) << id.error().message();
    for (size_t rank = 0; rank < engines.size(); ++rank) {
      for (const RequestId there : engines[rank]->ids()) {
        if (!before[rank].contains(there)) return {*id, rank, there};
      }
    }
    ADD_FAILURE() << "nobody has it";
    return {};
  }
  // An answer of these tokens, at once.
  size_t Converse(const std::vector<TokenId>& prompt, const std::vector<TokenId>& answer) {
    const Placed placed = Submit(Input(prompt));
    engines[placed.rank]->Say(placed.there, answer, FinishReason::kStop);
    return placed.rank;
  }

  std::vector<HandEngine*> engines;
  std::unique_ptr<DataParallelClient> client;
};

TEST(DataParallelClient, EventsAndCancelsFindTheirWay) {
  Rig rig(3);
  std::vector<TokenStream> streams(30);
  std::vector<Rig::Placed> placed;
  std::set<RequestId> ids;
  for (size_t i = 0; i < streams.size(); ++i) {
    placed.push_back(rig.Submit(Input(Tokens(10, static_cast<TokenId>(100 * i))),
                                [&, i, sink = streams[i].Sink()](const engine::TokenEvent& event) {
                                  EXPECT_EQ(event.request, placed[i].id);
                                  sink(event);
                                }));
    EXPECT_EQ(rig.engines[placed[i].rank]->input(placed[i].there).prompt[0], 100 * i);
    EXPECT_TRUE(ids.insert(placed[i].id).second);
  }
  for (const HandEngine* engine : rig.engines) EXPECT_EQ(engine->ids().size(), 10U);
  for (size_t i = 0; i < streams.size(); ++i) {
    rig.engines[placed[i].rank]->Say(placed[i].there, {static_cast<TokenId>(i)});
  }
  for (size_t i = 0; i < streams.size(); i += 2) {
    rig.client->Cancel(placed[i].id, i % 4 == 0 ? FinishReason::kStop : FinishReason::kCancelled);
  }
  for (size_t i = 1; i < streams.size(); i += 2) {
    rig.engines[placed[i].rank]->End(placed[i].there, FinishReason::kLength);
  }
  for (size_t i = 0; i < streams.size(); ++i) {
    const auto chunk = streams[i].TryNext();
    ASSERT_TRUE(chunk.has_value());
    EXPECT_EQ(chunk->tokens, std::vector<TokenId>{static_cast<TokenId>(i)});
    EXPECT_EQ(chunk->finish, i % 2 == 1   ? FinishReason::kLength
                             : i % 4 == 0 ? FinishReason::kStop
                                          : FinishReason::kCancelled);
  }
  rig.client->Cancel(RequestId());
  size_t num_cancels = 0;
  for (const HandEngine* engine : rig.engines) num_cancels += engine->cancels().size();
  EXPECT_EQ(num_cancels, 15U);
}

TEST(DataParallelClient, CountsWhatIsLeftToCompute) {
  Rig rig(2);
  const Rig::Placed a = rig.Submit(Input(Tokens(50), 5));
  EXPECT_EQ(rig.client->Backlogs()[a.rank], (RankBacklog{1, 50, 5}));
  rig.engines[a.rank]->Say(a.there, {7});
  EXPECT_EQ(rig.client->Backlogs()[a.rank], (RankBacklog{1, 0, 5}));
  rig.engines[a.rank]->Say(a.there, {8});
  EXPECT_EQ(rig.client->Backlogs()[a.rank], (RankBacklog{1, 0, 5}));
  rig.engines[a.rank]->End(a.there, FinishReason::kStop);
  EXPECT_EQ(rig.client->Backlogs()[a.rank], RankBacklog());
  // One that ends before its first token, and one whose first event is its last.
  const Rig::Placed b = rig.Submit(Input(Tokens(50, 1000)));
  rig.client->Cancel(b.id);
  const Rig::Placed c = rig.Submit(Input(Tokens(50, 2000)));
  rig.engines[c.rank]->Say(c.there, {1}, FinishReason::kStop);
  EXPECT_EQ(rig.client->Backlogs(), std::vector<RankBacklog>(2));
}

// A request is counted as ended before its user hears of it.
TEST(DataParallelClient, SinkMaySubmitTheNext) {
  Rig rig(2);
  RankBacklog seen;
  const Rig::Placed first = rig.Submit(Input(Tokens(50)), [&](const engine::TokenEvent& event) {
    if (!event.finish) return;
    seen = rig.client->Backlogs()[0];
    EXPECT_TRUE(rig.client->Submit(Input(Tokens(3)), [](const auto&) {}).has_value());
  });
  ASSERT_EQ(first.rank, 0U);
  rig.engines[0]->End(first.there, FinishReason::kLength);
  EXPECT_EQ(seen, RankBacklog());
  EXPECT_EQ(rig.engines[0]->ids().size() + rig.engines[1]->ids().size(), 1U);
}

TEST(DataParallelClient, ConversationsStickToTheirRank) {
  Rig rig(4);
  constexpr size_t kNumConversations = 12;
  std::vector<std::vector<TokenId>> texts(kNumConversations);
  std::vector<size_t> ranks(kNumConversations);
  std::vector<int> num_by_rank(4);
  for (int turn = 0; turn < 5; ++turn) {
    for (size_t i = 0; i < kNumConversations; ++i) {
      const auto first = static_cast<TokenId>(10000 * i + 500 * turn);
      const std::vector<TokenId> question = Tokens(6, first);  // one block and a half
      // Answers are longer than questions: what holds a conversation is their cache.
      const std::vector<TokenId> answer = Tokens(90, first + 100);
      texts[i].insert(texts[i].end(), question.begin(), question.end());
      const size_t rank = rig.Converse(texts[i], answer);
      if (turn == 0) ++num_by_rank[ranks[i] = rank];
      EXPECT_EQ(rank, ranks[i]) << "conversation " << i << ", turn " << turn;
      texts[i].insert(texts[i].end(), answer.begin(), answer.end());
    }
  }
  EXPECT_EQ(num_by_rank, std::vector<int>(4, 3));
}

// A turn whose own question is short leaves only if the answers before it were forgotten.
TEST(DataParallelClient, AnswersAreRemembered) {
  Rig rig(2);
  std::vector<TokenId> text = Tokens(8);
  const std::vector<TokenId> answer = Tokens(200, 1000);
  const size_t home = rig.Converse(text, answer);
  text.insert(text.end(), answer.begin(), answer.end());
  text.push_back(5);
  // 100 tokens behind: more than the 8 of the question spare, less than the answer does.
  auto other = Input(Tokens(92, 5000));
  other.data_parallel_rank = static_cast<int>(home);
  EXPECT_EQ(rig.Submit(other).rank, home);
  EXPECT_EQ(rig.Submit(Input(text)).rank, home);
}

TEST(DataParallelClient, BusyRankLosesItsConversations) {
  Rig rig(2);
  const std::vector<TokenId> text = Tokens(100);
  const size_t home = rig.Converse(text, {1});
  auto busy = Input(Tokens(500, 1000));
  busy.data_parallel_rank = static_cast<int>(home);
  rig.Submit(busy);
  EXPECT_EQ(rig.Submit(Input(text)).rank, 1 - home);
}

TEST(DataParallelClient, FullRankPassesARequestOn) {
  Rig rig(3);
  rig.engines[0]->capacity_ = 0;
  for (int i = 0; i < 6; ++i) EXPECT_NE(rig.Submit(Input(Tokens(10, 100 * i))).rank, 0U);
  EXPECT_EQ(rig.client->Backlogs()[0], RankBacklog());
  rig.engines[1]->capacity_ = 0;
  const Rig::Placed last = rig.Submit(Input(Tokens(33, 5000)));
  EXPECT_EQ(last.rank, 2U);
  EXPECT_EQ(rig.engines[2]->input(last.there).prompt, Tokens(33, 5000));

  rig.engines[2]->capacity_ = 0;
  const auto before = rig.client->Backlogs();
  const auto refused = rig.client->Submit(Input(Tokens(10)), [](const auto&) { FAIL(); });
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(
      refused.error().message(),
      "none of the 3 data-parallel ranks is available: data-parallel rank 0: 0 requests wait");
  EXPECT_EQ(rig.client->Backlogs(), before);
}

TEST(DataParallelClient, WishWins) {
  Rig rig(3);
  for (int i = 0; i < 5; ++i) {
    auto input = Input(Tokens(100, 1000 * i));
    input.data_parallel_rank = 2;
    const Rig::Placed placed = rig.Submit(input);
    EXPECT_EQ(placed.rank, 2U);
    EXPECT_FALSE(rig.engines[2]->input(placed.there).data_parallel_rank.has_value());
  }
  rig.engines[2]->capacity_ = 0;
  auto input = Input(Tokens(3));
  input.data_parallel_rank = 2;
  const auto full = rig.client->Submit(input, [](const auto&) { FAIL(); });
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(full.error().message(), "data-parallel rank 2: 5 requests wait");
  for (const int rank : {-1, 3}) {
    input.data_parallel_rank = rank;
    const auto refused = rig.client->Submit(input, [](const auto&) { FAIL(); });
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(refused.error().message(), fmt::format("data_parallel_rank is {}, expected a rank "
                                                     "from 0 to 2",
                                                     rank));
  }
}

TEST(DataParallelClient, SaysWhatItsRanksSay) {
  Rig rig(2);
  EXPECT_EQ(rig.client->limits().max_num_seqs, 16);
  EXPECT_EQ(rig.client->limits().max_num_waiting, 200);
  EXPECT_EQ(rig.client->limits().data_parallel_size, 2);
  for (int rank = 0; rank < 2; ++rank) {
    engine::EngineStats& stats = rig.engines[static_cast<size_t>(rank)]->stats_;
    SetBounds(rank == 0 ? 1000 : 10, &stats);
    stats.num_running = 3 + rank;
    stats.num_corrupted = 10 * rank;
    stats.has_work = rank == 1;
    stats.seconds_without_progress = rank == 0 ? 2.5 : 0.5;
    stats.device_time.Add(rank == 0 ? 0.004 : 0.25);
    stats.prompt_length.Observe(7);
    stats.prompt_length.Observe(100);
    moe::ExpertStats& experts = rig.engines[static_cast<size_t>(rank)]->experts_;
    experts = {2, 3};
    experts.Count(1, std::vector<int32_t>{rank, 2});
  }
  const engine::EngineStats stats = rig.client->Stats();
  EXPECT_EQ(stats.num_running, 7);
  EXPECT_EQ(stats.num_corrupted, 10);
  EXPECT_TRUE(stats.has_work);
  EXPECT_EQ(stats.seconds_without_progress, 2.5);
  EXPECT_EQ(stats.device_time.count, 2);
  EXPECT_EQ(stats.device_time.max, 0.25);
  EXPECT_DOUBLE_EQ(stats.device_time.sum, 0.254);
  EXPECT_EQ(std::accumulate(std::begin(stats.device_time.buckets),
                            std::end(stats.device_time.buckets), int64_t{0}),
            2);
  // Of other bounds: up to 10, and more.
  EXPECT_EQ(stats.prompt_length.count(), 4);
  EXPECT_EQ(stats.prompt_length.sum(), 214);
  EXPECT_EQ(stats.prompt_length.counts()[3], 2);
  EXPECT_EQ(stats.prompt_length.counts().back(), 1);
  EXPECT_EQ(rig.client->RankStats()[1].num_running, 4);
  const moe::ExpertStats experts = rig.client->ExpertLoad();
  EXPECT_EQ(std::vector(experts.Layer(0).begin(), experts.Layer(0).end()),
            (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(std::vector(experts.Layer(1).begin(), experts.Layer(1).end()),
            (std::vector<int64_t>{1, 1, 2}));

  EXPECT_TRUE(rig.client->Health().has_value());
  rig.engines[1]->fault_ = Error(ErrorCode::kDeadline, "a step hangs");
  const Status health = rig.client->Health();
  ASSERT_FALSE(health.has_value());
  EXPECT_EQ(health.error().code(), ErrorCode::kDeadline);
  EXPECT_EQ(health.error().message(), "data-parallel rank 1: a step hangs");
}

TEST(DataParallelClient, RanksMustServeOneModel) {
  const auto create = [](int64_t vocab_size, int64_t max_model_len) {
    std::vector<std::unique_ptr<engine::EngineClient>> engines;
    engines.push_back(std::make_unique<HandEngine>());
    auto other = std::make_unique<HandEngine>();
    other->limits_.vocab_size = vocab_size;
    other->limits_.max_model_len = max_model_len;
    engines.push_back(std::move(other));
    return DataParallelClient::Create(std::move(engines), {});
  };
  EXPECT_EQ((*create(1 << 20, 77))->limits().max_model_len, 77);
  const auto differs = create(5, 77);
  ASSERT_FALSE(differs.has_value());
  EXPECT_EQ(differs.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(differs.error().message().find("rank 1 has a vocabulary of 5"), std::string::npos);
  const auto none = DataParallelClient::Create({}, {});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code(), ErrorCode::kInvalidArgument);
}

// A request that ends with one engine may ask for another that is gone.
TEST(DataParallelClient, SinkMayCallWhileTheEnginesGo) {
  Rig rig(2);
  std::atomic<int> num_ended = 0;
  DataParallelClient* client = rig.client.get();
  for (int i = 0; i < 4; ++i) {
    rig.Submit(Input(Tokens(10, 100 * i)), [&, client](const engine::TokenEvent& event) {
      EXPECT_EQ(event.finish, FinishReason::kCancelled);
      ++num_ended;
      client->Cancel(RequestId(0));
      const auto again = client->Submit(Input(Tokens(3)), [](const auto&) { FAIL(); });
      ASSERT_FALSE(again.has_value());
      EXPECT_EQ(again.error().code(), ErrorCode::kUnavailable);
    });
  }
  rig.client.reset();
  EXPECT_EQ(num_ended, 4);
}

}  // namespace
}  // namespace moebius::rank
