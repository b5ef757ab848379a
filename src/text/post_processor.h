// The "post_processor" of a tokenizer.json, as far as it concerns ids: what goes before and after
// the ids of a text.
#pragma once

#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/json_node.h"

namespace moebius::text {

struct PostProcessor {
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;

  // Sequence, TemplateProcessing (its "single" template, with the text in it once), ByteLevel (only
  // offsets: nothing here); another type is kUnsupported.
  static Result<PostProcessor> Parse(const JsonNode& node);

  // As tokenizer_config.json's add_bos_token and add_eos_token say: `wanted` puts the token there
  // unless it is, not wanted takes it away if it is.
  void SetBos(TokenId bos, bool wanted);
  void SetEos(TokenId eos, bool wanted);
};

}  // namespace moebius::text
