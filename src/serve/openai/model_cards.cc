// GET /v1/models and /v1/models/{name}.
#include <algorithm>

#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/openai/json_text.h"

namespace moebius::serve {
namespace {

void AppendCard(std::string& out, const std::string& name, const ApiContext& context,
                const std::string& root, int64_t created) {
  out += R"({"id":)";
  AppendJsonString(out, name);
  out += R"(,"object":"model","created":)";
  AppendInt(out, created);
  out += R"(,"owned_by":"moebius","root":)";
  AppendJsonString(out, root);
  out += R"(,"parent":null,"max_model_len":)";
  AppendInt(out, context.limits.max_model_len);
  out += R"(,"permission":[{"id":)";
  AppendJsonString(out, "modelperm-" + name);
  out += R"(,"object":"model_permission","created":)";
  AppendInt(out, created);
  out += R"(,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,)"
         R"("allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,)"
         R"("organization":"*","group":null,"is_blocking":false}]})";
}

}  // namespace

std::string Models(const ApiContext& context, const std::string& root, int64_t created) {
  std::string out = R"({"object":"list","data":[)";
  for (size_t i = 0; i < context.model_names.size(); ++i) {
    if (i > 0) out += ',';
    AppendCard(out, context.model_names[i], context, root, created);
  }
  return out += "]}";
}

BodyResult Model(std::string_view name, const ApiContext& context, const std::string& root,
                 int64_t created) {
  const auto& names = context.model_names;
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    ApiError error;
    error.status = 404;
    error.message = fmt::format("the model '{}' does not exist here", name.substr(0, 256));
    error.param = "model";
    return tl::unexpected(std::move(error));
  }
  std::string out;
  AppendCard(out, std::string(name), context, root, created);
  return out;
}

}  // namespace moebius::serve
