// The steps of decoding that a tokenizer.json can name, as stages of a stream (text/token_decoder.h
// says what a stage is).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/regex.h"
#include "text/token_decoder.h"

namespace moebius::text {

// Puts a space between tokens.
std::unique_ptr<DecodeStage> NewJoinStage();

// Bytes from the characters that stand for them (text/byte_level.h), all tokens as one; broken
// UTF-8 becomes U+FFFD, an unfinished character waits.
std::unique_ptr<DecodeStage> NewByteLevelStage();

// `character` becomes a space; in the first token it is dropped if `strips_first`.
std::unique_ptr<DecodeStage> NewMetaspaceStage(std::string_view character, bool strips_first);

// What `pattern` matches becomes `content`.
std::unique_ptr<DecodeStage> NewReplaceStage(const Regex& pattern, std::string_view content);

// A run of tokens like <0x0A> becomes its bytes' text or, if that is broken, one U+FFFD for each.
std::unique_ptr<DecodeStage> NewByteFallbackStage();

// All tokens as one.
std::unique_ptr<DecodeStage> NewFuseStage();

// Drops up to `start` of `character` at the beginning of each token, and up to `stop` at its end.
std::unique_ptr<DecodeStage> NewStripStage(std::string_view character, int64_t start, int64_t stop);

// The byte that a token like <0x0A> stands for.
std::optional<char> FallbackByte(std::string_view token);

}  // namespace moebius::text
