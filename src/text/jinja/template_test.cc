// What the goldens cannot hold: messages of errors, what is unsupported, threads.
#include "text/jinja/template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "text/jinja/json.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

Result<std::string> Render(const std::string& source, const Dict& context = {}) {
  MOEBIUS_ASSIGN(const auto parsed, Template::Parse(source));
  return parsed->Render(context);
}

void ExpectError(const std::string& source, ErrorCode code, const std::string& message) {
  Dict context;
  context.Set("d", Value::Dict({}));
  const Result<std::string> text = Render(source, context);
  ASSERT_FALSE(text) << source << "\n" << *text;
  EXPECT_EQ(text.error().code(), code) << text.error().message();
  EXPECT_EQ(text.error().message(), message);
}

TEST(JinjaTemplate, ErrorsSayLineAndConstruct) {
  ExpectError("a\nb {{ d.x.y }}", ErrorCode::kInvalidArgument,
              "line 2: 'dict object' has no attribute 'x'");
  ExpectError("{{ tools + 1 }}", ErrorCode::kInvalidArgument, "line 1: 'tools' is undefined");
  ExpectError("\n\n{{ 1|nosuch }}", ErrorCode::kInvalidArgument,
              "line 3: no filter named 'nosuch'");
  ExpectError("\n{{ 1 is nosuch }}", ErrorCode::kInvalidArgument, "line 2: no test named 'nosuch'");
  ExpectError("{% foo %}", ErrorCode::kInvalidArgument, "line 1: unknown tag '{% foo %}'");
  ExpectError("{% if 1 %}", ErrorCode::kInvalidArgument,
              "line 1: expected '{% endif %}', got 'the end of the template'");
  ExpectError("{{ 1 2 }}", ErrorCode::kInvalidArgument, "line 1: expected '}}', got '2'");
  ExpectError("\n{{ raise_exception('No ' ~ 5) }}", ErrorCode::kInvalidArgument, "line 2: No 5");
  ExpectError("{% macro m() %}\n{{ x.y }}{% endmacro %}\n\n{{ m() }}", ErrorCode::kInvalidArgument,
              "line 2: 'x' is undefined");
  ExpectError("{{ d.update({}) }}", ErrorCode::kInvalidArgument,
              "line 1: access to attribute 'update' of 'dict' object is unsafe.");
}

TEST(JinjaTemplate, UnsupportedIsSaidNotGuessed) {
  for (const char* source : {
           "{% include 'x' %}",
           "{% extends 'x' %}",
           "{% import 'x' as y %}",
           "{% from 'x' import y %}",
           "{% block x %}{% endblock %}",
           "{% autoescape true %}{% endautoescape %}",
           "{% for i in [] recursive %}{% endfor %}",
           "{{ 'a'|pprint }}",
           "{{ 'a'|urlize }}",
           "{{ 'a'|xmlattr }}",
           "{{ 'a'|wordwrap }}",
           "{{ 'a'|striptags }}",
           "{{ [1]|random }}",
           "{{ 5|filesizeformat }}",
           "{{ 'a'|attr('b') }}",
           "{{ 'a'.encode() }}",
           "{{ 'a'.casefold() }}",
           "{{ (5).real }}",
           "{{ 'a'.upper }}",
           "{{ range }}",
           "{{ [1]|map('string') }}",
           "{{ 2 ** 63 }}",
           "{{ 9223372036854775807 + 1 }}",
           "{{ -9223372036854775807 - 2 }}",
           "{{ 4611686018427387904 * 2 }}",
           "{{ 9223372036854775808 }}",
           "{{ '9223372036854775808'|int }}",
           "{{ 1e30|int }}",
           "{{ (-8) ** 0.5 }}",
           "{{ '\\ud800' }}",
           "{{ '\\N{DASH}' }}",
           "{{ d.keys() == d.keys() }}",
           "{{ 1 is sameas 1 }}",
           "{{ '%s' % 1 ~ '%.3d' % 5 }}",
           "{{ '{:.3}'.format(1.5) }}",
           "{{ '{:n}'.format(1) }}",
           "{{ '<'|safe % 1 }}",
       }) {
    Dict context;
    Dict inner;
    inner.Set("a", Value::Int(1));
    context.Set("d", Value::Dict(std::move(inner)));
    const Result<std::string> text = Render(source, context);
    ASSERT_FALSE(text) << source << "\n" << *text;
    EXPECT_EQ(text.error().code(), ErrorCode::kUnsupported) << source << "\n"
                                                            << text.error().message();
  }
}

TEST(JinjaTemplate, ClockIsSettable) {
  setenv("TZ", "UTC", 1);
  tzset();
  const auto parsed =
      Template::Parse("{{ strftime_now('%Y-%m-%d %H:%M %B') }}{{ strftime_now('') }}");
  ASSERT_TRUE(parsed);
  const Result<std::string> text = (*parsed)->Render({}, {.limits = {}, .now = 1732190400});
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, "2024-11-21 12:00 November");
  EXPECT_FALSE(Render("{{ strftime_now('" + std::string(2000, 'x') + "') }}"));
  EXPECT_EQ(Render("{{ strftime_now('%%') }}").value(), "%");
}

TEST(JinjaTemplate, RendersOnSeveralThreads) {
  const auto parsed = Template::Parse(
      "{% set ns = namespace(x=0) %}{% for i in range(50) %}{% set ns.x = ns.x + i %}{% endfor "
      "%}{{ 'a' ~ ns.x }}{{ l }}");
  ASSERT_TRUE(parsed);
  Dict context;
  context.Set("l", Value::List({Value::String("x")}));
  std::vector<std::thread> threads;
  std::vector<int> num_right(4);
  for (size_t t = 0; t < num_right.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i)
        num_right[t] += (*parsed)->Render(context).value_or("") == "a1225['x']";
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, std::vector<int>(4, 50));
}

TEST(JinjaTemplate, BrokenUtf8DoesNotBreakText) {
  Dict context;
  context.Set("s", Value::String("a\xff\xc3\xe4\xbd\xa0\xf0\x9f"));
  EXPECT_EQ(Render("{{ s }}", context).value(), "a\xff\xc3\xe4\xbd\xa0\xf0\x9f");
  EXPECT_EQ(Render("{{ s|length }}", context).value(), "6");
  EXPECT_EQ(Render("{{ s|reverse }}", context).value(),
            "\x9f\xf0\xe4\xbd\xa0\xc3\xff"
            "a");
  EXPECT_EQ(Render("{{ s|upper }}{{ s.strip() }}", context).value(),
            "A\xff\xc3\xe4\xbd\xa0\xf0\x9f"
            "a\xff\xc3\xe4\xbd\xa0\xf0\x9f");
  EXPECT_EQ(Render("{{ [s[1]] }}", context).value(), "['\\xff']");
}

TEST(JinjaTemplate, ExactOnUnusualInput) {
  EXPECT_EQ(Render("").value(), "");
  EXPECT_EQ(Render("\n").value(), "");
  EXPECT_EQ(Render("{{").error().message(),
            "line 1: expected an expression, got 'the end of the template'");
  EXPECT_EQ(Render(std::string("a\0b", 3)).value(), std::string("a\0b", 3));
}

TEST(JinjaDict, KeepsOrderAndFindsManyKeys) {
  Dict dict;
  for (int i = 0; i < 1000; ++i) dict.Set(Value::Int(i * 7919 % 1000), Value::Int(i));
  EXPECT_EQ(dict.size(), 1000u);
  dict.Set(Value::Float(7.0), Value::String("seven"));
  EXPECT_EQ(dict.size(), 1000u);
  EXPECT_EQ(dict.Find(Value::Int(7))->AsString(), "seven");
  EXPECT_EQ(dict.Find(Value::Bool(true)), dict.Find(Value::Int(1)));
  EXPECT_EQ(dict.Find("7"), nullptr);
  EXPECT_EQ(dict.begin()->first.AsInt(), 0);
  EXPECT_EQ((dict.begin() + 1)->first.AsInt(), 919);
}

TEST(JinjaJson, RoundTrip) {
  const std::string text =
      R"({"b": [1, -2, 3.5, 1e+20, null, true, "é\n\"\\/你"], "a": {}, "": [[]]})";
  const Result<Value> value = ParseJson(text);
  ASSERT_TRUE(value) << value.error().message();
  EXPECT_EQ(DumpJson(*value).value(), text);
  EXPECT_EQ(DumpJson(ParseJson(R"({"a": 1, "b": 2, "a": 3})").value()).value(),
            R"({"a": 3, "b": 2})");
}

TEST(JinjaJson, RefusesWhatItCannotHold) {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\"}", "\"\xff\"", "9223372036854775808", "-9223372036854775809",
        "123456789012345678901234567890", "1e999", "nul", "1 2", "\"\\ud800\""}) {
    const Result<Value> value = ParseJson(text, "tools");
    ASSERT_FALSE(value) << text;
    EXPECT_TRUE(value.error().message().starts_with("tools: ")) << value.error().message();
  }
  EXPECT_EQ(ParseJson("9223372036854775807").value().AsInt(), INT64_MAX);
  EXPECT_EQ(ParseJson("-9223372036854775808").value().AsInt(), INT64_MIN);
}

}  // namespace
}  // namespace moebius::text::jinja
