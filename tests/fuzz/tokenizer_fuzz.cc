// Random bytes as a tokenizer.json and as the text of a small tokenizer: neither may crash, and
// decoding must give the same text at once and streamed, valid UTF-8 always.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

using moebius::TokenId;
using moebius::text::Detokenizer;
using moebius::text::Tokenizer;

constexpr std::string_view kSmallTokenizer = R"({
  "added_tokens": [
    {"id": 11, "content": "<s>", "single_word": false, "lstrip": true, "rstrip": true,
     "normalized": false, "special": true},
    {"id": 12, "content": "é", "single_word": true, "lstrip": false, "rstrip": false,
     "normalized": true, "special": false}],
  "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "a{2}?b"}, "content": "b"}]},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)| ?\\p{L}+"},
     "behavior": "MergedWithNext", "invert": false},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": false}]},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]},
  "model": {"type": "BPE", "unk_token": "?", "fuse_unk": true, "byte_fallback": true,
    "vocab": {"a": 0, "b": 1, "_": 2, "ab": 3, "_a": 4, "?": 5, "<0xC3>": 6, "<0xA9>": 7,
              "<0xFF>": 8, "aab": 9, "1": 10},
    "merges": ["a b", ["_", "a"], "a ab"]}})";

void Check(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  for (const bool skip : {false, true}) {
    const std::string text = tokenizer.Decode(ids, skip);
    if (moebius::text::ValidPrefix(text) != text.size()) std::abort();
    Detokenizer detokenizer(tokenizer, skip);
    std::string streamed;
    for (const TokenId id : ids) {
      const std::string part = detokenizer.Push(id);
      if (moebius::text::ValidPrefix(part) != part.size()) std::abort();
      streamed += part;
    }
    streamed += detokenizer.Finish();
    if (streamed != text) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<Tokenizer> small = [] {
    moebius::SetLogLevel(moebius::LogLevel::kOff);
    auto tokenizer = Tokenizer::Parse(kSmallTokenizer, "");
    if (!tokenizer) std::abort();
    return *std::move(tokenizer);
  }();
  const std::string_view input(reinterpret_cast<const char*>(data), size);

  Check(*small, small->Encode(input, true));
  std::vector<TokenId> ids;
  for (const char byte : input.substr(0, 256)) ids.push_back(static_cast<int8_t>(byte) % 16);
  Check(*small, ids);

  if (const auto parsed = Tokenizer::Parse(input, "")) {
    Check(**parsed, (*parsed)->Encode("Hello <s> 12 \u00e9\u4f60 \n\n x", true));
    Check(**parsed, (*parsed)->Encode(input.substr(0, 256), false));
  }
  return 0;
}
