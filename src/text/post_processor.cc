#include "text/post_processor.h"

namespace moebius::text {
namespace {

// The ids that a template's special token stands for.
Status AppendSpecial(const JsonNode& node, const std::string& name, std::vector<TokenId>& ids) {
  MOEBIUS_ASSIGN(const JsonNode table, node.Get("special_tokens"));
  MOEBIUS_ASSIGN(const JsonNode token, table.Get(name));
  MOEBIUS_ASSIGN(const JsonNode list, token.Get("ids"));
  MOEBIUS_ASSIGN(const std::vector<JsonNode> elements, list.AsArray());
  for (const JsonNode& element : elements) {
    MOEBIUS_ASSIGN(const int64_t id, element.AsInt());
    if (id < 0 || id > INT32_MAX) return element.Corrupt(fmt::format("{} is no token id", id));
    ids.push_back(static_cast<TokenId>(id));
  }
  return {};
}

Result<PostProcessor> ParseTemplate(const JsonNode& node) {
  PostProcessor processor;
  MOEBIUS_ASSIGN(const JsonNode single, node.Get("single"));
  MOEBIUS_ASSIGN(const std::vector<JsonNode> parts, single.AsArray());
  int num_texts = 0;
  for (const JsonNode& part : parts) {
    if (part.Find("Sequence")) {
      ++num_texts;
      continue;
    }
    MOEBIUS_ASSIGN(const JsonNode special, part.Get("SpecialToken"));
    MOEBIUS_ASSIGN(const std::string name, special.GetString("id"));
    MOEBIUS_TRY(AppendSpecial(node, name, num_texts == 0 ? processor.prefix : processor.suffix));
  }
  if (num_texts != 1) {
    return single.Unsupported(fmt::format("a template with {} texts, expected one", num_texts));
  }
  return processor;
}

}  // namespace

Result<PostProcessor> PostProcessor::Parse(const JsonNode& node) {
  MOEBIUS_ASSIGN(const std::string type, node.GetString("type"));
  if (type == "ByteLevel") return PostProcessor();
  if (type == "TemplateProcessing") return ParseTemplate(node);
  if (type != "Sequence") {
    return node.Unsupported(fmt::format("the post-processor '{}' is not supported", type));
  }
  PostProcessor all;
  MOEBIUS_ASSIGN(const JsonNode list, node.Get("processors"));
  MOEBIUS_ASSIGN(const std::vector<JsonNode> parts, list.AsArray());
  for (const JsonNode& part : parts) {
    MOEBIUS_ASSIGN(const PostProcessor outer, Parse(part));
    all.prefix.insert(all.prefix.begin(), outer.prefix.begin(), outer.prefix.end());
    all.suffix.insert(all.suffix.end(), outer.suffix.begin(), outer.suffix.end());
  }
  return all;
}

void PostProcessor::SetBos(TokenId bos, bool wanted) {
  const bool has = !prefix.empty() && prefix.front() == bos;
  if (wanted && !has) prefix.insert(prefix.begin(), bos);
  if (!wanted && has) prefix.erase(prefix.begin());
}

void PostProcessor::SetEos(TokenId eos, bool wanted) {
  const bool has = !suffix.empty() && suffix.back() == eos;
  if (wanted && !has) suffix.push_back(eos);
  if (!wanted && has) suffix.pop_back();
}

}  // namespace moebius::text
