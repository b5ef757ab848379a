// Renders templates for tools/text/fuzz_templates.py: one JSON object a line in ({"template": ...,
// "context": {...}}), one a line out ({"text": ...} or {"error": ..., "unsupported": bool}).
#include <iostream>
#include <string>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

using moebius::ErrorCode;
using moebius::Result;
using moebius::text::jinja::Dict;
using moebius::text::jinja::DumpJson;
using moebius::text::jinja::ParseJson;
using moebius::text::jinja::RenderOptions;
using moebius::text::jinja::Template;
using moebius::text::jinja::Value;

static Result<std::string> Render(const std::string& line) {
  MOEBIUS_ASSIGN(const Value request, ParseJson(line));
  const Dict& fields = request.AsDict();
  MOEBIUS_ASSIGN(const auto parsed, Template::Parse(fields.Find("template")->AsString()));
  RenderOptions options;
  if (const Value* now = fields.Find("now")) options.now = now->AsInt();
  return parsed->Render(fields.Find("context")->AsDict(), options);
}

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const Result<std::string> text = Render(line);
    Dict reply;
    if (text) {
      reply.Set("text", Value::String(*text));
    } else {
      reply.Set("error", Value::String(text.error().message()));
      reply.Set("unsupported", Value::Bool(text.error().code() == ErrorCode::kUnsupported));
    }
    std::cout << *DumpJson(Value::Dict(std::move(reply))) << std::endl;
  }
  return 0;
}
