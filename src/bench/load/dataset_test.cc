#include "bench/load/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>

#include "bench/load/rows.h"

namespace moebius::load {
namespace {

// A vocabulary of the numbers from 10 to 99, each spelled with a space behind it; encoding joins
// "1" and "0" again, so that text and ids agree.
class Numbers : public PromptCodec {
 public:
  Numbers() : ids_(90) { std::iota(ids_.begin(), ids_.end(), 10); }
  std::span<const TokenId> ids() const override { return ids_; }
  bool has_text() const override { return true; }
  Result<std::vector<TokenId>> Encode(std::string_view text) override {
    std::vector<TokenId> ids;
    for (size_t i = 0; i + 2 < text.size() + 1; i += 3) {
      ids.push_back(std::stoi(std::string(text.substr(i, 2))));
    }
    return ids;
  }
  Result<std::string> Decode(std::span<const TokenId> ids) override {
    std::string text;
    for (const TokenId id : ids) text += std::to_string(id) + " ";
    return text;
  }

 private:
  std::vector<TokenId> ids_;
};

std::string Data(const std::string& name) {
  return MOEBIUS_SOURCE_DIR "/src/bench/load/testing/data/" + name;
}

std::vector<LoadRequest> FromFile(const std::string& name, const std::string& file,
                                  int64_t num_prompts = 10, bool oversample = false) {
  DatasetOptions options;
  options.name = name;
  options.path = Data(file);
  options.num_prompts = num_prompts;
  options.shuffle = false;
  options.oversample = oversample;
  auto requests = MakeDataset(options, nullptr);
  EXPECT_TRUE(requests) << requests.error().message();
  return requests.value_or(std::vector<LoadRequest>());
}

TEST(Dataset, RandomLengthsStayInTheirRange) {
  Numbers codec;
  DatasetOptions options;
  options.num_prompts = 200;
  options.random_input_len = 40;
  options.random_output_len = 10;
  options.random_prefix_len = 5;
  options.random_range_ratio = 0.5;
  const auto requests = MakeDataset(options, &codec);
  ASSERT_TRUE(requests);
  ASSERT_EQ(requests->size(), 200u);
  std::set<size_t> lengths;
  for (const LoadRequest& request : *requests) {
    EXPECT_GE(request.prompt_ids.size(), 25u);
    EXPECT_LE(request.prompt_ids.size(), 65u);
    EXPECT_GE(request.output_len, 5);
    EXPECT_LE(request.output_len, 15);
    EXPECT_TRUE(std::equal(request.prompt_ids.begin(), request.prompt_ids.begin() + 5,
                           requests->front().prompt_ids.begin()));
    lengths.insert(request.prompt_ids.size());
  }
  EXPECT_GT(lengths.size(), 20u);
  EXPECT_EQ(MakeDataset(options, &codec)->at(7).prompt_ids, requests->at(7).prompt_ids);
  options.seed = 1;
  EXPECT_NE(MakeDataset(options, &codec)->at(7).prompt_ids, requests->at(7).prompt_ids);
}

TEST(Dataset, TextHasTheLengthThatWasAskedFor) {
  Numbers codec;
  DatasetOptions options;
  options.num_prompts = 3;
  options.random_input_len = 12;
  options.want_ids = false;
  const auto requests = MakeDataset(options, &codec);
  ASSERT_TRUE(requests);
  for (const LoadRequest& request : *requests) {
    EXPECT_TRUE(request.prompt_ids.empty());
    EXPECT_EQ(codec.Encode(request.prompt)->size(), 12u);
  }
}

TEST(Dataset, WithoutAnybodyToAskPromptsAreWords) {
  DatasetOptions options;
  options.num_prompts = 2;
  options.random_input_len = 6;
  const auto requests = MakeDataset(options, nullptr);
  ASSERT_TRUE(requests);
  EXPECT_EQ(std::ranges::count(requests->front().prompt, ' '), 5);
}

TEST(Dataset, PrefixesAreRepeatedEquallyOften) {
  Numbers codec;
  DatasetOptions options;
  options.name = "prefix_repetition";
  options.num_prompts = 12;
  options.num_prefixes = 3;
  options.prefix_len = 8;
  options.suffix_len = 4;
  const auto requests = MakeDataset(options, &codec);
  ASSERT_TRUE(requests);
  std::multiset<std::vector<TokenId>> prefixes;
  for (const LoadRequest& request : *requests) {
    ASSERT_EQ(request.prompt_ids.size(), 12u);
    prefixes.insert({request.prompt_ids.begin(), request.prompt_ids.begin() + 8});
  }
  for (const auto& prefix : prefixes) EXPECT_EQ(prefixes.count(prefix), 4u);
}

TEST(Dataset, PublicFormats) {
  const auto gsm8k = FromFile("gsm8k", "gsm8k.jsonl");
  ASSERT_EQ(gsm8k.size(), 4u);
  EXPECT_TRUE(gsm8k[0].prompt.starts_with("Question: Janet\u2019s ducks lay 16 eggs"));
  EXPECT_TRUE(gsm8k[0].prompt.ends_with("\nAnswer:"));
  EXPECT_EQ(gsm8k[0].output_len, 256);
  EXPECT_NE(gsm8k[0].messages.find("\"role\":\"user\""), std::string::npos);

  const auto mmlu = FromFile("mmlu", "mmlu.csv");
  ASSERT_EQ(mmlu.size(), 2u);
  EXPECT_EQ(mmlu[0].prompt, FromFile("mmlu", "mmlu.jsonl").at(0).prompt);
  EXPECT_EQ(mmlu[1].prompt,
            "The symbol \"H\" stands for\nA. helium\nB. hydrogen\nC. hafnium, a metal\n"
            "D. holmium\nAnswer:");

  const auto alpaca = FromFile("alpaca_eval", "alpaca_eval.json");
  ASSERT_EQ(alpaca.size(), 2u);
  EXPECT_EQ(alpaca[1].prompt, "Write a haiku.");

  const auto sharegpt = FromFile("sharegpt", "sharegpt.json");
  ASSERT_EQ(sharegpt.size(), 1u);  // the others are cut or too short
  EXPECT_GT(sharegpt[0].output_len, 4);
}

TEST(Dataset, TooFewRowsAreRepeatedUnlessForbidden) {
  EXPECT_EQ(FromFile("gsm8k", "gsm8k.jsonl", 10, true).size(), 10u);
  EXPECT_EQ(FromFile("gsm8k", "gsm8k.jsonl", 10, false).size(), 4u);
  EXPECT_EQ(FromFile("gsm8k", "gsm8k.jsonl", 3, true).size(), 3u);
}

TEST(Dataset, ATraceKeepsItsTimesLengthsAndSharedBlocks) {
  Numbers codec;
  DatasetOptions options;
  options.name = "trace";
  options.path = Data("trace.jsonl");
  options.trace_block_size = 8;
  const auto requests = MakeDataset(options, &codec);
  ASSERT_TRUE(requests);
  ASSERT_EQ(requests->size(), 3u);
  const LoadRequest& a = requests->at(0);
  const LoadRequest& c = requests->at(2);
  EXPECT_DOUBLE_EQ(*a.arrival, 0);
  EXPECT_DOUBLE_EQ(*requests->at(1).arrival, 0.25);
  EXPECT_DOUBLE_EQ(*c.arrival, 0.5);
  EXPECT_EQ(a.prompt_ids.size(), 20u);
  EXPECT_EQ(c.prompt_ids.size(), 17u);
  EXPECT_EQ(c.output_len, 5);
  EXPECT_TRUE(std::equal(a.prompt_ids.begin(), a.prompt_ids.begin() + 16, c.prompt_ids.begin()));
  EXPECT_EQ(requests->at(1).prompt_ids.size(), 4u);
}

std::string ErrorOf(const DatasetOptions& options) {
  const auto requests = MakeDataset(options, nullptr);
  return requests ? "" : requests.error().message();
}

TEST(Dataset, ErrorsNameWhatIsWrong) {
  DatasetOptions options;
  options.name = "gsm8";
  EXPECT_NE(ErrorOf(options).find("did you mean gsm8k"), std::string::npos);
  options.name = "gsm8k";
  EXPECT_NE(ErrorOf(options).find("--dataset-path"), std::string::npos);
  options.path = "/nowhere.jsonl";
  EXPECT_NE(ErrorOf(options).find("/nowhere.jsonl: cannot be read"), std::string::npos);
  options.path = Data("alpaca_eval.json");
  EXPECT_NE(ErrorOf(options).find("alpaca_eval.json[0]: expected a text 'question'"),
            std::string::npos);
  options.name = "random";
  EXPECT_NE(ErrorOf(options).find("reads no file"), std::string::npos);

  const std::string path = testing::TempDir() + "moebius_dataset_test.jsonl";
  std::ofstream(path) << "{\"prompt\": \"a\"}\n\n{\"prompt\": [1, -2]}\n";
  options.name = "custom";
  options.path = path;
  EXPECT_NE(ErrorOf(options).find(":3: expected 'prompt'"), std::string::npos) << ErrorOf(options);
}

// A row that the endpoint cannot take is refused at load, by its line.
TEST(Dataset, CustomRowsMustSuitTheEndpoint) {
  const std::string path = testing::TempDir() + "moebius_custom_test.jsonl";
  const std::string messages = R"("messages": [{"role": "user", "content": "hi"}])";
  DatasetOptions options;
  options.name = "custom";
  options.path = path;
  options.num_prompts = 1;
  std::ofstream(path) << "{\"prompt\": \"a\"}\n{" << messages << "}\n";
  EXPECT_NE(ErrorOf(options).find(":2: 'messages' are for a chat"), std::string::npos)
      << ErrorOf(options);
  options.chat = true;
  EXPECT_TRUE(MakeDataset(options, nullptr));
  std::ofstream(path) << "{\"prompt\": [1, 2]}\n";
  EXPECT_NE(ErrorOf(options).find(":1: 'prompt' is token ids"), std::string::npos);
  options.chat = false;
  EXPECT_TRUE(MakeDataset(options, nullptr));
  // One that has both suits both.
  std::ofstream(path) << "{\"prompt\": \"a\", " << messages << "}\n";
  for (const bool chat : {false, true}) {
    options.chat = chat;
    const auto requests = MakeDataset(options, nullptr);
    ASSERT_TRUE(requests);
    EXPECT_EQ(requests->front().messages.empty(), !chat);
    EXPECT_EQ(requests->front().prompt, chat ? "" : "a");
  }
}

TEST(Csv, FieldsAreQuotedAndReadBack) {
  const std::vector<std::string> fields = {"a", "b,c", "d\"e", "f\ng", ""};
  std::string text;
  for (const std::string& field : fields) text += CsvField(field) + ",";
  text.back() = '\n';
  const auto rows = ParseCsv(text + text);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ(rows->at(1), fields);
  EXPECT_FALSE(ParseCsv("a,\"b"));
}

}  // namespace
}  // namespace moebius::load
