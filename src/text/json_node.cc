#include "text/json_node.h"

#include <nlohmann/json.hpp>

namespace moebius::text {
namespace {

constexpr int kMaxDepth = 64;

// Whether brackets outside strings nest no deeper than kMaxDepth. Malformed text may pass: the
// parser finds it.
bool DepthIsBounded(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) return false;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return true;
}

}  // namespace

Result<JsonDocument> JsonDocument::Parse(std::string_view text) {
  if (!DepthIsBounded(text)) {
    return MakeError(ErrorCode::kCorrupt, "JSON nested deeper than {} levels", kMaxDepth);
  }
  try {
    return JsonDocument(std::make_unique<nlohmann::json>(nlohmann::json::parse(text)));
  } catch (const nlohmann::json::exception& e) {
    return MakeError(ErrorCode::kCorrupt, "{}", e.what());
  }
}

JsonDocument::JsonDocument(std::unique_ptr<const nlohmann::json> value)
    : value_(std::move(value)) {}
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

bool JsonNode::IsNull() const { return value_->is_null(); }
bool JsonNode::IsString() const { return value_->is_string(); }
bool JsonNode::IsArray() const { return value_->is_array(); }
bool JsonNode::IsObject() const { return value_->is_object(); }

tl::unexpected<Error> JsonNode::Corrupt(std::string_view message) const {
  return MakeError(ErrorCode::kCorrupt, "{}: {}", path_.empty() ? "top level" : path_, message);
}

tl::unexpected<Error> JsonNode::Unsupported(std::string_view message) const {
  return MakeError(ErrorCode::kUnsupported, "{}: {}", path_.empty() ? "top level" : path_, message);
}

tl::unexpected<Error> JsonNode::WrongType(std::string_view expected) const {
  return Corrupt(fmt::format("found {}, expected {}", value_->type_name(), expected));
}

Result<std::string> JsonNode::AsString() const {
  if (!value_->is_string()) return WrongType("a string");
  return value_->get_ref<const std::string&>();
}

Result<bool> JsonNode::AsBool() const {
  if (!value_->is_boolean()) return WrongType("a boolean");
  return value_->get<bool>();
}

Result<int64_t> JsonNode::AsInt() const {
  if (!value_->is_number_integer()) return WrongType("an integer");
  return value_->get<int64_t>();
}

Result<std::vector<JsonNode>> JsonNode::AsArray() const {
  if (!value_->is_array()) return WrongType("an array");
  std::vector<JsonNode> elements;
  elements.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    elements.push_back(JsonNode(&(*value_)[i], fmt::format("{}[{}]", path_, i)));
  }
  return elements;
}

std::optional<JsonNode> JsonNode::Find(std::string_view key) const {
  if (!value_->is_object()) return std::nullopt;
  const auto it = value_->find(key);
  if (it == value_->end() || it->is_null()) return std::nullopt;
  return JsonNode(&*it, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key));
}

Result<JsonNode> JsonNode::Get(std::string_view key) const {
  if (!value_->is_object()) return WrongType("an object");
  if (auto node = Find(key)) return *node;
  return Corrupt(fmt::format("'{}' is missing", key));
}

Result<std::string> JsonNode::GetString(std::string_view key) const {
  MOEBIUS_ASSIGN(const JsonNode node, Get(key));
  return node.AsString();
}

Result<bool> JsonNode::GetBool(std::string_view key) const {
  MOEBIUS_ASSIGN(const JsonNode node, Get(key));
  return node.AsBool();
}

Result<bool> JsonNode::GetBool(std::string_view key, bool otherwise) const {
  const std::optional<JsonNode> node = Find(key);
  return node ? node->AsBool() : Result<bool>(otherwise);
}

Result<std::vector<std::pair<std::string, int64_t>>> JsonNode::AsIntMap() const {
  if (!value_->is_object()) return WrongType("an object");
  std::vector<std::pair<std::string, int64_t>> entries;
  entries.reserve(value_->size());
  for (const auto& [key, value] : value_->items()) {
    if (!value.is_number_integer()) {
      return Corrupt(fmt::format("'{}' is {}, expected an integer", key, value.type_name()));
    }
    entries.emplace_back(key, value.get<int64_t>());
  }
  return entries;
}

Result<std::vector<std::pair<std::string, std::string>>> JsonNode::AsStringPairs() const {
  if (!value_->is_array()) return WrongType("an array");
  std::vector<std::pair<std::string, std::string>> pairs;
  pairs.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    const nlohmann::json& pair = (*value_)[i];
    if (pair.is_string()) {
      const std::string& text = pair.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        pairs.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string()) {
      pairs.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>());
      continue;
    }
    return Corrupt(fmt::format("entry {} is not a pair of strings", i));
  }
  return pairs;
}

}  // namespace moebius::text
