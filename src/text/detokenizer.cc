#include "text/detokenizer.h"

#include "text/token_decoder.h"

namespace moebius::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer), skip_special_(skip_special), stream_(tokenizer.NewDecodeStream()) {}
Detokenizer::~Detokenizer() = default;
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;

std::string Detokenizer::Push(TokenId id) {
  std::string text;
  tokenizer_->PushTo(*stream_, id, skip_special_, text);
  return text;
}

std::string Detokenizer::Finish() {
  std::string text;
  stream_->Finish(text);
  return text;
}

}  // namespace moebius::text
