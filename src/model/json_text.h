// JSON text from files, with bounds: nesting and size are limited before the parser sees the text,
// and a bad text is an error value that names the file, never an exception. Plain functions, any
// thread.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::model {

constexpr int kMaxJsonDepth = 32;

// Parses `text` into `out`. `where` (a file's path) begins every error. Deeper nesting than
// kMaxJsonDepth, text after the value and (with `on_top_key`) a refused key are kCorrupt.
// on_top_key is called with each key of the outermost object, in order, duplicates included; false
// refuses it.
Status ParseJson(std::string_view text, const std::string& where, nlohmann::json& out,
                 const std::function<bool(const std::string&)>& on_top_key = nullptr);

// Reads and parses a whole file of at most `max_bytes`.
Status ReadJsonFile(const std::string& path, size_t max_bytes, nlohmann::json& out);

// Merges `patch` into `target`: objects merge key by key, anything else replaces.
void MergeJson(nlohmann::json& target, const nlohmann::json& patch);

}  // namespace moebius::model
