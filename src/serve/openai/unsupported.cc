#include "serve/openai/unsupported.h"

#include <nlohmann/json.hpp>
#include <string>

namespace moebius::serve {
namespace {

using nlohmann::json;

// Empty lists, objects and texts, false and zero ask for nothing.
bool IsNeutral(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  return value.empty() || (value.is_string() && value.get_ref<const std::string&>().empty());
}

// Any value is refused: an empty object is a wish, too (any JSON, a search with its defaults).
constexpr const char* kUnsupportedEvenEmpty[] = {"structured_outputs", "guided_json", "audio",
                                                 "web_search_options"};

// Any value that is not neutral is refused.
constexpr const char* kUnsupported[] = {"guided_regex",
                                        "guided_choice",
                                        "guided_grammar",
                                        "guided_decoding_backend",
                                        "guided_whitespace_pattern",
                                        "structural_tag",
                                        "suffix",
                                        "use_beam_search",
                                        "kv_transfer_params",
                                        "logits_processors",
                                        "prompt_embeds",
                                        "chat_template",
                                        "functions",
                                        "logprob_token_ids",
                                        "repetition_detection",
                                        "media_io_kwargs",
                                        "mm_processor_kwargs"};

ApiResult<void> CheckResponseFormat(const json& format) {
  const json type = format.is_object() ? format.value("type", json()) : json();
  if (!type.is_string()) {
    return BadRequest("response_format",
                      "response_format.type is {}, expected \"text\" (the only supported one)",
                      type.type_name());
  }
  if (type != "text") {
    return BadRequest("response_format",
                      "response_format: type '{}' is not supported yet, expected \"text\"",
                      Shortened(type.get_ref<const std::string&>()));
  }
  return {};
}

ApiResult<void> CheckModalities(const json& modalities) {
  if (modalities.is_array() && (modalities.empty() || modalities == json::array({"text"}))) {
    return {};
  }
  return BadRequest("modalities", "modalities is not [\"text\"], the only supported one");
}

bool HasTool(const json& tools, const json& name) {
  for (const json& tool : tools) {
    if (tool.is_object() && tool.contains("function") && tool["function"].is_object() &&
        tool["function"].value("name", json()) == name) {
      return true;
    }
  }
  return false;
}

// {"type": "function", "function": {"name": ...}} must name one of the tools.
ApiResult<void> CheckNamedTool(const json& choice, const json& tools) {
  const json function = choice.is_object() ? choice.value("function", json()) : json();
  const json name = function.is_object() ? function.value("name", json()) : json();
  if (!name.is_string()) {
    return BadRequest("tool_choice",
                      "tool_choice is neither \"none\", \"auto\", \"required\" nor an object with "
                      "function.name");
  }
  if (!HasTool(tools, name)) {
    return BadRequest("tool_choice", "tool_choice names the function '{}', which is not in tools",
                      Shortened(name.get_ref<const std::string&>()));
  }
  return {};
}

}  // namespace

ApiResult<void> CheckUnsupported(const JsonBody& body) {
  const json& fields = body.fields();
  for (const char* name : kUnsupportedEvenEmpty) {
    if (body.Has(name)) return BadRequest(name, "{} is not supported yet", name);
  }
  for (const char* name : kUnsupported) {
    if (body.Has(name) && !IsNeutral(fields[name])) {
      return BadRequest(name, "{} is not supported yet", name);
    }
  }
  if (body.Has("response_format")) SERVE_TRY(CheckResponseFormat(fields["response_format"]));
  if (body.Has("modalities")) SERVE_TRY(CheckModalities(fields["modalities"]));
  // A budget of zero is a wish, too.
  if (body.Has("thinking_token_budget")) {
    return BadRequest("thinking_token_budget", "thinking_token_budget is not supported yet");
  }
  if (body.Has("function_call") && fields["function_call"] != "none") {
    return BadRequest("function_call", "function_call is not supported yet");
  }
  return {};
}

ApiResult<void> CheckTools(const JsonBody& body) {
  const json& fields = body.fields();
  const json none;
  const json& tools = body.Has("tools") ? fields["tools"] : none;
  const json& choice = body.Has("tool_choice") ? fields["tool_choice"] : none;
  if (!tools.is_null() && !tools.is_array()) {
    return BadRequest("tools", "tools is a JSON {}, expected a list", tools.type_name());
  }
  if (choice == "none") return {};
  if (tools.is_array() && tools.empty()) {
    return BadRequest("tools", "tools is an empty list, expected at least one tool, or null");
  }
  if (!choice.is_null() && tools.is_null()) {
    return BadRequest("tool_choice", "tool_choice is given without tools");
  }
  if (tools.is_null()) return {};
  if (!choice.is_null() && choice != "auto" && choice != "required") {
    SERVE_TRY(CheckNamedTool(choice, tools));
  }
  return BadRequest(
      "tools",
      "tools: calling tools is not supported yet; with tool_choice \"none\" the model "
      "sees them and answers in words");
}

}  // namespace moebius::serve
