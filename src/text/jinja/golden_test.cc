// What jinja2 made of tests/golden/templates/ (tools/text/make_template_goldens.py), and what we
// make of it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

namespace moebius::text::jinja {
namespace {

namespace fs = std::filesystem;

fs::path GoldenFolder() { return fs::path(MOEBIUS_SOURCE_DIR) / "tests" / "golden" / "templates"; }

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Dict ReadGolden(const char* name) {
  const Result<Value> value = ParseJson(ReadFile(GoldenFolder() / name), name);
  EXPECT_TRUE(value) << value.error().message();
  return value ? value->AsDict() : Dict();
}

Result<std::string> RenderGolden(const std::string& source, const Dict& context,
                                 const RenderOptions& options) {
  MOEBIUS_ASSIGN(const auto parsed, Template::Parse(source));
  return parsed->Render(context, options);
}

// True when both gave the same text, or both refused.
void ExpectSame(const Dict& expected, const Result<std::string>& actual, const std::string& where) {
  if (const Value* text = expected.Find("text")) {
    ASSERT_TRUE(actual) << where << "\nrefused: " << actual.error().message();
    EXPECT_EQ(*actual, text->AsString()) << where;
    return;
  }
  const std::string error = expected.Find("error")->AsString();
  ASSERT_FALSE(actual) << where << "\njinja2 refuses this: " << error << "\nours: " << *actual;
  // What raise_exception says must reach the user.
  constexpr std::string_view kRaised = "TemplateError: ";
  if (error.starts_with(kRaised)) {
    EXPECT_NE(actual.error().message().find(error.substr(kRaised.size())), std::string::npos)
        << where << "\n"
        << actual.error().message();
    EXPECT_EQ(actual.error().code(), ErrorCode::kInvalidArgument);
  }
}

TEST(JinjaGolden, EdgeCases) {
  const Dict golden = ReadGolden("edge_cases.json");
  const Dict& context = golden.Find("context")->AsDict();
  const auto& cases = golden.Find("cases")->Items();
  EXPECT_GT(cases.size(), 600u);
  for (const Value& entry : cases) {
    const std::string source = entry.AsDict().Find("template")->AsString();
    const Result<std::string> actual = RenderGolden(source, context, {});
    ExpectSame(entry.AsDict(), actual, entry.AsDict().Find("group")->AsString() + ": " + source);
    EXPECT_TRUE(actual || actual.error().code() != ErrorCode::kUnsupported) << source;
  }
}

TEST(JinjaGolden, Families) {
  const Dict golden = ReadGolden("families.json");
  const Dict& contexts = golden.Find("contexts")->AsDict();
  RenderOptions options;
  options.now = golden.Find("now")->AsInt();
  size_t num_cases = 0;
  for (const auto& [file, expected] : golden.Find("expected")->AsDict()) {
    const std::string source = ReadFile(GoldenFolder() / file.AsString());
    for (const auto& [name, outcome] : expected.AsDict()) {
      const Result<std::string> actual =
          RenderGolden(source, contexts.Find(name)->AsDict(), options);
      ExpectSame(outcome.AsDict(), actual, file.AsString() + " on " + name.AsString());
      ++num_cases;
    }
  }
  EXPECT_GE(num_cases, 500u);
}

}  // namespace
}  // namespace moebius::text::jinja
