// Byte-pair encoding (Sennrich et al., 2016): a piece starts as its characters, and the adjacent
// pair of lowest rank, leftmost first, is merged until no merge applies. Immutable, any thread,
// each with its own scratch.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/flat_hash.h"
#include "text/json_node.h"
#include "text/piece_cache.h"
#include "text/token_vocab.h"

namespace moebius::text {

// Working memory of one thread, for one Bpe only: the cache holds its ids.
class BpeScratch {
 private:
  friend class Bpe;
  struct Symbol {
    TokenId id;  // kNoToken once merged into the one before
    int32_t prev;
    int32_t next;
  };
  struct Merge {
    uint32_t rank;
    TokenId id;  // what the pair becomes
  };
  struct Candidate {
    Merge merge;
    int32_t pos;
  };

  PieceCache cache;
  std::vector<TokenId> ids;
  std::vector<Merge> merges;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class Bpe {
 public:
  // The "model" of a tokenizer.json. Another type than BPE, dropout and affixes of subwords are
  // kUnsupported.
  static Result<Bpe> Parse(const JsonNode& node);

  const TokenVocab& vocab() const { return vocab_; }

  // Appends the ids of one piece (valid text). A character that is not in the vocabulary becomes
  // the tokens of its bytes, else the unknown token, else nothing. Costs O(n log n) in its length.
  void Encode(std::string_view piece, BpeScratch& scratch, std::vector<TokenId>& ids) const;

 private:
  using Merge = BpeScratch::Merge;

  static constexpr TokenId kNoToken = -1;
  static constexpr Merge kNoMerge = {UINT32_MAX, kNoToken};

  Status ParseOptions(const JsonNode& node);
  Status ParseMerges(const JsonNode& node);
  void IndexCharacters();

  TokenId CharacterId(std::string_view text, size_t pos, char32_t c, int size) const;
  Merge FindMerge(TokenId left, TokenId right) const;
  // Fills `scratch.ids` with the ids of the characters of `text`.
  void ToCharacters(std::string_view text, BpeScratch& scratch) const;
  // Where the segment that begins at `begin` ends: nothing is ever merged over that place.
  size_t SegmentEnd(std::string_view piece, size_t begin) const;
  void EncodeSegment(std::string_view segment, BpeScratch& scratch,
                     std::vector<TokenId>& ids) const;
  void MergeShort(BpeScratch& scratch) const;
  void MergeLong(BpeScratch& scratch) const;

  TokenVocab vocab_;
  FlatHash<Merge> merges_;              // by PairKey of ids
  FlatHash<char> bridges_;              // PairKeys of characters that some merge joins
  std::vector<TokenId> character_ids_;  // of code points below its size
  std::array<TokenId, 256> byte_ids_;   // "<0x0A>"; all kNoToken without byte_fallback
  TokenId unk_id_ = kNoToken;
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;  // a piece that is a token becomes it, whatever merges would say
};

}  // namespace moebius::text
