#include "text/token_decoder.h"

#include <algorithm>

#include "text/byte_level.h"
#include "text/decode_stages.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace moebius::text {

class DecodeStream::Sink : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override { out->append(text); }
  void Finish() override {}

  std::string* out = nullptr;
};

DecodeStream::DecodeStream(std::vector<std::unique_ptr<DecodeStage>> stages)
    : stages_(std::move(stages)), sink_(std::make_unique<Sink>()), first_(sink_.get()) {
  for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
    (*stage)->set_next(first_);
    first_ = stage->get();
  }
}

DecodeStream::~DecodeStream() = default;

void DecodeStream::Push(std::string_view token, std::string& out) {
  sink_->out = &out;
  first_->Push(token, true);
}

void DecodeStream::Finish(std::string& out) {
  sink_->out = &out;
  first_->Finish();
}

Result<TokenDecoder> TokenDecoder::Parse(const JsonNode& node) {
  TokenDecoder decoder;
  decoder.joins_with_space_ = false;
  MOEBIUS_TRY(decoder.ParseInto(node));
  return decoder;
}

Status TokenDecoder::ParseInto(const JsonNode& node) {
  MOEBIUS_ASSIGN(const std::string type, node.GetString("type"));
  if (type == "Sequence") {
    MOEBIUS_ASSIGN(const JsonNode list, node.Get("decoders"));
    MOEBIUS_ASSIGN(const std::vector<JsonNode> parts, list.AsArray());
    for (const JsonNode& part : parts) MOEBIUS_TRY(ParseInto(part));
    return {};
  }
  Step step;
  if (type == "ByteLevel") {
    step.kind = Step::kByteLevel;
  } else if (type == "Metaspace") {
    step.kind = Step::kMetaspace;
    MOEBIUS_ASSIGN(step.character, node.GetString("replacement"));
    if (const auto scheme = node.Find("prepend_scheme")) {
      MOEBIUS_ASSIGN(const std::string name, scheme->AsString());
      step.strips_first = name != "never";
    } else {
      MOEBIUS_ASSIGN(step.strips_first, node.GetBool("add_prefix_space", true));
    }
  } else if (type == "Replace") {
    step.kind = Step::kReplace;
    MOEBIUS_ASSIGN(step.content, node.GetString("content"));
    MOEBIUS_ASSIGN(const JsonNode pattern, node.Get("pattern"));
    MOEBIUS_ASSIGN(step.pattern, ParsePattern(pattern));
  } else if (type == "ByteFallback") {
    step.kind = Step::kByteFallback;
  } else if (type == "Fuse") {
    step.kind = Step::kFuse;
  } else if (type == "Strip") {
    MOEBIUS_TRY(ParseStrip(node, step));
  } else {
    return node.Unsupported(fmt::format("the decoder '{}' is not supported", type));
  }
  const auto fuses = [](const Step& earlier) {
    return earlier.kind == Step::kFuse || earlier.kind == Step::kByteLevel;
  };
  if (NeedsWholeTokens(step) && std::any_of(steps_.begin(), steps_.end(), fuses)) {
    return node.Unsupported(fmt::format("'{}' after tokens were fused is not supported", type));
  }
  steps_.push_back(std::move(step));
  return {};
}

Status TokenDecoder::ParseStrip(const JsonNode& node, Step& step) {
  step.kind = Step::kStrip;
  MOEBIUS_ASSIGN(step.character, node.GetString("content"));
  if (step.character.empty() ||
      static_cast<size_t>(DecodeAt(step.character, 0).size) != step.character.size()) {
    return node.Corrupt("'content' is not one character");
  }
  MOEBIUS_ASSIGN(const JsonNode start, node.Get("start"));
  MOEBIUS_ASSIGN(const JsonNode stop, node.Get("stop"));
  MOEBIUS_ASSIGN(step.start, start.AsInt());
  MOEBIUS_ASSIGN(step.stop, stop.AsInt());
  if (step.start < 0 || step.stop < 0) return node.Corrupt("negative 'start' or 'stop'");
  return {};
}

bool TokenDecoder::NeedsWholeTokens(const Step& step) {
  if (step.kind == Step::kReplace) {
    const std::string& literal = step.pattern->literal();
    return literal.empty() || static_cast<size_t>(DecodeAt(literal, 0).size) != literal.size();
  }
  return step.kind == Step::kByteLevel || step.kind == Step::kByteFallback;
}

std::unique_ptr<DecodeStream> TokenDecoder::NewStream() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  if (joins_with_space_) stages.push_back(NewJoinStage());
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Step::kByteLevel:
        stages.push_back(NewByteLevelStage());
        break;
      case Step::kMetaspace:
        stages.push_back(NewMetaspaceStage(step.character, step.strips_first));
        break;
      case Step::kReplace:
        stages.push_back(NewReplaceStage(*step.pattern, step.content));
        break;
      case Step::kByteFallback:
        stages.push_back(NewByteFallbackStage());
        break;
      case Step::kFuse:
        stages.push_back(NewFuseStage());
        break;
      case Step::kStrip:
        stages.push_back(NewStripStage(step.character, step.start, step.stop));
        break;
    }
  }
  return std::make_unique<DecodeStream>(std::move(stages));
}

std::string TokenDecoder::TokenBytes(std::string_view token) const {
  std::string text(token);
  RegexScratch scratch;
  for (const Step& step : steps_) {
    if (step.kind == Step::kByteLevel) {
      std::string bytes;
      AppendCharBytes(bytes, text);
      return bytes;
    }
    if (step.kind == Step::kByteFallback) {
      if (const std::optional<char> byte = FallbackByte(text)) return std::string(1, *byte);
    }
    if (step.kind == Step::kReplace) text = ReplaceAll(text, *step.pattern, step.content, scratch);
    if (step.kind == Step::kMetaspace) {
      text = ReplaceAll(text, Regex::Literal(step.character), " ", scratch);
    }
  }
  return text;
}

}  // namespace moebius::text
