// Text to token ids and back, as a model folder's tokenizer.json says: added tokens, normaliser,
// pre-tokeniser, byte-pair encoding, post-processor, decoder. Ids equal those of the `tokenizers`
// library that writes these files. Owned by whoever loads the model; immutable after Load, so any
// thread may call it at any time.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace moebius::text {

class DecodeStream;

class Tokenizer {
 public:
  // Reads `folder`/tokenizer.json and, where it is there, `folder`/tokenizer_config.json (names of
  // the bos, eos and pad tokens; add_bos_token and add_eos_token, which override the
  // post-processor). Errors name the file and the field: kNotFound, kCorrupt (malformed),
  // kUnsupported (a component this build does not have).
  static Result<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& folder);

  // The same from the files' contents; an empty `config_json` stands for no tokenizer_config.json.
  static Result<std::unique_ptr<Tokenizer>> Parse(std::string_view tokenizer_json,
                                                  std::string_view config_json);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The ids of `text`, which may be any bytes: each malformed UTF-8 sequence counts as U+FFFD.
  // Added tokens are recognised wherever they stand. With `add_special_tokens`, also those that the
  // post-processor puts around a text (bos). A text that a chat template rendered has its own:
  // encode it without.
  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const;

  // The text of `ids`, always valid UTF-8 (broken sequences become U+FFFD). Ids outside the
  // vocabulary are skipped; special tokens too if `skip_special`. To decode one by one, see
  // Detokenizer.
  std::string Decode(std::span<const TokenId> ids, bool skip_special) const;

  // The id of the token spelled `token` in tokenizer.json.
  std::optional<TokenId> TokenToId(std::string_view token) const;

  // The spelling of a token in tokenizer.json ("Ġthe", "▁the", "<0x0A>"); empty for an unknown id.
  std::string_view TokenText(TokenId id) const;

  // The bytes that a token adds in the middle of a text (" the", "\n"; maybe half a character);
  // empty for an unknown id.
  std::string TokenBytes(TokenId id) const;

  // Whether tokenizer.json marks the token as special.
  bool IsSpecial(TokenId id) const;

  // One past the highest id, added tokens included; a model's embedding may have more rows.
  int vocab_size() const;
  // The same without added tokens: what encoding a text without them can give.
  int model_vocab_size() const;

  // Named by tokenizer_config.json and present in the vocabulary. The texts are the spellings in
  // tokenizer_config.json, empty if not named (a chat template reads them).
  std::optional<TokenId> bos_id() const;
  std::optional<TokenId> eos_id() const;
  std::optional<TokenId> pad_id() const;
  const std::string& bos_token() const;
  const std::string& eos_token() const;
  const std::string& pad_token() const;

 private:
  friend class Detokenizer;
  struct Impl;

  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<DecodeStream> NewDecodeStream() const;
  // Appends to `text` what the next id of a sequence makes certain.
  void PushTo(DecodeStream& stream, TokenId id, bool skip_special, std::string& text) const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace moebius::text
