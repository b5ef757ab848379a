#include "serve/openai/json_body.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace moebius::serve {
namespace {

using nlohmann::json;

// Members that are handed on as JSON text.
constexpr std::array<std::string_view, 4> kTexts = {"\"messages\"", "\"tools\"", "\"documents\"",
                                                    "\"chat_template_kwargs\""};

// The closing quote of the string that opens at `i`, or the last byte.
size_t StringEnd(std::string_view text, size_t i) {
  for (++i; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\') ++i;
  }
  return std::min(i, text.size() - 1);
}

// Walks a text's brackets and strings: returns how deep it nests and gives `on_member` the keys
// (with their quotes) and values of the outermost object. What it finds in malformed text means
// nothing; the parser refuses that.
template <typename F>
int Scan(std::string_view text, const F& on_member) {
  int depth = 0;
  int deepest = 0;
  size_t value_begin = 0;
  std::string_view last_string;
  std::string_view key;  // of the member whose value is being read; else empty
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      const size_t end = StringEnd(text, i);
      last_string = text.substr(i, end + 1 - i);
      i = end;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ':' && depth == 1) {
      key = last_string;
      value_begin = i + 1;
    } else if (c == ',' || c == '}' || c == ']') {
      if (depth == 1 && !key.empty()) {
        on_member(key, text.substr(value_begin, i - value_begin));
        key = {};
      }
      if (c != ',') --depth;
    }
  }
  return deepest;
}

// The parser's words, without its own prefix and at a bounded length: it quotes what it read.
std::string Reason(const json::exception& error) {
  std::string_view what = error.what();
  if (const size_t end = what.find("] "); what.starts_with('[') && end != what.npos) {
    what.remove_prefix(end + 2);
  }
  return std::string(what.substr(0, 200));
}

}  // namespace

JsonBody::JsonBody(std::unique_ptr<json> fields) : fields_(std::move(fields)) {}
JsonBody::JsonBody(JsonBody&&) noexcept = default;
JsonBody::~JsonBody() = default;

ApiResult<JsonBody> JsonBody::Parse(std::string_view body) {
  std::map<std::string, std::string_view, std::less<>> texts;
  const int depth = Scan(body, [&](std::string_view key, std::string_view value) {
    if (std::find(kTexts.begin(), kTexts.end(), key) == kTexts.end()) return;
    texts.insert_or_assign(std::string(key.substr(1, key.size() - 2)), value);
  });
  if (depth > kMaxJsonDepth) {
    return BadRequest("", "the body is JSON nested {} levels deep, expected at most {}", depth,
                      kMaxJsonDepth);
  }
  auto fields = std::make_unique<json>();
  try {
    *fields = json::parse(body);
  } catch (const json::exception& error) {
    return BadRequest("", "the body is not valid JSON: {}", Reason(error));
  }
  if (!fields->is_object()) {
    return BadRequest("", "the body is a JSON {}, expected an object", fields->type_name());
  }
  JsonBody parsed(std::move(fields));
  parsed.texts_ = std::move(texts);
  return parsed;
}

bool JsonBody::Has(const char* name) const {
  const auto it = fields_->find(name);
  return it != fields_->end() && !it->is_null();
}

std::string JsonBody::Text(const char* name) const {
  // A key that was written with escapes is known to the parser only.
  const auto text = texts_.find(name);
  return text != texts_.end() ? std::string(text->second) : fields_->at(name).dump();
}

}  // namespace moebius::serve
