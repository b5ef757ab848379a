// A request's body as JSON: bounded before it is parsed. Owned by whoever parses one request.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "serve/openai/api_result.h"

namespace moebius::serve {

class JsonBody {
 public:
  // Refused: what is no JSON object, is nested deeper than kMaxJsonDepth, or is no valid UTF-8. Of
  // a key that stands twice the last one counts. `body` must outlive this.
  static ApiResult<JsonBody> Parse(std::string_view body);

  JsonBody(JsonBody&&) noexcept;
  ~JsonBody();

  const nlohmann::json& fields() const { return *fields_; }
  // Present and not null.
  bool Has(const char* name) const;
  // A member's JSON text, its keys in the client's order (chat templates print them).
  std::string Text(const char* name) const;

 private:
  explicit JsonBody(std::unique_ptr<nlohmann::json> fields);

  std::unique_ptr<nlohmann::json> fields_;
  std::map<std::string, std::string_view, std::less<>> texts_;
};

}  // namespace moebius::serve
