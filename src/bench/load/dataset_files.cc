#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/load/dataset_parts.h"
#include "bench/load/rows.h"

namespace moebius::load {
namespace {

using nlohmann::json;

// max_tokens where neither flag nor file says one.
constexpr int64_t kDefaultOutputLen = 256;

Result<std::string> TextField(const json& row, const char* key, const std::string& where) {
  if (row.is_object() && row.contains(key) && row[key].is_string()) {
    return row[key].get<std::string>();
  }
  return MakeError(ErrorCode::kCorrupt, "{}: expected a text '{}'", where, key);
}

// About as many tokens as the text has, without anybody to count them.
Result<int64_t> CountTokens(const std::string& text, PromptCodec* codec) {
  if (codec == nullptr || !codec->has_text()) return static_cast<int64_t>(text.size() / 4 + 1);
  MOEBIUS_ASSIGN(const std::vector<TokenId> ids, codec->Encode(text));
  return static_cast<int64_t>(ids.size());
}

// {"question": ..., "answer": ...}
Status AddGsm8k(const json& row, const std::string& where, std::vector<LoadRequest>& requests) {
  MOEBIUS_ASSIGN(const std::string question, TextField(row, "question", where));
  LoadRequest request;
  request.prompt = "Question: " + question + "\nAnswer:";
  request.messages = json::array({{{"role", "user"}, {"content", question}}}).dump();
  requests.push_back(std::move(request));
  return {};
}

// {"question", "choices": [4], ...}, or CSV without a header: question, A, B, C, D, answer.
Status AddMmlu(const json& row, const std::string& where, std::vector<LoadRequest>& requests) {
  std::string question;
  std::vector<std::string> choices;
  const auto is_text = [](const json& field) { return field.is_string(); };
  if (row.is_array() && row.size() >= 5 && std::ranges::all_of(row, is_text)) {
    question = row[0].get<std::string>();
    for (size_t i = 1; i <= 4; ++i) choices.push_back(row[i].get<std::string>());
  } else if (row.is_object() && row.contains("choices") && row["choices"].is_array()) {
    MOEBIUS_ASSIGN(question, TextField(row, "question", where));
    for (const json& choice : row["choices"]) {
      choices.push_back(choice.is_string() ? choice.get<std::string>() : choice.dump());
    }
  } else {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: expected 'question' and 'choices', or CSV of question, A, B, C, D, "
                     "answer",
                     where);
  }
  LoadRequest request;
  request.prompt = question + "\n";
  for (size_t i = 0; i < choices.size(); ++i) {
    request.prompt += fmt::format("{}. {}\n", static_cast<char>('A' + i), choices[i]);
  }
  request.prompt += "Answer:";
  requests.push_back(std::move(request));
  return {};
}

// {"instruction": ..., "output": ...}
Status AddAlpacaEval(const json& row, const std::string& where,
                     std::vector<LoadRequest>& requests) {
  LoadRequest request;
  MOEBIUS_ASSIGN(request.prompt, TextField(row, "instruction", where));
  requests.push_back(std::move(request));
  return {};
}

// {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}, ...]}: the first
// question, as long an answer as its own. Conversations that are cut, very short or very long are
// left out, with the limits that benchmarks of this file share.
Status AddShareGpt(const json& row, PromptCodec* codec, std::vector<LoadRequest>& requests) {
  if (!row.is_object() || !row.contains("conversations")) return {};
  const json& turns = row["conversations"];
  if (!turns.is_array() || turns.size() < 2) return {};
  std::string texts[2];
  for (size_t i = 0; i < 2; ++i) {
    if (!turns[i].is_object() || !turns[i].contains("value") || !turns[i]["value"].is_string()) {
      return {};
    }
    texts[i] = turns[i]["value"].get<std::string>();
  }
  LoadRequest request;
  MOEBIUS_ASSIGN(request.prompt_len, CountTokens(texts[0], codec));
  MOEBIUS_ASSIGN(request.output_len, CountTokens(texts[1], codec));
  if (request.prompt_len < 4 || request.output_len < 4 || request.prompt_len > 1024 ||
      request.prompt_len + request.output_len > 2048) {
    return {};
  }
  request.prompt = std::move(texts[0]);
  requests.push_back(std::move(request));
  return {};
}

// {"prompt": text or ids} or {"messages": [...]} or both, perhaps "output_tokens". A chat takes the
// messages, completions the prompt.
Status AddCustom(const json& row, bool chat, const std::string& where,
                 std::vector<LoadRequest>& requests) {
  LoadRequest request;
  const json prompt = row.is_object() ? row.value("prompt", json()) : json();
  const json messages = row.is_object() ? row.value("messages", json()) : json();
  const bool is_ids = prompt.is_array() && std::ranges::all_of(prompt, [](const json& id) {
                        return id.is_number_integer() && id.get<int64_t>() >= 0;
                      });
  if (chat && messages.is_array()) {
    request.messages = messages.dump();
  } else if (prompt.is_string()) {
    request.prompt = prompt.get<std::string>();
  } else if (is_ids && !chat) {
    request.prompt_ids = prompt.get<std::vector<TokenId>>();
    request.prompt_len = static_cast<int64_t>(request.prompt_ids.size());
  } else if (is_ids) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: 'prompt' is token ids, which a chat does not take: use --backend openai",
                     where);
  } else if (messages.is_array()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: 'messages' are for a chat, not for completions: use --backend "
                     "openai-chat",
                     where);
  } else {
    return MakeError(ErrorCode::kCorrupt, "{}: expected 'prompt' (text or token ids) or 'messages'",
                     where);
  }
  for (const char* key : {"output_tokens", "max_tokens"}) {
    if (!row.contains(key)) continue;
    if (!row[key].is_number_integer() || row[key].get<int64_t>() < 1) {
      return MakeError(ErrorCode::kCorrupt, "{}: {} is {}, expected a whole number of 1 or more",
                       where, key, row[key].dump());
    }
    request.output_len = row[key].get<int64_t>();
  }
  requests.push_back(std::move(request));
  return {};
}

struct TraceLine {
  double timestamp = 0;  // seconds
  int64_t input_length = 0;
  int64_t output_length = 0;
  std::vector<int64_t> hash_ids;
};

Result<TraceLine> ParseTraceLine(const json& row, const std::string& where) {
  const auto number = [&](const char* key) -> Result<double> {
    if (row.is_object() && row.contains(key) && row[key].is_number() &&
        row[key].get<double>() >= 0) {
      return row[key].get<double>();
    }
    return MakeError(ErrorCode::kCorrupt, "{}: expected a number '{}' of 0 or more", where, key);
  };
  TraceLine line;
  MOEBIUS_ASSIGN(const double milliseconds, number("timestamp"));
  MOEBIUS_ASSIGN(const double input, number("input_length"));
  MOEBIUS_ASSIGN(const double output, number("output_length"));
  constexpr double kMostTokens = 1 << 24;
  if (input < 1 || input > kMostTokens || output > kMostTokens) {
    return MakeError(ErrorCode::kCorrupt, "{}: input_length is {}, expected 1 to {}", where, input,
                     kMostTokens);
  }
  line.timestamp = milliseconds / 1000;
  line.input_length = static_cast<int64_t>(input);
  line.output_length = std::max<int64_t>(1, static_cast<int64_t>(output));
  for (const json& id : row.value("hash_ids", json::array())) {
    if (!id.is_number_integer()) {
      return MakeError(ErrorCode::kCorrupt, "{}: hash_ids holds {}, expected whole numbers", where,
                       id.dump());
    }
    line.hash_ids.push_back(id.get<int64_t>());
  }
  return line;
}

}  // namespace

Result<std::vector<LoadRequest>> ReadTrace(const DatasetOptions& options,
                                           const PromptMaker& prompts) {
  std::vector<LoadRequest> requests;
  double first = 0;
  const auto add = [&](const json& row, const std::string& where) -> Status {
    if (requests.size() >= static_cast<size_t>(options.num_prompts)) return {};
    MOEBIUS_ASSIGN(const TraceLine line, ParseTraceLine(row, where));
    if (requests.empty()) first = line.timestamp;
    std::vector<TokenId> ids;
    for (const int64_t hash : line.hash_ids) {
      // The same hash is the same tokens in every request: they share as much as in the original.
      Random block(options.seed ^ (static_cast<uint64_t>(hash) * 0x9E3779B97F4A7C15u));
      const std::vector<TokenId> tokens = prompts.DrawIds(options.trace_block_size, block);
      ids.insert(ids.end(), tokens.begin(), tokens.end());
    }
    Random random(options.seed + requests.size());
    if (const auto missing = line.input_length - static_cast<int64_t>(ids.size()); missing > 0) {
      const std::vector<TokenId> rest = prompts.DrawIds(missing, random);
      ids.insert(ids.end(), rest.begin(), rest.end());
    }
    ids.resize(static_cast<size_t>(line.input_length));
    LoadRequest request;
    request.output_len = options.output_len.value_or(line.output_length);
    request.arrival = std::max(0.0, line.timestamp - first);
    MOEBIUS_TRY(prompts.SetPrompt(std::move(ids), random, request));
    requests.push_back(std::move(request));
    return {};
  };
  MOEBIUS_TRY(ForEachRow(options.path, add));
  std::ranges::stable_sort(requests, {}, [](const LoadRequest& r) { return *r.arrival; });
  return requests;
}

Result<std::vector<LoadRequest>> ReadPromptFile(const DatasetOptions& options, PromptCodec* codec) {
  std::vector<LoadRequest> requests;
  const auto add = [&](const json& row, const std::string& where) -> Status {
    if (options.name == "gsm8k") return AddGsm8k(row, where, requests);
    if (options.name == "mmlu") return AddMmlu(row, where, requests);
    if (options.name == "alpaca_eval") return AddAlpacaEval(row, where, requests);
    if (options.name == "sharegpt") return AddShareGpt(row, codec, requests);
    return AddCustom(row, options.chat, where, requests);
  };
  MOEBIUS_TRY(ForEachRow(options.path, add));
  for (LoadRequest& request : requests) {
    if (options.output_len) request.output_len = *options.output_len;
    if (request.output_len == 0) request.output_len = kDefaultOutputLen;
  }
  return requests;
}

}  // namespace moebius::load
