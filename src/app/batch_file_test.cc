#include "app/batch_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace moebius::app {
namespace {

std::string ErrorOf(const std::string& text) {
  const auto line = ParseBatchLine(text, "in.jsonl:3", 3);
  EXPECT_FALSE(line) << text;
  return line ? "" : line.error().message();
}

TEST(BatchFile, EveryKindOfPrompt) {
  auto line =
      ParseBatchLine(R"({"id": "a", "prompt": "hi", "max_tokens": 5, "stop": "x", "temperature": 0,
                                "logprobs": 2, "seed": 7, "ignore_eos": true, "top_p": 0.5})",
                     "f:1", 1);
  ASSERT_TRUE(line) << line.error().message();
  EXPECT_EQ(line->id_json, "\"a\"");
  EXPECT_EQ(std::get<std::string>(line->prompt), "hi");
  EXPECT_EQ(line->sampling.max_tokens, 5);
  EXPECT_EQ(line->sampling.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(line->sampling.temperature, 0.0f);
  EXPECT_EQ(line->sampling.logprobs, 2);
  EXPECT_EQ(line->sampling.seed, 7u);
  EXPECT_EQ(line->sampling.ignore_eos, true);
  EXPECT_EQ(line->sampling.top_p, 0.5f);
  EXPECT_FALSE(line->sampling.min_p);

  line = ParseBatchLine(
      R"({"prompt_ids": [5, 6], "stop": ["a", "b"], "stop_token_ids": [3], "max_tokens": null})",
      "f:2", 2);
  ASSERT_TRUE(line) << line.error().message();
  EXPECT_EQ(line->id_json, "2");
  EXPECT_EQ(std::get<std::vector<TokenId>>(line->prompt), (std::vector<TokenId>{5, 6}));
  EXPECT_EQ(line->sampling.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(line->sampling.stop_token_ids, std::vector<TokenId>{3});
  EXPECT_FALSE(line->sampling.max_tokens);

  line = ParseBatchLine(R"({"id": 9, "messages": [{"role": "user", "content": "hé"}]})", "f:3", 3);
  ASSERT_TRUE(line) << line.error().message();
  const auto& messages = std::get<frontend::Conversation>(line->prompt).messages.Items();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].AsDict().Find("content")->AsString(), "hé");
}

TEST(BatchFile, OpenAisBatchLines) {
  const auto line = ParseBatchLine(
      R"({"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body":
          {"model": "m", "messages": [{"role": "user", "content": "hi"}],
           "max_completion_tokens": 7, "logprobs": true, "top_logprobs": 2}})",
      "f:1", 1);
  ASSERT_TRUE(line) << line.error().message();
  EXPECT_EQ(line->id_json, "\"r1\"");
  EXPECT_EQ(line->sampling.max_tokens, 7);
  EXPECT_EQ(line->sampling.logprobs, 2);
  EXPECT_TRUE(std::holds_alternative<frontend::Conversation>(line->prompt));
  EXPECT_NE(ErrorOf(R"({"custom_id": "r1", "body": "x"})").find("'body'"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"prompt": "x", "body": {}})").find("'prompt'"), std::string::npos);
}

TEST(BatchFile, ErrorsNameLineAndField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nonsense", ""},
      {"[1]", "object"},
      {"{}", "prompt"},
      {R"({"prompt": "a", "prompt_ids": [1]})", "more than one"},
      {R"({"prompt": 5})", "'prompt'"},
      {R"({"prompt_ids": ["x"]})", "'prompt_ids"},
      {R"({"prompt_ids": [-1]})", "'prompt_ids"},
      {R"({"messages": "hi"})", "'messages'"},
      {R"({"messages": []})", "'messages'"},
      {R"({"messages": [{"content": "hi"}]})", "'messages[0].role'"},
      {R"({"prompt": "a", "max_tokens": "many"})", "'max_tokens'"},
      {R"({"prompt": "a", "temperature": []})", "'temperature'"},
      {R"({"prompt": "a", "stop": 5})", "'stop"},
      {R"({"prompt": "a", "id": {}})", "'id'"},
      {R"({"prompt": "a", "max_token": 5})", "did you mean max_tokens?"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string error = ErrorOf(text);
    EXPECT_EQ(error.rfind("in.jsonl:3", 0), 0u) << error;
    EXPECT_NE(error.find(expected), std::string::npos) << error;
  }
}

TEST(BatchFile, AFileIsReadWholeAndItsFirstBadLineNamed) {
  const std::string path = testing::TempDir() + "moebius_batch_file_test.jsonl";
  std::ofstream(path) << "{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\r\n{\"prompt\": \"c\"}";
  const auto lines = ReadBatchFile(path);
  ASSERT_TRUE(lines) << lines.error().message();
  ASSERT_EQ(lines->size(), 3u);
  EXPECT_EQ((*lines)[1].number, 3);
  std::ofstream(path) << "{\"prompt\": \"a\"}\n{\"prompt\": \n";
  const auto bad = ReadBatchFile(path);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message().rfind(path + ":2", 0), 0u) << bad.error().message();
  std::remove(path.c_str());
  EXPECT_FALSE(ReadBatchFile(path));
}

TEST(BatchFile, AFolderOrAFileWithoutRequestsIsAnError) {
  const auto folder = ReadBatchFile(testing::TempDir());
  ASSERT_FALSE(folder);
  EXPECT_NE(folder.error().message().find("is a folder"), std::string::npos);
  const std::string path = testing::TempDir() + "moebius_batch_file_empty.jsonl";
  for (const char* text : {"", "\n \n\t\r\n"}) {
    std::ofstream(path) << text;
    const auto lines = ReadBatchFile(path);
    ASSERT_FALSE(lines);
    EXPECT_EQ(lines.error().message(),
              "--input-file: " + path + " holds no request, expected a JSON object a line");
  }
  std::remove(path.c_str());
}

TEST(BatchFile, AnswersAreLinesOfJson) {
  const auto line = ParseBatchLine(R"({"id": "q\"1", "prompt": "x"})", "f:1", 1);
  frontend::GenerateOutput output;
  output.text = "two\nlines";
  output.token_ids = {4, 5};
  output.finish = engine::FinishReason::kStop;
  output.stop_string = "END";
  output.usage = {3, 1, 2};
  output.logprobs.push_back({4, "\xe4", -0.5f, 1, {{4, "\xe4", -0.5f}, {6, "b", -1.5f}}});
  const std::string text = FormatAnswer(*line, output);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["id"], "q\"1");
  EXPECT_EQ(json["text"], "two\nlines");
  EXPECT_EQ(json["token_ids"], (std::vector<int>{4, 5}));
  EXPECT_EQ(json["finish_reason"], "stop");
  EXPECT_EQ(json["stop_reason"], "END");
  EXPECT_EQ(json["usage"]["total_tokens"], 5);
  EXPECT_EQ(json["logprobs"][0]["top_logprobs"][1]["token_id"], 6);
  const auto failure = nlohmann::json::parse(
      FormatFailure(*line, Error(ErrorCode::kInvalidArgument, "prompt is long")));
  EXPECT_EQ(failure["error"], "prompt is long");
  EXPECT_EQ(failure["finish_reason"], "error");
}

}  // namespace
}  // namespace moebius::app
