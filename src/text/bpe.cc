#include "text/bpe.h"

#include <algorithm>

#include "base/check.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

constexpr char32_t kNumDirect = 0x10000;  // code points whose ids are in a table

// Pieces longer than this are first cut where no merge can reach over.
constexpr size_t kMaxUncut = 48;

// Up to this many characters, scanning all pairs for the lowest rank beats a heap.
constexpr size_t kMaxScan = 96;

}  // namespace

Result<Bpe> Bpe::Parse(const JsonNode& node) {
  Bpe bpe;
  MOEBIUS_TRY(bpe.ParseOptions(node));
  MOEBIUS_ASSIGN(const JsonNode vocab, node.Get("vocab"));
  MOEBIUS_ASSIGN(bpe.vocab_, TokenVocab::Parse(vocab));
  bpe.IndexCharacters();
  MOEBIUS_ASSIGN(const JsonNode merges, node.Get("merges"));
  MOEBIUS_TRY(bpe.ParseMerges(merges));
  if (const auto unk = node.Find("unk_token")) {
    MOEBIUS_ASSIGN(const std::string token, unk->AsString());
    bpe.unk_id_ = bpe.vocab_.Find(token).value_or(kNoToken);
  }
  return bpe;
}

Status Bpe::ParseOptions(const JsonNode& node) {
  // Old files name no type.
  if (const auto type = node.Find("type")) {
    MOEBIUS_ASSIGN(const std::string name, type->AsString());
    if (name != "BPE") {
      return type->Unsupported(fmt::format("the model '{}' is not supported", name));
    }
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto field = node.Find(affix);
    if (!field) continue;
    MOEBIUS_ASSIGN(const std::string text, field->AsString());
    if (!text.empty()) return field->Unsupported(fmt::format("'{}' is not supported", text));
  }
  if (const auto dropout = node.Find("dropout")) {
    return dropout->Unsupported("merge dropout is for training, expected null");
  }
  MOEBIUS_ASSIGN(byte_fallback_, node.GetBool("byte_fallback", false));
  MOEBIUS_ASSIGN(fuse_unk_, node.GetBool("fuse_unk", false));
  MOEBIUS_ASSIGN(ignore_merges_, node.GetBool("ignore_merges", false));
  return {};
}

void Bpe::IndexCharacters() {
  character_ids_.assign(kNumDirect, kNoToken);
  for (TokenId id = 0; id < vocab_.end_id(); ++id) {
    const std::string_view token = vocab_.TokenText(id);
    if (token.empty()) continue;
    const CodePoint c = DecodeAt(token, 0);
    if (static_cast<size_t>(c.size) == token.size() && c.value < kNumDirect) {
      character_ids_[c.value] = id;
    }
  }
  byte_ids_.fill(kNoToken);
  for (int byte = 0; byte_fallback_ && byte < 256; ++byte) {
    byte_ids_[static_cast<size_t>(byte)] =
        vocab_.Find(fmt::format("<0x{:02X}>", byte)).value_or(kNoToken);
  }
}

Status Bpe::ParseMerges(const JsonNode& node) {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  MOEBIUS_ASSIGN(const Pairs pairs, node.AsStringPairs());
  merges_ = FlatHash<Merge>(pairs.size());
  bridges_ = FlatHash<char>(pairs.size());
  for (size_t rank = 0; rank < pairs.size(); ++rank) {
    const auto& [left, right] = pairs[rank];
    // The first line of a merges.txt, which some converters carried over.
    if (left.starts_with("#version")) continue;
    TokenId ids[3];
    const std::string merged = left + right;
    const std::string* tokens[3] = {&left, &right, &merged};
    for (int i = 0; i < 3; ++i) {
      const std::optional<TokenId> id = vocab_.Find(*tokens[i]);
      if (!id || tokens[i]->empty()) {
        return node.Corrupt(
            fmt::format("entry {}: '{}' is not in the vocabulary", rank, *tokens[i]));
      }
      ids[i] = *id;
    }
    merges_.Set(PairKey(static_cast<uint32_t>(ids[0]), static_cast<uint32_t>(ids[1])),
                {static_cast<uint32_t>(rank), ids[2]});
    const char32_t last = DecodeBefore(left, left.size()).value;
    const char32_t first = DecodeAt(right, 0).value;
    bridges_.Set(PairKey(last, first), 1);
  }
  return {};
}

TokenId Bpe::CharacterId(std::string_view text, size_t pos, char32_t c, int size) const {
  if (c < kNumDirect) return character_ids_[c];
  return vocab_.Find(text.substr(pos, static_cast<size_t>(size))).value_or(kNoToken);
}

Bpe::Merge Bpe::FindMerge(TokenId left, TokenId right) const {
  const Merge* merge =
      merges_.Find(PairKey(static_cast<uint32_t>(left), static_cast<uint32_t>(right)));
  return merge == nullptr ? kNoMerge : *merge;
}

void Bpe::Encode(std::string_view piece, BpeScratch& scratch, std::vector<TokenId>& ids) const {
  if (ignore_merges_) {
    if (scratch.cache.Lookup(piece, ids)) return;
    if (const std::optional<TokenId> id = vocab_.Find(piece)) {
      scratch.cache.Insert(piece, {&*id, 1});
      ids.push_back(*id);
      return;
    }
    EncodeSegment(piece, scratch, ids);
    return;
  }
  if (piece.size() <= kMaxUncut) {
    EncodeSegment(piece, scratch, ids);
    return;
  }
  for (size_t begin = 0; begin < piece.size();) {
    const size_t end = SegmentEnd(piece, begin);
    EncodeSegment(piece.substr(begin, end - begin), scratch, ids);
    begin = end;
  }
}

size_t Bpe::SegmentEnd(std::string_view piece, size_t begin) const {
  CodePoint last = DecodeAt(piece, begin);
  TokenId last_id = CharacterId(piece, begin, last.value, last.size);
  size_t pos = begin + static_cast<size_t>(last.size);
  while (pos < piece.size()) {
    const CodePoint c = DecodeAt(piece, pos);
    const TokenId id = CharacterId(piece, pos, c.value, c.size);
    // A symbol that ends at this place ends in `last`, and one that begins here begins with `c`. If
    // both are tokens, neither is a part of an unknown token that might be fused.
    if (last_id != kNoToken && id != kNoToken &&
        bridges_.Find(PairKey(last.value, c.value)) == nullptr) {
      return pos;
    }
    last = c;
    last_id = id;
    pos += static_cast<size_t>(c.size);
  }
  return pos;
}

void Bpe::EncodeSegment(std::string_view segment, BpeScratch& scratch,
                        std::vector<TokenId>& ids) const {
  if (scratch.cache.Lookup(segment, ids)) return;
  ToCharacters(segment, scratch);
  if (scratch.ids.size() <= kMaxScan) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
  scratch.cache.Insert(segment, scratch.ids);
  ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
}

void Bpe::ToCharacters(std::string_view text, BpeScratch& scratch) const {
  std::vector<TokenId>& ids = scratch.ids;
  ids.clear();
  bool unk_pending = false;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = DecodeAt(text, pos);
    const TokenId id = CharacterId(text, pos, c.value, c.size);
    const std::string_view bytes = text.substr(pos, static_cast<size_t>(c.size));
    pos += bytes.size();
    if (id != kNoToken) {
      if (unk_pending) ids.push_back(unk_id_);
      unk_pending = false;
      ids.push_back(id);
      continue;
    }
    const auto has_token = [&](char byte) {
      return byte_ids_[static_cast<uint8_t>(byte)] != kNoToken;
    };
    if (byte_fallback_ && std::all_of(bytes.begin(), bytes.end(), has_token)) {
      // A pending unknown token stays pending, as in the library whose ids these are.
      for (const char byte : bytes) ids.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
      continue;
    }
    if (unk_id_ == kNoToken) continue;
    if (unk_pending && !fuse_unk_) ids.push_back(unk_id_);
    unk_pending = true;
  }
  if (unk_pending) ids.push_back(unk_id_);
}

void Bpe::MergeShort(BpeScratch& scratch) const {
  std::vector<TokenId>& ids = scratch.ids;
  std::vector<Merge>& merges = scratch.merges;  // merges[i]: of ids[i] and ids[i + 1]
  if (ids.size() < 2) return;
  merges.resize(ids.size() - 1);
  for (size_t i = 0; i + 1 < ids.size(); ++i) merges[i] = FindMerge(ids[i], ids[i + 1]);
  while (!merges.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < merges.size(); ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].id == kNoToken) return;
    ids[best] = merges[best].id;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
    merges.erase(merges.begin() + static_cast<ptrdiff_t>(best));
    if (best < merges.size()) merges[best] = FindMerge(ids[best], ids[best + 1]);
    if (best > 0) merges[best - 1] = FindMerge(ids[best - 1], ids[best]);
  }
}

void Bpe::MergeLong(BpeScratch& scratch) const {
  using Candidate = BpeScratch::Candidate;
  std::vector<TokenId>& ids = scratch.ids;
  MOEBIUS_CHECK(ids.size() < INT32_MAX);
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.merge.rank != b.merge.rank ? a.merge.rank > b.merge.rank : a.pos > b.pos;
  };
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  const auto num_symbols = static_cast<int32_t>(ids.size());
  for (int32_t i = 0; i < num_symbols; ++i) {
    const TokenId id = ids[static_cast<size_t>(i)];
    symbols.push_back({id, i - 1, i + 1 < num_symbols ? i + 1 : -1});
    if (i == 0) continue;
    const Merge merge = FindMerge(ids[static_cast<size_t>(i - 1)], id);
    if (merge.id != kNoToken) heap.push_back({merge, i - 1});
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto at = [&](int32_t pos) -> BpeScratch::Symbol& {
    return symbols[static_cast<size_t>(pos)];
  };
  const auto consider = [&](int32_t pos) {
    const Merge merge = FindMerge(at(pos).id, at(at(pos).next).id);
    if (merge.id == kNoToken) return;
    heap.push_back({merge, pos});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate top = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = at(top.pos);
    // The pair may have changed since it was pushed.
    if (left.id == kNoToken || left.next < 0) continue;
    if (FindMerge(left.id, at(left.next).id).id != top.merge.id) continue;
    BpeScratch::Symbol& right = at(left.next);
    left.id = top.merge.id;
    left.next = right.next;
    right.id = kNoToken;
    if (left.next >= 0) {
      at(left.next).prev = top.pos;
      consider(top.pos);
    }
    if (left.prev >= 0) consider(left.prev);
  }
  ids.clear();
  for (int32_t pos = 0; pos >= 0; pos = at(pos).next) ids.push_back(at(pos).id);
}

}  // namespace moebius::text
