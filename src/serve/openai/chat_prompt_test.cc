// Messages on their way to the chat template.
#include "serve/openai/chat_prompt.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "serve/openai/api_fixture_test.h"
#include "serve/openai/chat_messages.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

std::string Golden(const std::string& name) {
  std::ifstream file(std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/templates/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

ApiResult<ChatPrompt> Encode(const std::string& source, const std::string& text) {
  const auto encoder = EncoderWith(source);
  const auto body = JsonBody::Parse(text);
  EXPECT_TRUE(body) << body.error().message;
  return EncodeChat(*body, ContextOf(*encoder), false);
}

// The prompt of a request with these messages and members.
std::string Prompt(const std::string& source, const std::string& messages,
                   const std::string& members = "") {
  const auto prompt =
      Encode(source, "{\"messages\": " + messages + (members.empty() ? "" : ", ") + members + "}");
  EXPECT_TRUE(prompt) << prompt.error().message;
  return prompt ? prompt->text : "";
}

// Shows every message as JSON.
constexpr char kShow[] = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}";

TEST(ChatPrompt, MessagesReachTheTemplate) {
  EXPECT_EQ(Prompt(kShow, R"([{"content": "a", "role": "user", "name": null, "z": 1, "b": 2}])"),
            "{\"role\": \"user\", \"content\": \"a\", \"z\": 1, \"b\": 2}\n");
  EXPECT_EQ(Prompt(kShow, R"([{"role": "tool", "tool_call_id": "7", "content": null}])"),
            "{\"role\": \"tool\", \"content\": \"\", \"tool_call_id\": \"7\"}\n");
  EXPECT_EQ(Prompt("{{ messages[0].reasoning_content }}/{{ messages[0].reasoning }}",
                   R"([{"role": "assistant", "content": "a", "reasoning": "because"}])"),
            "because/because");
  EXPECT_EQ(Prompt(kShow, R"([{"role": "assistant", "tool_calls": [], "content": "x"}])"),
            "{\"role\": \"assistant\", \"content\": \"x\"}\n");
}

TEST(ChatPrompt, PartsAreJoinedOrHandedOn) {
  const std::string parts =
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}])";
  EXPECT_EQ(Prompt("{{ messages[0].content }}", parts), "a\nb");
  EXPECT_EQ(Prompt("{{ messages[0].content }}",
                   R"([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}])"),
            "no");
  const std::string loops =
      "{% for p in messages[0]['content'] %}{% endfor %}"
      "{% for message in messages %}{% for p in message['content'] %}<{{ p.text }}>{% endfor %}"
      "{% endfor %}";
  EXPECT_EQ(Prompt(loops, parts), "<a><b>");
}

TEST(ChatPrompt, TraitsOfTemplates) {
  EXPECT_TRUE(TraitsOf("{%- for c in message.content %}").loops_over_content);
  EXPECT_TRUE(TraitsOf("{% for x in message[\"content\"] %}").loops_over_content);
  EXPECT_TRUE(TraitsOf("{% for x in  content %}").loops_over_content);
  EXPECT_FALSE(TraitsOf("{% if '</think>' in content %}for all").loops_over_content);
  EXPECT_FALSE(TraitsOf("{% for m in messages %}").loops_over_content);
  EXPECT_FALSE(TraitsOf("{% for m in contents %}").loops_over_content);
  EXPECT_FALSE(TraitsOf("{% for m in message.content.split('x') %}").loops_over_content);
  EXPECT_FALSE(TraitsOf("for").loops_over_content);
  EXPECT_FALSE(TraitsOf("for ").loops_over_content);
}

TEST(ChatPrompt, ADeveloperIsTheSystemWhereTemplatesKnowNone) {
  const std::string messages = R"([{"role": "developer", "content": "x"}])";
  EXPECT_EQ(Prompt("{{ messages[0].role }}", messages), "system");
  EXPECT_EQ(Prompt("{# developer #}{{ messages[0].role }}", messages), "developer");
  EXPECT_EQ(Prompt("{{ messages[0].role == 'ipython' }}", R"([{"role": "ipython"}])"), "True");
}

TEST(ChatPrompt, ARoleIsAWordThatTheTemplateComparesRolesWith) {
  const std::string messages = R"([{"role": "critic", "content": "x"}])";
  for (const char* knows :
       {"{{ messages[0]['role'] == \"critic\" }}", "{{ 'critic' == messages[0].role }}",
        "{{ messages[0].role in ['judge', 'critic'] }}", "{{ not messages[0].role != 'critic' }}",
        "{{ not (messages[0]['role'] not in ('critic', 'judge')) }}",
        "{% set role = messages[0]['role'] %}{{ 'critic'==role }}"}) {
    EXPECT_EQ(Prompt(knows, messages), "True") << knows;
  }
  for (const char* does_not :
       {"{{ 'critic' }}", "{{ messages[0]['critic'] }}", "{{ messages[0].content == 'critic' }}",
        "{{ messages[0].content in ['critic'] }}", "{{ 'critic' in messages[0].content }}",
        "{{ ['critic'] }}"}) {
    const auto refused = Encode(does_not, R"({"messages": )" + messages + "}");
    ASSERT_FALSE(refused) << does_not;
    EXPECT_NE(refused.error().message.find("messages[0].role is 'critic'"), std::string::npos);
  }
}

TEST(ChatPrompt, OptionsReachTheTemplate) {
  const std::string messages = R"([{"role": "user", "content": "x"}])";
  EXPECT_EQ(Prompt("{{ enable_thinking }} {{ reasoning_effort }} {{ documents | tojson }} "
                   "{{ tools | tojson }} {{ add_generation_prompt }}",
                   messages,
                   R"("chat_template_kwargs": {"enable_thinking": false}, "documents": [{"b": 1}],
                      "reasoning_effort": "low", "add_generation_prompt": false,
                      "tools": [{"z": {"y": 1, "a": 2}}])"),
            "False low [{\"b\": 1}] [{\"z\": {\"y\": 1, \"a\": 2}}] False");
}

constexpr char kCalls[] = R"([{"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
     "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "sun"}])";

TEST(ChatPrompt, PastCallsInTheFormThatATemplateTakes) {
  // Arguments as JSON text, content none.
  EXPECT_NE(Prompt(Golden("deepseek_v3.jinja"), kCalls)
                .find("weather\n```json\n{\"city\": \"Rome\"}\n```"),
            std::string::npos);
  // Arguments as a dict.
  EXPECT_NE(Prompt(Golden("qwen2_tools.jinja"), kCalls).find("\"arguments\": {\"city\": \"Rome\"}"),
            std::string::npos);
  EXPECT_NE(Prompt(Golden("qwen3_think.jinja"), kCalls).find("\"arguments\": {\"city\": \"Rome\"}"),
            std::string::npos);
  // A template that knows neither calls nor messages without content.
  EXPECT_EQ(Prompt("{% for m in messages %}{{ m.content + '|' }}{% endfor %}", kCalls),
            "Weather?||sun|");
}

TEST(ChatPrompt, ContinuesTheLastMessage) {
  const std::string chatml = Golden("chatml.jinja");
  const auto continued = [&](const std::string& content) {
    return Prompt(chatml,
                  R"([{"role": "user", "content": "a b"}, {"role": "assistant", "content": )" +
                      json(content).dump() + "}]",
                  R"("continue_final_message": true)");
  };
  EXPECT_TRUE(continued("a b").ends_with("assistant\na b")) << continued("a b");
  EXPECT_TRUE(continued(" So: ").ends_with("So: ")) << continued(" So: ");
  const auto empty = Encode(chatml, R"({"messages": [{"role": "assistant", "content": " "}],
                                        "continue_final_message": true})");
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().param, "continue_final_message");
  EXPECT_EQ(
      Prompt("{% for m in messages %}{{ m.content | trim }};{% endfor %}",
             R"([{"role": "assistant", "content": "x  "}])", R"("continue_final_message": true)"),
      "x")
      << "a template that trims";
}

TEST(ChatPrompt, RefusalsNameTheMessage) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"5", "messages is int"},
      {"[]", "empty"},
      {"[5]", "messages[0] is int"},
      {R"([{"content": "x"}])", "messages[0].role is missing"},
      {R"([{"role": 5, "content": "x"}])", "messages[0].role is int"},
      {R"([{"role": "", "content": "x"}])", "messages[0].role is '', expected one of system, "},
      {R"([{"role": "robot", "content": "x"}])", "messages[0].role is 'robot', expected one of"},
      {R"([{"role": "user"}])", "messages[0].content is missing"},
      {R"([{"role": "user", "content": null}])", "messages[0].content is missing"},
      {R"([{"role": "user", "content": 5}])", "messages[0].content is int"},
      {R"([{"role": "user", "content": [5]}])", "messages[0].content[0] is int"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "content[0].text is missing"},
      {R"([{"role": "user", "content": [{"type": "text", "text": 1}]}])", "text is int"},
      {R"([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text",
           "text": "x"}, {"type": "image_url", "image_url": {"url": "x"}}]}])",
       "messages[1].content[1].type is 'image_url'"},
      {R"([{"role": "user", "content": [{"type": "input_audio"}]}])", "'input_audio'"},
      {R"([{"role": "assistant", "content": "", "tool_calls": 5}])", "tool_calls is int"},
      {R"([{"role": "assistant", "content": "", "tool_calls": [{}]}])", "function is missing"},
      {R"([{"role": "user", "content": "x", "n": 99999999999999999999}])", "64 bits"},
  };
  for (const auto& [messages, words] : cases) {
    const auto prompt = Encode(kShow, "{\"messages\": " + messages + "}");
    ASSERT_FALSE(prompt) << messages;
    EXPECT_EQ(prompt.error().status, 400);
    EXPECT_EQ(prompt.error().param, "messages");
    EXPECT_NE(prompt.error().message.find(words), std::string::npos) << prompt.error().message;
  }
  const auto refused = Encode("{{ raise_exception('roles must alternate') }}",
                              R"({"messages": [{"role": "user", "content": "x"}]})");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("roles must alternate"), std::string::npos);
  EXPECT_EQ(refused.error().param, "messages");
}

}  // namespace
}  // namespace moebius::serve
