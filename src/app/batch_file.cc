#include "app/batch_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/session.h"
#include "base/suggest.h"
#include "model/field_reader.h"
#include "model/json_text.h"
#include "text/jinja/json.h"

namespace moebius::app {
namespace {

using nlohmann::json;

// {"custom_id", "method", "url", "body"}, a line of OpenAI's batch files, as one of ours.
Status Unwrap(json& object, const std::string& where) {
  if (!object.contains("body")) return {};
  for (const auto& [name, value] : object.items()) {
    if (name != "custom_id" && name != "method" && name != "url" && name != "body") {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: unknown field '{}' beside 'body', expected custom_id, method, url",
                       where, name);
    }
  }
  json body = object["body"];
  if (!body.is_object()) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: field 'body' is {}, expected an object",
                     where, body.dump());
  }
  body.erase("model");  // the one that is loaded
  if (body.contains("max_completion_tokens") && !body.contains("max_tokens"))
    body["max_tokens"] = body["max_completion_tokens"];
  body.erase("max_completion_tokens");
  // Chat's pair of a switch and a number is one number here.
  if (body.contains("logprobs") && body["logprobs"].is_boolean()) {
    if (body["logprobs"].get<bool>()) {
      body["logprobs"] = body.contains("top_logprobs") ? body["top_logprobs"] : json(0);
    } else {
      body.erase("logprobs");
    }
    body.erase("top_logprobs");
  }
  if (object.contains("custom_id")) body["id"] = object["custom_id"];
  object = std::move(body);
  return {};
}

Status CheckNames(const json& object, const std::string& where) {
  std::vector<std::string> names = frontend::SamplingFieldNames();
  names.insert(names.end(), {"id", "prompt", "messages", "tools", "prompt_ids"});
  for (const auto& [name, value] : object.items()) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: unknown field '{}'{}", where, name,
                       DidYouMean(name, names));
    }
  }
  return {};
}

Result<frontend::Prompt> ParseMessages(const json& object, const std::string& where) {
  const json& messages = object["messages"];
  const bool list = messages.is_array() && !messages.empty();
  for (size_t i = 0; list && i < messages.size(); ++i) {
    if (!messages[i].is_object() || !messages[i].contains("role") ||
        !messages[i]["role"].is_string()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: field 'messages[{}].role' is missing, expected a string", where, i);
    }
  }
  if (!list) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: field 'messages' is {}, expected a list of messages", where,
                     messages.dump());
  }
  frontend::Conversation conversation;
  MOEBIUS_ASSIGN(conversation.messages,
                 text::jinja::ParseJson(messages.dump(), where + ": messages"));
  if (object.contains("tools")) {
    MOEBIUS_ASSIGN(conversation.tools,
                   text::jinja::ParseJson(object["tools"].dump(), where + ": tools"));
  }
  return frontend::Prompt(std::move(conversation));
}

Result<frontend::Prompt> ParsePrompt(const json& object, const std::string& where) {
  model::FieldReader reader(object, where);
  const int count = (reader.Has("prompt") ? 1 : 0) + (reader.Has("messages") ? 1 : 0) +
                    (reader.Has("prompt_ids") ? 1 : 0);
  if (count != 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: {} of the fields 'prompt', 'messages', 'prompt_ids', expected one", where,
                     count == 0 ? "none" : "more than one");
  }
  if (reader.Has("messages")) return ParseMessages(object, where);
  if (reader.Has("prompt_ids")) {
    const std::vector<int64_t> ids = reader.IntsOr("prompt_ids", {}, 0, INT32_MAX);
    MOEBIUS_TRY(reader.status());
    return frontend::Prompt(std::vector<TokenId>(ids.begin(), ids.end()));
  }
  std::string text = reader.StringOr("prompt", "");
  MOEBIUS_TRY(reader.status());
  return frontend::Prompt(std::move(text));
}

json LogprobsJson(const std::vector<frontend::TokenLogprob>& logprobs) {
  json list = json::array();
  for (const frontend::TokenLogprob& token : logprobs) {
    json top = json::array();
    for (const auto& other : token.top) {
      top.push_back(
          {{"token_id", other.token}, {"token", other.bytes}, {"logprob", other.logprob}});
    }
    list.push_back({{"token_id", token.token},
                    {"token", token.bytes},
                    {"logprob", token.logprob},
                    {"top_logprobs", top}});
  }
  return list;
}

}  // namespace

Result<BatchLine> ParseBatchLine(std::string_view text, const std::string& where, int number) {
  json object;
  MOEBIUS_TRY(model::ParseJson(text, where, object));
  if (!object.is_object())
    return MakeError(ErrorCode::kCorrupt, "{}: expected a JSON object", where);
  MOEBIUS_TRY(Unwrap(object, where));
  MOEBIUS_TRY(CheckNames(object, where));
  BatchLine line;
  line.number = number;
  const json id = object.value("id", json(number));
  if (!id.is_string() && !id.is_number_integer()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: field 'id' is {}, expected a string or a whole number", where, id.dump());
  }
  line.id_json = id.dump();
  MOEBIUS_ASSIGN(line.prompt, ParsePrompt(object, where));
  MOEBIUS_ASSIGN(line.sampling, frontend::ParseSamplingFields(object, where));
  return line;
}

Result<std::vector<BatchLine>> ReadBatchFile(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--input-file: {} is a folder, expected a file of JSON lines", path);
  }
  std::ifstream file(path);
  if (!file) return MakeError(ErrorCode::kNotFound, "--input-file: {} cannot be read", path);
  std::vector<BatchLine> lines;
  int number = 0;
  for (std::string text; std::getline(file, text);) {
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    MOEBIUS_ASSIGN(BatchLine line,
                   ParseBatchLine(text, fmt::format("{}:{}", path, number), number));
    lines.push_back(std::move(line));
  }
  if (file.bad()) return MakeError(ErrorCode::kUnavailable, "--input-file: {}: read error", path);
  if (lines.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--input-file: {} holds no request, expected a JSON object a line", path);
  }
  return lines;
}

std::string FormatAnswer(const BatchLine& line, const frontend::GenerateOutput& output) {
  nlohmann::ordered_json object;
  object["id"] = json::parse(line.id_json);
  object["text"] = output.text;
  object["token_ids"] = output.token_ids;
  object["finish_reason"] = FinishName(output.finish);
  if (output.stop_string) object["stop_reason"] = *output.stop_string;
  if (output.stop_token) object["stop_reason"] = *output.stop_token;
  object["usage"] = {
      {"prompt_tokens", output.usage.num_prompt_tokens},
      {"completion_tokens", output.usage.num_output_tokens},
      {"total_tokens", output.usage.num_prompt_tokens + output.usage.num_output_tokens},
      {"cached_tokens", output.usage.num_cached_tokens}};
  if (!output.logprobs.empty()) object["logprobs"] = LogprobsJson(output.logprobs);
  if (output.error) object["error"] = output.error->message();
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string FormatFailure(const BatchLine& line, const Error& error) {
  nlohmann::ordered_json object;
  object["id"] = json::parse(line.id_json);
  object["finish_reason"] = "error";
  object["error"] = error.message();
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace moebius::app
