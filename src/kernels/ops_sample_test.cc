// Sampling of every back end: agreement with the reference's sort, the sets that filters leave, the
// distribution, and that a row draws the same alone and in a batch.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

std::vector<SampleResult> Draw(const Backend* backend, TestMat logits,
                               const std::vector<SampleRow>& rows, int threads = 1) {
  std::vector<SampleResult> results(rows.size());
  TestContext context(backend, threads);
  Sample(context.ctx(), {logits.view(), rows, results});
  return results;
}

TokenId DrawOne(const Backend* backend, const TestMat& logits, const SampleRow& row) {
  return Draw(backend, logits, {row})[0].token;
}

TestMat OneRow(const std::vector<float>& values) {
  TestMat logits(DType::kF32, 1, static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) logits.Set(0, static_cast<int64_t>(i), values[i]);
  return logits;
}

// What 2000 draws of one row give.
std::map<TokenId, int> Histogram(const Backend* backend, const TestMat& logits, SampleRow row) {
  const int kDraws = 2000;
  std::map<TokenId, int> counts;
  TestMat copies(DType::kF32, kDraws, logits.view().cols);
  std::vector<SampleRow> rows;
  for (int i = 0; i < kDraws; ++i) {
    for (int64_t c = 0; c < logits.view().cols; ++c) copies.Set(i, c, logits.At(0, c));
    row.position = i;
    rows.push_back(row);
  }
  for (const SampleResult& result : Draw(backend, copies, rows)) ++counts[result.token];
  return counts;
}

TEST(OpsSample, AgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const int64_t vocab : {1, 7, 128, 1000, 50021}) {
      Random random(vocab);
      TestMat logits(DType::kF32, 40, vocab, 5);
      logits.Fill(random, 3.0f);
      std::vector<SampleRow> rows(40);
      for (size_t i = 0; i < rows.size(); ++i) {
        SampleRow& row = rows[i];
        row.temperature = i % 5 == 0 ? 0.0f : 0.3f + 0.2f * static_cast<float>(i % 7);
        if (i % 3 == 1) row.top_k = static_cast<int32_t>(1 + random.Below(60));
        if (i % 4 == 1) row.top_p = 0.1f + 0.2f * static_cast<float>(i % 5);
        if (i % 6 == 1) row.min_p = 0.05f;
        row.seed = i * 77;
        row.position = static_cast<int64_t>(i);
      }
      const auto want = Draw(&RefBackend(), logits, rows);
      const auto got = Draw(backend, logits, rows, 2);
      // A draw within float32 rounding of a boundary may fall to its neighbour: at most one.
      int differences = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        differences += got[i].token != want[i].token;
        if (rows[i].temperature == 0) {
          EXPECT_EQ(got[i].token, want[i].token);
        }
        EXPECT_GE(got[i].token, 0);
        EXPECT_LT(got[i].token, vocab);
      }
      EXPECT_LE(differences, 1) << backend->name << " vocabulary " << vocab;
    }
  }
}

TEST(OpsSample, GreedyTiesGoToTheLowestId) {
  for (const Backend* backend : AvailableBackends()) {
    for (const int64_t first : {0, 5, 127, 128, 299}) {
      std::vector<float> values(400, 1.0f);
      values[first] = values[399] = values[first + 20] = 4.0f;
      SampleRow row;
      row.temperature = 0;
      EXPECT_EQ(DrawOne(backend, OneRow(values), row), first) << backend->name;
    }
  }
}

TEST(OpsSample, FiltersLeaveTheirSets) {
  for (const Backend* backend : AvailableBackends()) {
    // Probabilities 0.4, 0.3, 0.2, 0.1, shuffled over ids, and a tail of almost nothing.
    std::vector<float> values(300, -60.0f);
    const std::pair<int, double> likely[] = {{200, 0.4}, {3, 0.3}, {130, 0.2}, {50, 0.1}};
    for (const auto& [id, p] : likely) values[id] = static_cast<float>(std::log(p));
    const TestMat logits = OneRow(values);
    const auto support = [&](const SampleRow& row) {
      std::set<TokenId> ids;
      for (const auto& [id, count] : Histogram(backend, logits, row)) ids.insert(id);
      return ids;
    };
    SampleRow row;
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 50, 130, 200}));
    row.top_k = 2;
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 200}));
    row.top_k = 0;
    row.top_p = 0.65f;  // 0.4 + 0.3 reach it
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 200}));
    row.top_p = 0.75f;
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 130, 200}));
    row.top_p = 1e-6f;
    EXPECT_EQ(support(row), (std::set<TokenId>{200}));
    row.top_p = 1.0f;
    row.min_p = 0.6f;  // of the best: 0.24
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 200}));
    row.top_k = 3;
    row.top_p = 0.75f;  // of the three: 0.4 / 0.9 + 0.3 / 0.9 reach it
    row.min_p = 0;
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 200}));
    row.top_k = 0;
    row.top_p = 1.0f;
    const TokenId banned[] = {200};
    row.banned_tokens = banned;
    EXPECT_EQ(support(row), (std::set<TokenId>{3, 50, 130}));
    std::vector<uint32_t> mask(10);
    mask[50 / 32] |= 1u << (50 % 32);
    mask[200 / 32] |= 1u << (200 % 32);
    row.allowed_mask = mask;
    EXPECT_EQ(support(row), (std::set<TokenId>{50}));
  }
}

TEST(OpsSample, DrawsFollowTheDistribution) {
  for (const Backend* backend : AvailableBackends()) {
    std::vector<float> values(200, -1e9f);
    std::vector<double> p(200);
    double sum = 0;
    for (int i = 0; i < 20; ++i) {
      values[i * 9] = static_cast<float>(i % 5);
      sum += p[i * 9] = std::exp(static_cast<double>(i % 5) / 1.7);
    }
    SampleRow row;
    row.temperature = 1.7f;
    for (const int32_t top_k : {0, 100}) {  // the scan of all, and the sorted candidates
      row.top_k = top_k;
      row.seed = 11;
      const auto counts = Histogram(backend, OneRow(values), row);
      double chi_square = 0;
      for (int id = 0; id < 200; ++id) {
        const double expected = 2000 * p[id] / sum;
        const double seen = counts.contains(id) ? counts.at(id) : 0;
        if (expected == 0) {
          EXPECT_EQ(seen, 0);
        } else {
          chi_square += (seen - expected) * (seen - expected) / expected;
        }
      }
      EXPECT_LT(chi_square, 43.8);  // 19 degrees of freedom, 0.1 %
      EXPECT_GT(chi_square, 4.9);   // too good to be random, 0.05 %
    }
  }
}

TEST(OpsSample, ARowDrawsTheSameAloneAndInABatch) {
  for (const Backend* backend : AvailableBackends()) {
    Random random(12);
    TestMat logits(DType::kF32, 30, 3000);
    logits.Fill(random, 2.0f);
    std::vector<SampleRow> rows(30);
    const std::pair<TokenId, float> bias[] = {{7, 3.5f}, {2000, -0.3f}, {7, 0.7f}};
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].seed = i / 2;
      rows[i].position = static_cast<int64_t>(i * 3);
      if (i % 3 == 0) rows[i].top_p = 0.9f;
      if (i % 3 == 1) rows[i].top_k = 40;
      rows[i].num_logprobs = 0;
      if (i % 5 == 4) rows[i].given = static_cast<TokenId>(i * 90);
      if (i % 4 == 2) rows[i].logit_bias = bias;
    }
    const auto batch = Draw(backend, logits, rows, 3);
    for (int64_t i = 0; i < 30; ++i) {
      TestMat one(DType::kF32, 1, 3000);
      for (int64_t c = 0; c < 3000; ++c) one.Set(0, c, logits.At(i, c));
      const auto alone = Draw(backend, one, {rows[i]});
      EXPECT_EQ(alone[0].token, batch[i].token);
      EXPECT_EQ(alone[0].logprob, batch[i].logprob);
      EXPECT_EQ(alone[0].rank, batch[i].rank);
    }
  }
}

TEST(OpsSample, PenaltiesFollowTheirDefinitions) {
  for (const Backend* backend : AvailableBackends()) {
    SampleRow row;
    row.temperature = 0;
    const TokenId seen[] = {0, 1};
    const TokenId output[] = {1};
    const int32_t counts[] = {3};
    // Repetition divides what is positive and multiplies what is negative.
    row.seen_tokens = seen;
    row.repetition_penalty = 2.0f;
    EXPECT_EQ(DrawOne(backend, OneRow({4.0f, 3.0f, 2.1f}), row), 2);
    EXPECT_EQ(DrawOne(backend, OneRow({4.4f, 3.0f, 2.1f}), row), 0);
    EXPECT_EQ(DrawOne(backend, OneRow({-1.0f, -1.1f, -1.9f}), row), 2);
    row.repetition_penalty = 1.0f;
    row.output_tokens = output;
    row.output_counts = counts;
    row.presence_penalty = 1.0f;  // once, however often
    EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.1f, 0.0f}), row), 1);
    EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 1.9f, 0.0f}), row), 0);
    row.presence_penalty = 0;
    row.frequency_penalty = 0.5f;  // three times
    EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.6f, 0.0f}), row), 1);
    EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.4f, 0.0f}), row), 0);
  }
}

TEST(OpsSample, LogprobsAreOfTheRawLogits) {
  for (const Backend* backend : AvailableBackends()) {
    const TestMat logits = OneRow({1.0f, 3.0f, 2.0f, 3.0f, -50.0f});
    double sum = 0;
    for (int64_t i = 0; i < 5; ++i) sum += std::exp(static_cast<double>(logits.At(0, i)));
    SampleRow row;
    row.temperature = 0;
    const TokenId banned[] = {1, 3};
    row.banned_tokens = banned;
    row.num_logprobs = 7;
    std::vector<TokenId> tokens(7, -9);
    std::vector<float> logprobs(7, 1.0f);
    std::vector<SampleResult> results(1);
    results[0].top_tokens = tokens;
    results[0].top_logprobs = logprobs;
    TestMat copy(logits);
    TestContext context(backend);
    Sample(context.ctx(), {copy.view(), {&row, 1}, results});
    EXPECT_EQ(results[0].token, 2);
    EXPECT_NEAR(results[0].logprob, 2.0 - std::log(sum), 1e-6);
    EXPECT_EQ(tokens, (std::vector<TokenId>{1, 3, 2, 0, 4, -1, -1}));
    for (int i = 0; i < 5; ++i) {
      EXPECT_NEAR(logprobs[i], logits.At(0, tokens[i]) - std::log(sum), 1e-5);
    }
    EXPECT_TRUE(std::isinf(logprobs[5]));
  }
}

TEST(OpsSample, BiasComesBeforePenalties) {
  for (const Backend* backend : AvailableBackends()) {
    SampleRow row;
    row.temperature = 0;
    const std::pair<TokenId, float> bias[] = {{2, 1.5f}, {0, -3.0f}, {2, 0.5f}};
    row.logit_bias = bias;
    EXPECT_EQ(DrawOne(backend, OneRow({4.0f, 1.9f, 0.0f}), row), 2);  // 1, 1.9, 2
    EXPECT_EQ(DrawOne(backend, OneRow({5.1f, 1.9f, 0.0f}), row), 0);
    const TokenId seen[] = {2};
    row.seen_tokens = seen;
    row.repetition_penalty = 2.0f;  // (-1 + 2) / 2, where the penalty first would give -2 + 2
    EXPECT_EQ(DrawOne(backend, OneRow({3.0f, 0.4f, -1.0f}), row), 2);
    EXPECT_EQ(DrawOne(backend, OneRow({3.0f, 0.6f, -1.0f}), row), 1);
    row.banned_tokens = seen;  // no bias brings a forbidden token back
    EXPECT_EQ(DrawOne(backend, OneRow({3.0f, -5.0f, 90.0f}), row), 0);
  }
}

struct Scores {
  std::vector<SampleResult> results;
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
};
Scores Score(const Backend* backend, TestMat logits, std::vector<SampleRow> rows, int32_t n,
             int threads) {
  Scores scores;
  scores.results.resize(rows.size());
  scores.tokens.resize(rows.size() * static_cast<size_t>(n));
  scores.logprobs.resize(scores.tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].num_logprobs = n;
    scores.results[i].top_tokens = std::span(scores.tokens).subspan(i * n, n);
    scores.results[i].top_logprobs = std::span(scores.logprobs).subspan(i * n, n);
  }
  TestContext context(backend, threads);
  Sample(context.ctx(), {logits.view(), rows, scores.results});
  return scores;
}

TEST(OpsSample, RanksAndGivenTokensAgreeWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const int64_t vocab : {5, 127, 1000, 50021}) {
      Random random(vocab + 1);
      TestMat logits(DType::kF32, 40, vocab, 3);
      logits.Fill(random, 3.0f);
      std::vector<SampleRow> rows(40);
      std::vector<std::pair<TokenId, float>> bias;
      for (int i = 0; i < 50; ++i) {
        bias.emplace_back(static_cast<TokenId>(random.Below(vocab)), random.Normal(5.0f));
      }
      for (size_t i = 0; i < rows.size(); ++i) {
        // Ties, also across blocks, and some rows that draw, with a bias, between those that do
        // not.
        for (int j = 0; j < 3; ++j) logits.Set(i, random.Below(vocab), 2.0f);
        rows[i].temperature = 0;
        if (i % 3 != 0) rows[i].given = static_cast<TokenId>(random.Below(vocab));
        if (i % 3 == 0) rows[i].logit_bias = std::span(bias).first(i);
      }
      const Scores want = Score(&RefBackend(), logits, rows, 4, 1);
      const Scores got = Score(backend, logits, rows, 4, 2);
      EXPECT_EQ(got.tokens, want.tokens);
      for (size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(got.results[i].token, want.results[i].token);
        EXPECT_EQ(got.results[i].rank, want.results[i].rank) << backend->name << " row " << i;
        EXPECT_NEAR(got.results[i].logprob, want.results[i].logprob, 1e-4);
        const int32_t rank = got.results[i].rank;
        if (rank <= 4) {
          EXPECT_EQ(got.tokens[i * 4 + static_cast<size_t>(rank) - 1], got.results[i].token);
          EXPECT_EQ(got.logprobs[i * 4 + static_cast<size_t>(rank) - 1], got.results[i].logprob);
        }
      }
    }
  }
}

TEST(OpsSample, AGivenTokenHeedsNoOtherWish) {
  for (const Backend* backend : AvailableBackends()) {
    const TestMat logits = OneRow({1.0f, 3.0f, 2.0f, 3.0f, -50.0f});
    double sum = 0;
    for (int64_t i = 0; i < 5; ++i) sum += std::exp(static_cast<double>(logits.At(0, i)));
    SampleRow row;
    const TokenId banned[] = {2, 3};
    const std::pair<TokenId, float> bias[] = {{2, 9.0f}};
    row.banned_tokens = banned;
    row.logit_bias = bias;
    const int32_t ranks[] = {4, 1, 3, 2, 5};
    for (TokenId token = 0; token < 5; ++token) {
      row.given = token;
      const Scores scores = Score(backend, logits, {row}, 2, 1);
      EXPECT_EQ(scores.results[0].token, token);
      EXPECT_EQ(scores.results[0].rank, ranks[token]) << backend->name << " " << token;
      EXPECT_NEAR(scores.results[0].logprob, logits.At(0, token) - std::log(sum), 1e-5);
      EXPECT_EQ(scores.tokens, (std::vector<TokenId>{1, 3}));
    }
    // What is no number has no probability.
    const float inf = std::numeric_limits<float>::infinity();
    row = {};
    row.given = 1;
    EXPECT_EQ(Score(backend, OneRow({1.0f, std::nanf("")}), {row}, 1, 1).results[0].logprob, -inf);
    EXPECT_EQ(Score(backend, OneRow({1.0f, -inf}), {row}, 1, 1).results[0].logprob, -inf);
    EXPECT_EQ(Score(backend, OneRow({1.0f, -inf}), {row}, 1, 1).results[0].rank, 2);
  }
}

TEST(OpsSample, NothingToDrawIsNoToken) {
  for (const Backend* backend : AvailableBackends()) {
    for (const float temperature : {0.0f, 1.0f}) {
      SampleRow row;
      row.temperature = temperature;
      const TokenId banned[] = {0, 1};
      row.banned_tokens = banned;
      EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.0f}), row), -1) << backend->name;
      EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.0f, std::nanf("")}), row), -1);
      EXPECT_EQ(DrawOne(backend, OneRow({1.0f, 2.0f, -3.0f, std::nanf("")}), row), 2);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
