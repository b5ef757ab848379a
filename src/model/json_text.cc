#include "model/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "platform/mapped_file.h"

namespace moebius::model {
namespace {

// The deepest nesting of brackets outside strings.
int NestingDepth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Status ParseJson(std::string_view text, const std::string& where, nlohmann::json& out,
                 const std::function<bool(const std::string&)>& on_top_key) {
  if (const int depth = NestingDepth(text); depth > kMaxJsonDepth) {
    return MakeError(ErrorCode::kCorrupt, "{}: JSON nested {} levels deep, expected at most {}",
                     where, depth, kMaxJsonDepth);
  }
  std::string refused;
  bool is_refused = false;
  const auto callback = [&](int depth, nlohmann::json::parse_event_t event,
                            nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::key && depth == 1 && on_top_key && !is_refused) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!on_top_key(key)) {
        is_refused = true;
        refused = key;
      }
    }
    return true;
  };
  try {
    out = nlohmann::json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    return MakeError(ErrorCode::kCorrupt, "{}: not valid JSON: {}", where, error.what());
  }
  if (is_refused) {
    return MakeError(ErrorCode::kCorrupt, "{}: the key '{}' appears twice", where, refused);
  }
  return {};
}

Status ReadJsonFile(const std::string& path, size_t max_bytes, nlohmann::json& out) {
  MOEBIUS_ASSIGN(const platform::MappedFile file, platform::MappedFile::Open(path));
  if (file.size() > max_bytes) {
    return MakeError(ErrorCode::kCorrupt, "{}: {} bytes, expected at most {}", path, file.size(),
                     max_bytes);
  }
  return ParseJson(std::string_view(reinterpret_cast<const char*>(file.data()), file.size()), path,
                   out);
}

void MergeJson(nlohmann::json& target, const nlohmann::json& patch) {
  if (!target.is_object() || !patch.is_object()) {
    target = patch;
    return;
  }
  for (const auto& [key, value] : patch.items()) {
    if (target.contains(key)) {
      MergeJson(target[key], value);
    } else {
      target[key] = value;
    }
  }
}

}  // namespace moebius::model
