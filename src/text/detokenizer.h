// Text of a growing sequence of token ids, as it becomes certain: what the pieces add up to equals
// Tokenizer::Decode of all ids, and no piece holds half a UTF-8 character. One object per sequence,
// one thread at a time; the tokenizer must outlive it.
#pragma once

#include <memory>
#include <string>

#include "base/ids.h"
#include "text/tokenizer.h"

namespace moebius::text {

class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);
  ~Detokenizer();
  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;

  // The text that this id makes certain, maybe empty: an unfinished character is held back, and so
  // is a run of byte-fallback tokens, whose text depends on the whole run.
  std::string Push(TokenId id);

  // The rest at the end of the sequence: U+FFFD for an unfinished character. Push no more after.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace moebius::text
