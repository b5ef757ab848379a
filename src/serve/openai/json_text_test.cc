#include "serve/openai/json_text.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "serve/openai/json_body.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

TEST(JsonText, StringsComeBackAsTheyWere) {
  std::string every;
  for (int c = 0; c < 128; ++c) every += static_cast<char>(c);
  for (const std::string& text : std::vector<std::string>{
           "", every, "é ü 漢字 😀", "\u0085\u2028\u2029", "a\u2027b\u202A", "\\u0041"}) {
    EXPECT_EQ(json::parse(Quoted(text)), json(text)) << text;
  }
  EXPECT_EQ(Quoted("\u2028\u2029\u0085"), R"("\u2028\u2029\u0085")");
}

TEST(JsonText, MalformedTextBecomesValid) {
  const std::string mark = "\uFFFD";
  EXPECT_EQ(json::parse(Quoted("a\x80z")), "a" + mark + "z");
  EXPECT_EQ(json::parse(Quoted("\xE6\xBC")), mark) << "half a character is one mark";
  EXPECT_EQ(json::parse(Quoted("\xED\xA0\x80")), mark + mark + mark) << "surrogates are none";
  EXPECT_EQ(json::parse(Quoted("\xC0\xAF\xFF")), mark + mark + mark);
}

TEST(JsonText, NumbersAreJson) {
  const auto logprob = [](float value) {
    std::string out;
    AppendLogprob(out, value);
    EXPECT_TRUE(json::parse(out).is_number_float()) << out;
    return json::parse(out).get<double>();
  };
  EXPECT_FLOAT_EQ(static_cast<float>(logprob(-0.3456789f)), -0.3456789f);
  EXPECT_EQ(logprob(0.0f), 0);
  EXPECT_EQ(logprob(-0.0f), 0);
  EXPECT_EQ(logprob(-12.0f), -12);
  EXPECT_NEAR(logprob(-1e-20f), 0, 1e-19);
  EXPECT_EQ(logprob(-std::numeric_limits<float>::infinity()), -9999);
  EXPECT_EQ(logprob(std::numeric_limits<float>::quiet_NaN()), -9999);
  EXPECT_EQ(logprob(-1e30f), -9999);
  std::string out;
  AppendBytes(out, "\xFF\x01");
  AppendIds(out, std::vector<TokenId>{7, 0});
  AppendInt(out, std::numeric_limits<int64_t>::min());
  EXPECT_EQ(out, "[255,1][7,0]-9223372036854775808");
}

std::string ErrorOf(std::string_view body) {
  const auto parsed = JsonBody::Parse(body);
  EXPECT_FALSE(parsed) << body;
  if (parsed) return "";
  EXPECT_EQ(parsed.error().status, 400);
  return parsed.error().message;
}

TEST(JsonBody, RefusesWhatIsNoBoundedObject) {
  for (const std::string& body : std::vector<std::string>{
           "", " ", "{", "{\"a\":}", "{\"a\":1}x", "{'a':1}", "nul", "\"\\", "{\"a\":1e999}",
           "{\"a\":\"\xFF\"}", "{\"a\":\"\xED\xA0\x80\"}", "{\"a\":\"\\ud800\"}", "{\"a\":NaN}"}) {
    EXPECT_NE(ErrorOf(body).find("not valid JSON"), std::string::npos) << body;
  }
  EXPECT_NE(ErrorOf("{\"a\":1e999}").find("1e999"), std::string::npos);
  EXPECT_NE(ErrorOf("[1]").find("JSON array"), std::string::npos);
  EXPECT_NE(ErrorOf("3").find("JSON number"), std::string::npos);
  const std::string deep = "{\"a\":" + std::string(64, '[') + std::string(64, ']') + "}";
  EXPECT_NE(ErrorOf(deep).find("nested 65 levels"), std::string::npos) << ErrorOf(deep);
  EXPECT_NE(ErrorOf(std::string(1 << 20, '[')).find("nested"), std::string::npos);
  EXPECT_TRUE(JsonBody::Parse("{\"a\":" + std::string(63, '[') + std::string(63, ']') + "}"));
  EXPECT_LT(ErrorOf("{\"a\":1} " + std::string(100'000, 'x')).size(), 300u);
}

TEST(JsonBody, BracketsInStringsDoNotNest) {
  EXPECT_TRUE(JsonBody::Parse("{\"a\":\"" + std::string(1000, '[') + "\\\"{\"}"));
}

TEST(JsonBody, LastDuplicateCountsAndTextKeepsItsOrder) {
  const std::string text =
      R"( {"tools": [1], "n":3, "tools" : [{"z":1, "a":","}] ,"x":{"messages":[1]},"n":4, "documents":null})";
  const auto body = JsonBody::Parse(text);
  ASSERT_TRUE(body);
  EXPECT_EQ(body->fields()["n"], 4);
  EXPECT_EQ(body->Text("tools"), R"( [{"z":1, "a":","}] )");
  EXPECT_FALSE(body->Has("documents"));
  EXPECT_FALSE(body->Has("messages"));
  const auto escaped = JsonBody::Parse(R"({"t\u006fols":[1]})");
  EXPECT_EQ(escaped->Text("tools"), "[1]");
}

}  // namespace
}  // namespace moebius::serve
