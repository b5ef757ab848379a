#include "serve/openai/reasoning.h"

#include <gtest/gtest.h>

namespace moebius::serve {
namespace {

struct Split {
  std::string reasoning;
  std::string content;
  size_t bytes = 0;
};

// Pieces of `size` bytes.
Split SplitBy(ThinkStart start, std::string_view text, size_t size) {
  ReasoningSplitter splitter(start);
  Split split;
  for (size_t i = 0; i < text.size(); i += size) {
    splitter.Push(text.substr(i, size), split.reasoning, split.content);
  }
  splitter.Finish(split.reasoning, split.content);
  split.bytes = splitter.reasoning_bytes();
  return split;
}

TEST(Reasoning, TagsCutAnywhere) {
  struct Case {
    ThinkStart start;
    const char* text;
    const char* reasoning;
    const char* content;
    size_t bytes;
  };
  const Case cases[] = {
      {ThinkStart::kByOutput, "<think>a\nb</think>\n\nc", "a\nb", "\n\nc", 18},
      {ThinkStart::kByOutput, "\n<think>a</think>c", "a", "c", 17},
      {ThinkStart::kByOutput, "c <think>a</think>", "", "c <think>a</think>", 0},
      {ThinkStart::kByOutput, "<thinker>", "", "<thinker>", 0},
      {ThinkStart::kByOutput, "<think>never closed </thin", "never closed </thin", "", 26},
      {ThinkStart::kByOutput, "<thin", "", "<thin", 0},
      {ThinkStart::kByOutput, " \n", "", " \n", 0},
      {ThinkStart::kByOutput, "", "", "", 0},
      {ThinkStart::kByOutput, "a</think>b", "", "a</think>b", 0},
      {ThinkStart::kOpen, "a < b </t </think>c</think>d", "a < b </t ", "c</think>d", 18},
      {ThinkStart::kOpen, "<think>\na</think>c", "\na", "c", 17},
      {ThinkStart::kOpen, "</think>c", "", "c", 8},
      {ThinkStart::kOpen, "\n", "\n", "", 1},
      {ThinkStart::kOpen, "all of it", "all of it", "", 9},
      {ThinkStart::kOpen, "<<</</think><", "<<</", "<", 12},
      {ThinkStart::kNever, "<think>a</think>", "", "<think>a</think>", 0},
  };
  for (const Case& c : cases) {
    for (size_t size = 1; size <= 30; ++size) {
      const Split split = SplitBy(c.start, c.text, size);
      EXPECT_EQ(split.reasoning, c.reasoning) << c.text << " by " << size;
      EXPECT_EQ(split.content, c.content) << c.text << " by " << size;
      EXPECT_EQ(split.bytes, c.bytes) << c.text << " by " << size;
    }
  }
}

TEST(Reasoning, NothingCertainIsKeptBack) {
  ReasoningSplitter splitter(ThinkStart::kByOutput);
  std::string reasoning;
  std::string content;
  splitter.Push("<think>abc</", reasoning, content);
  EXPECT_EQ(reasoning, "abc");
  splitter.Push("b", reasoning, content);
  EXPECT_EQ(reasoning, "abc</b");
  EXPECT_FALSE(splitter.is_content());
  splitter.Push("</think>x", reasoning, content);
  EXPECT_EQ(content, "x");
  ReasoningSplitter spaces(ThinkStart::kByOutput);
  content.clear();
  for (int i = 0; i < 100; ++i) spaces.Push(" ", reasoning, content);
  EXPECT_EQ(content, std::string(100, ' ')) << "spaces without end are no beginning";
  EXPECT_TRUE(splitter.is_content());
}

TEST(Reasoning, WhatThePromptSaysOfItsStart) {
  const auto start = [](const char* parser, const char* tail, bool continues = false) {
    return FindThinkStart(parser, tail, continues);
  };
  EXPECT_EQ(start("", "<think>\n"), ThinkStart::kNever);
  EXPECT_EQ(start("auto", "assistant\n<think>\n"), ThinkStart::kOpen);
  EXPECT_EQ(start("auto", "assistant\n<think>\n\n</think>\n\n"), ThinkStart::kNever);
  EXPECT_EQ(start("auto", "what is <think>? assistant\n"), ThinkStart::kByOutput);
  EXPECT_EQ(start("qwen3", "assistant\n"), ThinkStart::kByOutput);
  EXPECT_EQ(start("deepseek_r1", "<Assistant>"), ThinkStart::kOpen);
  EXPECT_EQ(start("deepseek_r1", "<think></think>"), ThinkStart::kNever);
  EXPECT_EQ(start("auto", "<think>so far", true), ThinkStart::kOpen);
  EXPECT_EQ(start("auto", "<think>a</think>so far", true), ThinkStart::kNever);
  EXPECT_EQ(start("auto", "a</think>so far", true), ThinkStart::kNever);
  EXPECT_EQ(start("auto", "an answer", true), ThinkStart::kNever);
}

}  // namespace
}  // namespace moebius::serve
