// A value of a JSON file together with its place in it ("model.merges[3]"), so that whoever finds
// it missing or of the wrong type can say where. A view: the document must outlive it. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace moebius::text {

class JsonNode {
 public:
  bool IsNull() const;
  bool IsString() const;
  bool IsArray() const;
  bool IsObject() const;
  const std::string& path() const { return path_; }

  Result<std::string> AsString() const;
  Result<bool> AsBool() const;
  Result<int64_t> AsInt() const;
  Result<std::vector<JsonNode>> AsArray() const;

  // The member `key` of an object: nullopt if missing or null.
  std::optional<JsonNode> Find(std::string_view key) const;
  // The same, where missing or null is an error.
  Result<JsonNode> Get(std::string_view key) const;

  Result<std::string> GetString(std::string_view key) const;
  Result<bool> GetBool(std::string_view key) const;
  // `otherwise` where the member is missing or null.
  Result<bool> GetBool(std::string_view key, bool otherwise) const;

  // An object whose values are all integers.
  Result<std::vector<std::pair<std::string, int64_t>>> AsIntMap() const;
  // An array of pairs of strings, each spelled ["a", "b"] or "a b".
  Result<std::vector<std::pair<std::string, std::string>>> AsStringPairs() const;

  // kCorrupt: "<path>: <message>".
  tl::unexpected<Error> Corrupt(std::string_view message) const;
  tl::unexpected<Error> Unsupported(std::string_view message) const;

 private:
  friend class JsonDocument;
  JsonNode(const nlohmann::json* value, std::string path) : value_(value), path_(std::move(path)) {}

  tl::unexpected<Error> WrongType(std::string_view expected) const;

  const nlohmann::json* value_;
  std::string path_;
};

class JsonDocument {
 public:
  // Nesting deeper than 64 is refused before anything recurses into it.
  static Result<JsonDocument> Parse(std::string_view text);

  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();

  JsonNode root() const { return JsonNode(value_.get(), ""); }

 private:
  explicit JsonDocument(std::unique_ptr<const nlohmann::json> value);

  std::unique_ptr<const nlohmann::json> value_;
};

}  // namespace moebius::text
