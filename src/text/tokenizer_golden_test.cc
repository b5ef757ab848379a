// Ids and texts of small tokenizers in each family's style, against what PyPI's `tokenizers` gives
// (tools/text/make_golden.py).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

std::filesystem::path GoldenFolder() {
  return std::filesystem::path(MOEBIUS_SOURCE_DIR) / "tests/golden/tokenizers";
}

std::vector<std::string> Styles() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder())) {
    names.push_back(entry.path().filename());
  }
  return names;
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

class TokenizerGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = GoldenFolder() / GetParam();
    auto tokenizer = Tokenizer::Load(folder);
    ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message();
    tokenizer_ = *std::move(tokenizer);
    std::ifstream file(folder / "cases.json");
    cases_ = nlohmann::json::parse(file);
    ASSERT_GT(cases_.size(), 50u);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  nlohmann::json cases_;
};

TEST_P(TokenizerGoldenTest, EncodesAlike) {
  for (const auto& golden : cases_) {
    if (!golden.contains("text")) continue;
    const std::string text = FromHex(golden["text"]);
    EXPECT_EQ(tokenizer_->Encode(text, false), golden["ids"].get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(tokenizer_->Encode(text, true), golden["special_ids"].get<std::vector<TokenId>>());
  }
}

TEST_P(TokenizerGoldenTest, DecodesAlikeAtOnceAndStreaming) {
  for (const auto& golden : cases_) {
    const auto ids =
        golden[golden.contains("text") ? "special_ids" : "ids"].get<std::vector<TokenId>>();
    for (const bool skip : {false, true}) {
      const std::string expected = golden[skip ? "skipped" : "decoded"];
      EXPECT_EQ(tokenizer_->Decode(ids, skip), expected);
      Detokenizer detokenizer(*tokenizer_, skip);
      std::string streamed;
      for (const TokenId id : ids) {
        const std::string part = detokenizer.Push(id);
        EXPECT_EQ(ValidPrefix(part), part.size()) << "half a character";
        streamed += part;
        EXPECT_TRUE(expected.starts_with(streamed)) << "text was taken back";
      }
      streamed += detokenizer.Finish();
      EXPECT_EQ(streamed, expected);
    }
  }
}

// A second pass finds every short piece in the cache.
TEST_P(TokenizerGoldenTest, CacheChangesNothing) {
  for (int pass = 0; pass < 2; ++pass) {
    for (const auto& golden : cases_) {
      if (!golden.contains("text")) continue;
      EXPECT_EQ(tokenizer_->Encode(FromHex(golden["text"]), false),
                golden["ids"].get<std::vector<TokenId>>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerGoldenTest, testing::ValuesIn(Styles()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace moebius::text
