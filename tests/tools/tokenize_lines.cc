// tokenize_lines FOLDER [--special] [--decode] [--time]: encodes texts with the tokenizer of
// FOLDER, for comparison with another implementation (tools/text/compare_tokenizers.py). Standard
// input holds records, each a 32-bit little-endian length and that many bytes. Without
// --decode a record is a text (any bytes) and each is answered by its ids; with --decode a record
// is 32-bit ids and is answered by their text, which is also checked against the Detokenizer's.
// Answers are records too. --special adds the special tokens, or skips them when decoding. --time
// answers nothing and prints the speed on standard error.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

using moebius::TokenId;
using moebius::text::Detokenizer;
using moebius::text::Tokenizer;

void WriteRecord(std::string_view bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  std::cout.write(reinterpret_cast<const char*>(&size), sizeof(size));
  std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::string> ReadRecords() {
  std::vector<std::string> records;
  uint32_t size = 0;
  while (std::cin.read(reinterpret_cast<char*>(&size), sizeof(size))) {
    std::string record(size, '\0');
    std::cin.read(record.data(), static_cast<std::streamsize>(size));
    records.push_back(std::move(record));
  }
  return records;
}

// Decode's text, or an empty optional's worth of noise if the Detokenizer disagrees.
std::string DecodeBothWays(const Tokenizer& tokenizer, const std::string& record, bool skip) {
  std::vector<TokenId> ids(record.size() / sizeof(TokenId));
  std::memcpy(ids.data(), record.data(), ids.size() * sizeof(TokenId));
  const std::string text = tokenizer.Decode(ids, skip);
  Detokenizer detokenizer(tokenizer, skip);
  std::string streamed;
  for (const TokenId id : ids) streamed += detokenizer.Push(id);
  streamed += detokenizer.Finish();
  return streamed == text ? text : "Detokenizer and Decode disagree";
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  bool special = false;
  bool decode = false;
  bool time = false;
  for (int i = 2; i < argc; ++i) {
    special |= std::strcmp(argv[i], "--special") == 0;
    decode |= std::strcmp(argv[i], "--decode") == 0;
    time |= std::strcmp(argv[i], "--time") == 0;
  }
  if (argc < 2) {
    std::cerr << "usage: tokenize_lines FOLDER [--special] [--decode] [--time] < records\n";
    return 2;
  }
  const auto tokenizer = Tokenizer::Load(argv[1]);
  if (!tokenizer) {
    std::cerr << tokenizer.error().message() << '\n';
    return 1;
  }
  const std::vector<std::string> records = ReadRecords();
  size_t num_bytes = 0;
  size_t num_ids = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& record : records) {
    if (decode) {
      const std::string text = DecodeBothWays(**tokenizer, record, special);
      if (!time) WriteRecord(text);
      continue;
    }
    const std::vector<TokenId> ids = (*tokenizer)->Encode(record, special);
    num_bytes += record.size();
    num_ids += ids.size();
    if (!time) {
      WriteRecord({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)});
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (time) {
    std::cerr << static_cast<double>(num_bytes) / 1e6 << " MB, " << num_ids << " ids, "
              << static_cast<double>(num_bytes) / 1e6 / seconds.count() << " MB/s\n";
  }
  return 0;
}
