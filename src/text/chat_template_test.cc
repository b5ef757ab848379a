#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "text/jinja/json.h"

namespace moebius::text {
namespace {

namespace fs = std::filesystem;
using jinja::Value;

class ChatTemplateTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              ("moebius_chat_" + std::to_string(getpid()) + "_" + info->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string LoadError(ErrorCode code) {
    const Result<ChatTemplate> loaded = ChatTemplate::Load(folder_);
    if (loaded) return "it loaded";
    EXPECT_EQ(loaded.error().code(), code);
    return loaded.error().message();
  }
  std::string ApplyOne(const Value& tools = Value::None()) {
    const Result<ChatTemplate> loaded = ChatTemplate::Load(folder_);
    if (!loaded) return loaded.error().message();
    const Value messages = jinja::ParseJson(R"([{"role": "user", "content": "hi"}])").value();
    return loaded->Apply(messages, tools).value_or("refused");
  }

  fs::path folder_;
};

TEST_F(ChatTemplateTest, LoadsFromTokenizerConfig) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}",
      "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null, "add_bos_token": true})");
  EXPECT_EQ(ApplyOne(), "<s>hi</s>");
  Write("special_tokens_map.json", R"({"bos_token": "other", "pad_token": {"content": "<pad>"}})");
  EXPECT_EQ(ApplyOne(), "<s>hi</s><pad>");
}

TEST_F(ChatTemplateTest, PicksAmongNamedTemplates) {
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "T{{ tools|length }}"},
                                                      {"name": "default", "template": "D"}]})");
  EXPECT_EQ(ApplyOne(), "D");
  EXPECT_EQ(ApplyOne(Value::List({})), "T0");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "R"}]})");
  EXPECT_NE(LoadError(ErrorCode::kNotFound).find("no entry named 'default', only: rag"),
            std::string::npos);
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  EXPECT_NE(LoadError(ErrorCode::kCorrupt).find("'name' and 'template'"), std::string::npos);
}

TEST_F(ChatTemplateTest, FilesWinInOrder) {
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(ApplyOne(), "json");
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(ApplyOne(), "config");
  Write("chat_template.jinja", "jinja\n");
  EXPECT_EQ(ApplyOne(Value::List({})), "jinja");
  Write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(ApplyOne(Value::List({})), "tools");
  EXPECT_EQ(ApplyOne(), "jinja");
}

TEST_F(ChatTemplateTest, SaysWhatIsMissingOrBroken) {
  EXPECT_EQ(LoadError(ErrorCode::kNotFound),
            folder_.string() +
                ": no chat template: looked for chat_template.jinja, 'chat_template' in "
                "tokenizer_config.json, and "
                "chat_template.json");
  Write("tokenizer_config.json", "{\"chat_template\": 5}");
  EXPECT_NE(LoadError(ErrorCode::kCorrupt).find("must be a text or a list, found int"),
            std::string::npos);
  Write("tokenizer_config.json", "{");
  EXPECT_NE(LoadError(ErrorCode::kCorrupt).find("tokenizer_config.json"), std::string::npos);
  Write("tokenizer_config.json", "[]");
  EXPECT_NE(LoadError(ErrorCode::kCorrupt).find("expected an object, found list"),
            std::string::npos);
  Write("tokenizer_config.json", R"({"chat_template": "\n{% include 'x' %}"})");
  EXPECT_EQ(LoadError(ErrorCode::kUnsupported),
            folder_.string() + ": chat template: line 2: '{% include %}' is not supported");
}

TEST_F(ChatTemplateTest, AppliesMessages) {
  const Result<ChatTemplate> loaded = ChatTemplate::FromSource(
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '[assistant]' if "
      "add_generation_prompt }}"
      "{{ tools }}{{ documents }}{{ mode }}");
  ASSERT_TRUE(loaded);
  ChatTemplateOptions options;
  EXPECT_EQ(loaded->Apply({{"system", "s"}, {"user", "ü"}}).value(),
            "[system]s[user]ü[assistant]NoneNone");
  options.add_generation_prompt = false;
  options.variables.Set("mode", Value::String("!"));
  EXPECT_EQ(loaded->Apply(std::vector<ChatMessage>{{"user", "x"}}, options).value(),
            "[user]xNoneNone!");
  EXPECT_EQ(loaded->Apply(std::vector<ChatMessage>{}, options).value(), "NoneNone!");
}

TEST_F(ChatTemplateTest, LongConversationsPass) {
  const Result<ChatTemplate> loaded = ChatTemplate::FromSource(
      "{% for m in messages %}{% if '</think>' in m.content %}{% endif %}{% set c = "
      "m.content.split('</t>')[-1].strip() %}"
      "{{ '<|' ~ m.role ~ '|>' + c.replace('q', 'p')|trim + '<|end|>' }}{% endfor %}");
  ASSERT_TRUE(loaded);
  const std::vector<ChatMessage> messages(12, {"user", " " + std::string(1'000'000, 'x') + "\n"});
  const Result<std::string> text = loaded->Apply(messages);
  ASSERT_TRUE(text) << text.error().message();
  EXPECT_EQ(text->size(), 12u * (1'000'000 + 15));
}

TEST_F(ChatTemplateTest, CallerWinsOverTokenizer) {
  jinja::Dict variables;
  variables.Set("bos_token", Value::String("<s>"));
  const Result<ChatTemplate> loaded =
      ChatTemplate::FromSource("{{ bos_token }}", std::move(variables));
  ASSERT_TRUE(loaded);
  ChatTemplateOptions options;
  options.variables.Set("bos_token", Value::String("<b>"));
  EXPECT_EQ(loaded->Apply(std::vector<ChatMessage>{}, options).value(), "<b>");
}

TEST_F(ChatTemplateTest, ReasoningHasEveryName) {
  const Result<ChatTemplate> loaded = ChatTemplate::FromSource("{{ messages[0] }}");
  ASSERT_TRUE(loaded);
  const Value messages = jinja::ParseJson(R"([{"role": "assistant", "reasoning": "r"}])").value();
  EXPECT_EQ(loaded->Apply(messages, Value::None()).value(),
            "{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', 'reasoning_content': 'r'}");
}

TEST_F(ChatTemplateTest, RefusesWithReason) {
  const Result<ChatTemplate> loaded = ChatTemplate::FromSource(
      "{% if messages[0].role != 'user' %}\n{{ raise_exception('The first message must be the "
      "user\\'s') }}{% endif %}");
  ASSERT_TRUE(loaded);
  const Result<std::string> refused = loaded->Apply(std::vector<ChatMessage>{{"assistant", "x"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.error().message(),
            "chat template: line 2: The first message must be the user's");

  EXPECT_EQ(loaded->Apply(Value::Int(1), Value::None()).error().message(),
            "messages: expected a list, found int");
  EXPECT_EQ(loaded->Apply(Value::List({Value::Int(1)}), Value::None()).error().message(),
            "messages[0]: expected an object, found int");
  EXPECT_EQ(loaded->Apply(Value::List({}), Value::Int(1)).error().message(),
            "tools: expected a list, found int");
}

}  // namespace
}  // namespace moebius::text
