#include <algorithm>
#include <cmath>

#include "bench/load/dataset_parts.h"

namespace moebius::load {
namespace {

// Common words that most vocabularies have as one token each: for servers that cannot be asked.
constexpr const char* kWords[] = {
    "time",     "year",   "people",     "way",    "day",     "man",     "thing",    "woman",
    "life",     "child",  "world",      "school", "state",   "family",  "group",    "country",
    "hand",     "part",   "place",      "case",   "week",    "company", "system",   "program",
    "question", "work",   "government", "number", "night",   "point",   "home",     "water",
    "room",     "mother", "area",       "money",  "story",   "fact",    "month",    "lot",
    "right",    "study",  "book",       "eye",    "job",     "word",    "business", "issue",
    "side",     "kind",   "head",       "house",  "service", "friend",  "father",   "power",
    "hour",     "game",   "line",       "end",    "member",  "law",     "car",      "city"};

int64_t Between(int64_t low, int64_t high, Random& random) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

int64_t LengthAround(int64_t length, double ratio, Random& random) {
  const auto mid = static_cast<double>(length);
  return std::max<int64_t>(1, Between(std::llround(std::floor(mid * (1 - ratio))),
                                      std::llround(std::ceil(mid * (1 + ratio))), random));
}

// Text that encodes to `ids.size()` tokens, or as near as a few tries come: decoding and encoding
// is no identity, so it is cut or continued at its end.
Result<std::string> TextOf(std::vector<TokenId> ids, PromptCodec& codec, Random& random) {
  constexpr int kTries = 6;
  const size_t length = ids.size();
  MOEBIUS_ASSIGN(std::string text, codec.Decode(ids));
  for (int i = 0; i < kTries; ++i) {
    MOEBIUS_ASSIGN(ids, codec.Encode(text));
    if (ids.size() == length) break;
    while (ids.size() < length) {
      ids.push_back(codec.ids()[random() % codec.ids().size()]);
    }
    ids.resize(length);
    MOEBIUS_ASSIGN(text, codec.Decode(ids));
  }
  return text;
}

}  // namespace

std::vector<TokenId> PromptMaker::DrawIds(int64_t count, Random& random) const {
  std::vector<TokenId> ids(static_cast<size_t>(count));
  const size_t num_ids = codec_ != nullptr ? codec_->ids().size() : std::size(kWords);
  for (TokenId& id : ids) {
    const auto at = static_cast<size_t>(Between(0, static_cast<int64_t>(num_ids) - 1, random));
    id = codec_ != nullptr ? codec_->ids()[at] : static_cast<TokenId>(at);
  }
  return ids;
}

Status PromptMaker::SetPrompt(std::vector<TokenId> ids, Random& random,
                              LoadRequest& request) const {
  request.prompt_len = static_cast<int64_t>(ids.size());
  if (codec_ == nullptr) {
    for (const TokenId id : ids) {
      if (!request.prompt.empty()) request.prompt += ' ';
      request.prompt += kWords[id];
    }
    return {};
  }
  if (options_.want_ids || !codec_->has_text()) {
    request.prompt_ids = std::move(ids);
    return {};
  }
  MOEBIUS_ASSIGN(request.prompt, TextOf(std::move(ids), *codec_, random));
  return {};
}

Result<std::vector<LoadRequest>> MakeRandom(const DatasetOptions& options,
                                            const PromptMaker& prompts) {
  const double ratio = options.random_range_ratio;
  if (!(ratio >= 0 && ratio < 1)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--random-range-ratio is {}, expected 0 or more and below 1", ratio);
  }
  Random random(options.seed);
  const std::vector<TokenId> prefix = prompts.DrawIds(options.random_prefix_len, random);
  std::vector<LoadRequest> requests(static_cast<size_t>(options.num_prompts));
  for (LoadRequest& request : requests) {
    std::vector<TokenId> ids = prefix;
    const std::vector<TokenId> rest =
        prompts.DrawIds(LengthAround(options.random_input_len, ratio, random), random);
    ids.insert(ids.end(), rest.begin(), rest.end());
    request.output_len =
        LengthAround(options.output_len.value_or(options.random_output_len), ratio, random);
    MOEBIUS_TRY(prompts.SetPrompt(std::move(ids), random, request));
  }
  return requests;
}

Result<std::vector<LoadRequest>> MakePrefixRepetition(const DatasetOptions& options,
                                                      const PromptMaker& prompts) {
  const int64_t num_prefixes = std::min(options.num_prefixes, options.num_prompts);
  Random random(options.seed);
  std::vector<std::vector<TokenId>> prefixes;
  for (int64_t i = 0; i < num_prefixes; ++i) {
    prefixes.push_back(prompts.DrawIds(options.prefix_len, random));
  }
  std::vector<LoadRequest> requests(static_cast<size_t>(options.num_prompts));
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<TokenId> ids = prefixes[i % prefixes.size()];
    const std::vector<TokenId> suffix = prompts.DrawIds(options.suffix_len, random);
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    requests[i].output_len = options.output_len.value_or(options.prefix_output_len);
    MOEBIUS_TRY(prompts.SetPrompt(std::move(ids), random, requests[i]));
  }
  if (options.shuffle) std::shuffle(requests.begin(), requests.end(), random);
  return requests;
}

}  // namespace moebius::load
