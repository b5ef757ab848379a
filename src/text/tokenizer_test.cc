#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

namespace moebius::text {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<TokenId>;

Json AddedToken(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// A vocabulary of a few characters and merges, without any other part.
Json SmallFile() {
  return {{"version", "1.0"},
          {"added_tokens", Json::array({AddedToken(8, "<s>", true), AddedToken(9, "</s>", true)})},
          {"model",
           {{"type", "BPE"},
            {"vocab",
             {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"bc", 4}, {"abc", 5}, {" ", 6}, {"?", 7}}},
            {"merges", Json::array({"b c", "a b", "ab c"})}}}};
}

std::unique_ptr<Tokenizer> Parsed(const Json& file, const Json& config = Json()) {
  auto tokenizer = Tokenizer::Parse(file.dump(), config.is_null() ? "" : config.dump());
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message();
  return tokenizer ? *std::move(tokenizer) : nullptr;
}

std::string ErrorOf(const Json& file, const Json& config = Json()) {
  const auto tokenizer = Tokenizer::Parse(file.dump(), config.is_null() ? "" : config.dump());
  return tokenizer ? "" : tokenizer.error().message();
}

TEST(TokenizerTest, MergesByRankNotByPlace) {
  const auto tokenizer = Parsed(SmallFile());
  EXPECT_EQ(tokenizer->Encode("abc", false), (Ids{0, 4}));
  EXPECT_EQ(tokenizer->Encode("ab", false), (Ids{3}));
  EXPECT_EQ(tokenizer->Encode("", false), Ids{});
}

TEST(TokenizerTest, MergesSpelledAsPairsMeanTheSame) {
  Json file = SmallFile();
  file["model"]["merges"] = Json::parse(R"([["b", "c"], ["a", "b"], ["ab", "c"]])");
  EXPECT_EQ(Parsed(file)->Encode("abcab", false), Parsed(SmallFile())->Encode("abcab", false));
}

TEST(TokenizerTest, IgnoreMergesTakesWholePieces) {
  Json file = SmallFile();
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(Parsed(file)->Encode("abc", false), (Ids{5}));
}

TEST(TokenizerTest, UnknownCharacters) {
  Json file = SmallFile();
  EXPECT_EQ(Parsed(file)->Encode("aéb", false), (Ids{3})) << "dropped without an unk_token";
  file["model"]["unk_token"] = "?";
  EXPECT_EQ(Parsed(file)->Encode("aééb", false), (Ids{0, 7, 7, 1}));
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(Parsed(file)->Encode("aééb", false), (Ids{0, 7, 1}));
}

TEST(TokenizerTest, ByteFallbackNeedsEveryByte) {
  Json file = SmallFile();
  file["model"]["unk_token"] = "?";
  file["model"]["byte_fallback"] = true;
  file["model"]["vocab"]["<0xC3>"] = 10;
  file["added_tokens"] = Json::array();
  EXPECT_EQ(Parsed(file)->Encode("é", false), (Ids{7}));
  file["model"]["vocab"]["<0xA9>"] = 11;
  EXPECT_EQ(Parsed(file)->Encode("é", false), (Ids{10, 11}));
}

TEST(TokenizerTest, AddedTokensInsideAndBesideText) {
  const auto tokenizer = Parsed(SmallFile());
  EXPECT_EQ(tokenizer->Encode("a<s>b", false), (Ids{0, 8, 1}));
  EXPECT_EQ(tokenizer->Encode("<s></s><s>", false), (Ids{8, 9, 8}));
  EXPECT_EQ(tokenizer->Decode(Ids{8, 0, 9}, true), "a");
  EXPECT_TRUE(tokenizer->IsSpecial(8));
  EXPECT_FALSE(tokenizer->IsSpecial(0));
  EXPECT_EQ(tokenizer->vocab_size(), 10);
}

TEST(TokenizerTest, NamedTokensFromConfig) {
  const auto tokenizer = Parsed(
      SmallFile(),
      {{"bos_token", "<s>"}, {"eos_token", AddedToken(9, "</s>", true)}, {"pad_token", nullptr}});
  EXPECT_EQ(tokenizer->bos_token(), "<s>");
  EXPECT_EQ(tokenizer->bos_id(), 8);
  EXPECT_EQ(tokenizer->eos_id(), 9);
  EXPECT_EQ(tokenizer->pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer->pad_token(), "");
  EXPECT_EQ(tokenizer->Encode("a", true), (Ids{0})) << "nothing says that bos is added";
}

TEST(TokenizerTest, ConfigOverridesTheTemplate) {
  Json file = SmallFile();
  Json config = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_bos_token", true}};
  EXPECT_EQ(Parsed(file, config)->Encode("a", true), (Ids{8, 0}));
  EXPECT_EQ(Parsed(file, config)->Encode("a", false), (Ids{0}));
  file["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}})");
  EXPECT_EQ(Parsed(file, config)->Encode("a", true), (Ids{8, 0})) << "not twice";
  EXPECT_EQ(Parsed(file)->Encode("", true), (Ids{8}));
  config["add_bos_token"] = false;
  config["add_eos_token"] = true;
  EXPECT_EQ(Parsed(file, config)->Encode("a", true), (Ids{0, 9}));
}

TEST(TokenizerTest, TokenLookups) {
  const auto tokenizer = Parsed(SmallFile());
  EXPECT_EQ(tokenizer->TokenToId("ab"), 3);
  EXPECT_EQ(tokenizer->TokenToId("<s>"), 8);
  EXPECT_EQ(tokenizer->TokenToId("zz"), std::nullopt);
  EXPECT_EQ(tokenizer->TokenText(3), "ab");
  for (const TokenId unknown : {-1, 10, 1 << 30}) {
    EXPECT_EQ(tokenizer->TokenText(unknown), "");
    EXPECT_EQ(tokenizer->TokenBytes(unknown), "");
  }
  EXPECT_EQ(tokenizer->Decode(Ids{-5, 0, 77}, false), "a");
}

TEST(TokenizerTest, TokenBytesOfEachKind) {
  Json file = SmallFile();
  file["model"]["vocab"]["\u2581a"] = 10;
  file["model"]["vocab"]["<0xE4>"] = 11;
  file["model"]["vocab"]["\u0120a"] = 12;
  file["added_tokens"] = Json::array();
  file["decoder"] = Json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  EXPECT_EQ(Parsed(file)->TokenBytes(10), " a");
  EXPECT_EQ(Parsed(file)->TokenBytes(11), "\xE4");
  file["decoder"] = {{"type", "ByteLevel"}};
  EXPECT_EQ(Parsed(file)->TokenBytes(12), " a");
}

TEST(TokenizerTest, ErrorsNameFileAndField) {
  const auto expect_error = [](const Json& file, const std::vector<std::string>& words) {
    const std::string message = ErrorOf(file);
    for (const std::string& word : words) {
      EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' in: " << message;
    }
  };
  Json file = SmallFile();
  file.erase("model");
  expect_error(file, {"tokenizer.json", "'model' is missing"});
  file = SmallFile();
  file["model"].erase("vocab");
  expect_error(file, {"model", "'vocab' is missing"});
  file = SmallFile();
  file["model"]["vocab"]["a"] = "zero";
  expect_error(file, {"model.vocab", "'a' is string"});
  file["model"]["vocab"]["a"] = -1;
  expect_error(file, {"model.vocab", "'a' has the id -1"});
  file["model"]["vocab"]["a"] = 5'000'000'000;
  expect_error(file, {"model.vocab", "5000000000"});
  file["model"]["vocab"]["a"] = 1;
  expect_error(file, {"model.vocab", "same id 1"});
  file = SmallFile();
  file["model"]["merges"][1] = "a z";
  expect_error(file, {"model.merges", "entry 1", "'z' is not in the vocabulary"});
  file["model"]["merges"][1] = "a b c";
  expect_error(file, {"model.merges", "entry 1"});
  file = SmallFile();
  file["model"]["type"] = "Unigram";
  expect_error(file, {"model.type", "'Unigram'"});
  file = SmallFile();
  file["pre_tokenizer"] = Json::parse(
      R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
          {"type": "BertPreTokenizer"}]})");
  expect_error(file, {"pre_tokenizer.pretokenizers[1]", "'BertPreTokenizer'"});
  file["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "a(?<n>b)"}}}, {"behavior", "Isolated"}};
  expect_error(file, {"pre_tokenizer.pattern.Regex", "a(?<n>b)"});
  file = SmallFile();
  file["normalizer"] = {{"type", "Precompiled"}};
  expect_error(file, {"normalizer", "'Precompiled'"});
  file = SmallFile();
  file["decoder"] = {{"type", "CTC"}};
  expect_error(file, {"decoder", "'CTC'"});
  file = SmallFile();
  file["added_tokens"][1].erase("special");
  expect_error(file, {"added_tokens[1]", "'special' is missing"});
  EXPECT_NE(ErrorOf(SmallFile(), {{"bos_token", 3}}).find("tokenizer_config.json: bos_token"),
            std::string::npos);
}

TEST(TokenizerTest, MalformedJsonIsAnError) {
  for (const std::string text : {"", "{", "[]", "null", "\"a\"", "{\"model\": \"\xff\"}"}) {
    EXPECT_FALSE(Tokenizer::Parse(text, "").has_value()) << text;
  }
  const std::string deep(1'000'000, '[');
  const auto tokenizer = Tokenizer::Parse(deep, "");
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_NE(tokenizer.error().message().find("deeper than 64"), std::string::npos);
}

TEST(TokenizerTest, MissingFolder) {
  const auto tokenizer = Tokenizer::Load("/nonexistent");
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_EQ(tokenizer.error().code(), ErrorCode::kNotFound);
}

// One word of a megabyte: anything quadratic would take hours.
TEST(TokenizerTest, LongWordIsNotQuadratic) {
  const auto tokenizer = Parsed(SmallFile());
  std::string word;
  while (word.size() < 1'000'000) word += "abcab";
  const auto begin = std::chrono::steady_clock::now();
  const Ids ids = tokenizer->Encode(word, false);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(ids.size(), 600'000u);  // a, bc, ab
  EXPECT_LT(seconds.count(), 20.0);
}

TEST(TokenizerTest, ManyThreads) {
  const auto tokenizer = Parsed(SmallFile());
  const std::string text = "abc ab<s>bc caab";
  const Ids expected = tokenizer->Encode(text, false);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) EXPECT_EQ(tokenizer->Encode(text, false), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace moebius::text
