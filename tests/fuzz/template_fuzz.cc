// Parses and renders arbitrary bytes as a chat template: no crash, no leak, no hang.
#include <cstddef>
#include <cstdint>
#include <string>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

namespace {

using moebius::text::jinja::Dict;
using moebius::text::jinja::ParseJson;
using moebius::text::jinja::RenderOptions;
using moebius::text::jinja::Template;

const Dict& Context() {
  static const Dict context =
      ParseJson(
          R"({"messages": [{"role": "user", "content": "héllo"}, {"role": "assistant", "content": null}],
                    "tools": [{"name": "f", "a": [1, 2.5, {"b": true}]}], "n": 3, "s": "a b c", "l": [3, 1, 2]})")
          .value()
          .AsDict();
  return context;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = Template::Parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!parsed) return 0;
  RenderOptions options;
  // Enough to reach every path, little enough for thousands of runs a second.
  options.limits.steps = 20'000;
  options.limits.bytes = 1 << 20;
  options.now = 0;
  (void)(*parsed)->Render(Context(), options);
  return 0;
}
