// Whatever a template does, parsing and rendering end: with an error, in bounded time, memory and
// stack.
#include <gtest/gtest.h>

#include <string>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

namespace moebius::text::jinja {
namespace {

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

Result<std::string> RenderWithin(const std::string& source, const Limits& limits = {}) {
  Dict context;
  context.Set("l", Value::List({Value::Int(3), Value::Int(1), Value::Int(2)}));
  context.Set("s", Value::String("Hello"));
  MOEBIUS_ASSIGN(const auto parsed, Template::Parse(source));
  return parsed->Render(context, {.limits = limits, .now = {}});
}

// Under limits a tenth of the usual ones: the same ends, sooner.
void ExpectRefused(const std::string& source, const std::string& part) {
  Limits limits;
  limits.steps /= 10;
  limits.bytes /= 10;
  const Result<std::string> text = RenderWithin(source, limits);
  ASSERT_FALSE(text) << source.substr(0, 200) << "\n" << text->substr(0, 200);
  EXPECT_NE(text.error().message().find(part), std::string::npos) << text.error().message();
  EXPECT_TRUE(text.error().message().starts_with("line ")) << text.error().message();
}

constexpr char kSteps[] = "steps";
constexpr char kBytes[] = "bytes of values";

TEST(JinjaLimits, EndlessWorkEnds) {
  const std::string range = "range(100000)";
  ExpectRefused("{% for a in " + range + " %}{% for b in " + range + " %}{% endfor %}{% endfor %}",
                kSteps);
  ExpectRefused(
      "{% macro m() %}{% for i in range(9) %}{{ m() }}{% endfor %}{% endmacro %}{{ m() }}",
      "nests deeper");
  ExpectRefused(
      "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
      kSteps);
  // Each search nearly matches at every place.
  ExpectRefused("{% set a = 'a' * 1000000 %}{% for i in " + range +
                    " %}{{ (a + 'c').find('a' * 500000 + 'b') }}{% endfor %}",
                kSteps);
  ExpectRefused("{% set a = 'a' * 1000000 %}{% for i in " + range +
                    " %}{{ a.strip('b' * 1000) }}{% endfor %}",
                "");
  ExpectRefused(
      "{% set l = " + range + "|list %}{% for i in " + range + " %}{{ 'x' in l }}{% endfor %}",
      kSteps);
  ExpectRefused(
      "{% set l = " + range + "|list %}{% for i in " + range + " %}{{ l == l[:] }}{% endfor %}",
      "");
}

TEST(JinjaLimits, HugeValuesAreRefused) {
  ExpectRefused("{{ 'a' * 10 ** 15 }}", kBytes);
  ExpectRefused("{{ [1] * 10 ** 15 }}", kBytes);
  ExpectRefused("{{ 'a' * 9223372036854775807 }}", kBytes);
  ExpectRefused("{{ [1, 2] * 9223372036854775807 }}", kBytes);
  ExpectRefused("{{ 'ab'.center(9223372036854775807) }}", kBytes);
  ExpectRefused("{{ 'ab'.zfill(10 ** 12) }}", kBytes);
  ExpectRefused("{{ '%999999999999d' % 1 }}", kBytes);
  ExpectRefused("{{ '%*d' % (999999999999, 1) }}", kBytes);
  ExpectRefused("{{ '{:999999999999}'.format(1) }}", kBytes);
  ExpectRefused("{{ '%.99999f' % 1.5 }}", "precision");
  ExpectRefused("{{ s|indent(10 ** 12) }}", kBytes);
  ExpectRefused("{{ l|tojson(indent=10 ** 12) }}", kBytes);
  ExpectRefused("{{ l|batch(10 ** 12, 0)|list }}", kBytes);
  ExpectRefused("{{ l|slice(10 ** 12)|list }}", kBytes);
  ExpectRefused("{{ range(10 ** 6) }}", "range");
  ExpectRefused(
      "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}",
      kBytes);
  ExpectRefused(
      "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('a', "
      "'aa') "
      "%}{% endfor %}",
      kBytes);
  // Shared parts: small in memory, endless in print.
  const std::string doubled =
      "{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% "
      "endfor %}";
  ExpectRefused(doubled + "{{ ns.x }}", "");
  ExpectRefused(doubled + "{{ ns.x|tojson }}", "");
  ExpectRefused(doubled + "{% set a = ns.x %}" + doubled + "{{ a == ns.x }}", "");
  ExpectRefused(doubled + "{% set a = ns.x %}" + doubled + "{{ [a, ns.x]|sort }}", "");
}

TEST(JinjaLimits, DepthIsBounded) {
  ExpectRefused(
      "{% set ns = namespace(x=0) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}",
      "nests deeper");
  ExpectRefused(
      "{% set ns = namespace(x=0) %}{% for i in range(1000) %}{% set ns.x = {1: ns.x} %}{% "
      "endfor %}",
      "nests deeper");
  ExpectRefused(
      "{% set ns = namespace(x=l) %}{% for i in range(1000) %}{% set ns.x = [ns.x.count] %}{% "
      "endfor %}",
      "nests deeper");
  ExpectRefused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nests deeper");
  ExpectRefused("{% macro m(a) %}{{ m([a]) }}{% endmacro %}{{ m(1) }}", "nests deeper");
  ExpectRefused("{{ " + Repeat("(", 20000) + "1" + Repeat(")", 20000) + " }}", "nested deeper");
  ExpectRefused("{{ " + Repeat("[", 20000), "nested deeper");
  ExpectRefused("{{ " + Repeat("not ", 20000) + "1 }}", "nested deeper");
  ExpectRefused("{{ " + Repeat("-", 20000) + "1 }}", "nested deeper");
  ExpectRefused("{{ " + Repeat("1 if 1 else ", 20000) + "1 }}", "nested deeper");
  ExpectRefused("{{ 1" + Repeat(" + 1", 20000) + " }}", "levels");
  ExpectRefused("{{ l" + Repeat("|list", 20000) + " }}", "levels");
  ExpectRefused("{{ l" + Repeat(".a", 20000) + " }}", "levels");
  ExpectRefused(Repeat("{% if l %}", 20000), "nested deeper");
  ExpectRefused("{% for " + Repeat("(", 20000), "nested deeper");
  // Side by side is no depth.
  EXPECT_TRUE(RenderWithin(Repeat("{% if l %}{% elif s %}{% endif %}", 10000)));
  EXPECT_TRUE(RenderWithin("{% if l == 1 %}" + Repeat("{% elif s == 1 %}", 10000) + "{% endif %}"));
}

TEST(JinjaLimits, LongChainsOfNamespacesAndMacrosAreFreed) {
  EXPECT_TRUE(
      RenderWithin("{% set ns = namespace(n=none) %}{% for i in range(20000) %}{% set ns = "
                   "namespace(n=ns) %}{% endfor %}"));
  EXPECT_TRUE(
      RenderWithin("{% set top = namespace(n=none) %}{% for i in range(20000) %}{% set top.n = "
                   "namespace(n=top.n) %}{% endfor %}"));
  EXPECT_TRUE(
      RenderWithin("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}"));
  EXPECT_TRUE(RenderWithin(
      "{% set ns = namespace(m=none) %}{% for i in range(20000) %}{% set before = ns.m %}{% "
      "macro m() %}{% endmacro %}"
      "{% set ns.m = m %}{% endfor %}"));
  EXPECT_TRUE(RenderWithin("{% for i in l %}{{ loop.changed(loop) }}{% endfor %}"));
}

TEST(JinjaLimits, LimitsAreSettable) {
  Limits limits;
  limits.steps = 100;
  EXPECT_FALSE(RenderWithin("{% for i in range(1000) %}{{ i }}{% endfor %}", limits));
  EXPECT_TRUE(RenderWithin("{{ s }}", limits));
}

TEST(JinjaLimits, DeepJsonIsRefused) {
  EXPECT_TRUE(ParseJson(Repeat("[", kMaxJsonDepth) + Repeat("]", kMaxJsonDepth)));
  const Result<Value> deep =
      ParseJson(Repeat("[", kMaxJsonDepth + 1) + Repeat("]", kMaxJsonDepth + 1));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().message().find("nested deeper than 64"), std::string::npos)
      << deep.error().message();
  EXPECT_FALSE(ParseJson(Repeat("[", 1'000'000)));
  EXPECT_FALSE(ParseJson(Repeat("{\"a\":", 100'000)));
}

}  // namespace
}  // namespace moebius::text::jinja
