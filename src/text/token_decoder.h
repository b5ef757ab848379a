// The "decoder" of a tokenizer.json: tokens to text. Decoding is a stream: tokens go in one by one,
// text comes out as soon as it is certain, and decoding a whole sequence is that with all its
// tokens. TokenDecoder is immutable and any thread may use it; a DecodeStream belongs to one
// sequence and one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/json_node.h"
#include "text/regex.h"

namespace moebius::text {

// One step of decoding. It receives the text of tokens, maybe in fragments, and passes on what it
// makes of them.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  // A fragment of text (valid); `starts_token` says that it is the first of a token.
  virtual void Push(std::string_view text, bool starts_token) = 0;
  // The end of the sequence.
  virtual void Finish() { next_->Finish(); }

  void set_next(DecodeStage* next) { next_ = next; }

 protected:
  DecodeStage* next_ = nullptr;
};

class DecodeStream {
 public:
  explicit DecodeStream(std::vector<std::unique_ptr<DecodeStage>> stages);
  ~DecodeStream();

  // Appends to `out` what the next token makes certain, or what is left at the end.
  void Push(std::string_view token, std::string& out);
  void Finish(std::string& out);

 private:
  class Sink;

  std::vector<std::unique_ptr<DecodeStage>> stages_;
  std::unique_ptr<Sink> sink_;
  DecodeStage* first_;
};

class TokenDecoder {
 public:
  // Joins tokens with spaces.
  TokenDecoder() = default;
  // Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip; another type, or an order
  // that would need the whole text, is kUnsupported.
  static Result<TokenDecoder> Parse(const JsonNode& node);

  std::unique_ptr<DecodeStream> NewStream() const;

  // The bytes that a token stands for in the middle of a sequence.
  std::string TokenBytes(std::string_view token) const;

 private:
  struct Step {
    enum Kind { kByteLevel, kMetaspace, kReplace, kByteFallback, kFuse, kStrip } kind;
    std::string character;         // of Metaspace or Strip
    std::string content;           // of Replace
    std::optional<Regex> pattern;  // of Replace
    bool strips_first = true;      // of Metaspace: the first token begins with no space
    int64_t start = 0;             // of Strip: how many at most
    int64_t stop = 0;
  };

  Status ParseInto(const JsonNode& node);
  Status ParseStrip(const JsonNode& node, Step& step);
  // Whether a step of this kind needs its tokens whole.
  static bool NeedsWholeTokens(const Step& step);

  bool joins_with_space_ = true;
  std::vector<Step> steps_;
};

}  // namespace moebius::text
