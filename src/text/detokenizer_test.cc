#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/byte_level.h"

namespace moebius::text {
namespace {

using Json = nlohmann::json;

// One token for each byte, id = byte, spelled as `spell` says.
template <typename Spell>
std::unique_ptr<Tokenizer> ByteTokenizer(const char* decoder, Spell spell) {
  Json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[spell(static_cast<char>(byte))] = byte;
  vocab["\u2581hi"] = 256;
  const Json file = {{"model", {{"vocab", vocab}, {"merges", Json::array()}}},
                     {"decoder", Json::parse(decoder)}};
  auto tokenizer = Tokenizer::Parse(file.dump(), "");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message();
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> ByteLevelTokenizer() {
  return ByteTokenizer(R"({"type": "ByteLevel"})", [](char byte) {
    std::string name;
    AppendByteChars(name, {&byte, 1});
    return name;
  });
}

std::unique_ptr<Tokenizer> FallbackTokenizer() {
  return ByteTokenizer(
      R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})",
      [](char byte) { return fmt::format("<0x{:02X}>", static_cast<uint8_t>(byte)); });
}

// What comes out of each push of a byte, and of the end.
std::vector<std::string> Stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  Detokenizer detokenizer(tokenizer, false);
  std::vector<std::string> parts;
  for (const TokenId id : ids) parts.push_back(detokenizer.Push(id));
  parts.push_back(detokenizer.Finish());
  return parts;
}

using Parts = std::vector<std::string>;

TEST(DetokenizerTest, ByteLevelWaitsForWholeCharacters) {
  const auto tokenizer = ByteLevelTokenizer();
  EXPECT_EQ(Stream(*tokenizer, {'a', 0xE4, 0xBD, 0xA0, 'b'}), (Parts{"a", "", "", "你", "b", ""}));
}

TEST(DetokenizerTest, ByteLevelReplacesBrokenSequencesAtOnce) {
  const auto tokenizer = ByteLevelTokenizer();
  EXPECT_EQ(Stream(*tokenizer, {0xE4, 'a'}), (Parts{"", "\uFFFDa", ""}));
  EXPECT_EQ(Stream(*tokenizer, {0xFF, 0x80}), (Parts{"\uFFFD", "\uFFFD", ""}));
  EXPECT_EQ(Stream(*tokenizer, {0xF0, 0x9F, 0x98}), (Parts{"", "", "", "\uFFFD"})) << "cut off";
  EXPECT_EQ(Stream(*tokenizer, {0xED, 0xA0}), (Parts{"", "\uFFFD\uFFFD", ""})) << "a surrogate";
}

TEST(DetokenizerTest, FallbackBytesWaitForTheirRun) {
  const auto tokenizer = FallbackTokenizer();
  EXPECT_EQ(Stream(*tokenizer, {256, 0xE4, 0xBD, 0xA0, 256}),
            (Parts{"hi", "", "", "", "你 hi", ""}));
  EXPECT_EQ(Stream(*tokenizer, {0xE4, 0xBD, 256}), (Parts{"", "", "\uFFFD\uFFFD hi", ""}));
  EXPECT_EQ(Stream(*tokenizer, {0xE4, 0xBD}), (Parts{"", "", "\uFFFD\uFFFD"}));
}

TEST(DetokenizerTest, OnlyTheFirstSpaceIsStripped) {
  const auto tokenizer = FallbackTokenizer();
  EXPECT_EQ(Stream(*tokenizer, {256, 256}), (Parts{"hi", " hi", ""}));
  EXPECT_EQ(Stream(*tokenizer, {}), (Parts{""}));
}

TEST(DetokenizerTest, MovesWithItsState) {
  const auto tokenizer = ByteLevelTokenizer();
  Detokenizer first(*tokenizer, false);
  EXPECT_EQ(first.Push(0xC3), "");
  Detokenizer second = std::move(first);
  EXPECT_EQ(second.Push(0xA9), "é");
}

}  // namespace
}  // namespace moebius::text
