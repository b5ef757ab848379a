#include "text/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

namespace moebius::text {
namespace {

using Json = nlohmann::json;

struct Model {
  std::map<std::string, TokenId> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

// Characters a to f and merges of random pairs of tokens.
Model RandomModel(std::mt19937& rng) {
  Model model;
  std::vector<std::string> tokens;
  const auto add = [&](const std::string& token) {
    if (model.vocab.emplace(token, static_cast<TokenId>(tokens.size())).second) {
      tokens.push_back(token);
    }
  };
  for (const char c : std::string("abcdef")) add(std::string(1, c));
  std::set<std::pair<std::string, std::string>> seen;
  for (int i = 0; i < 40; ++i) {
    const std::string left = tokens[rng() % tokens.size()];
    const std::string right = tokens[rng() % tokens.size()];
    if (left.size() + right.size() > 8 || !seen.insert({left, right}).second) continue;
    model.merges.emplace_back(left, right);
    add(left + right);
  }
  return model;
}

Result<Bpe> Build(const Model& model) {
  const Json file = {{"vocab", model.vocab}, {"merges", model.merges}};
  const auto document = JsonDocument::Parse(file.dump());
  return Bpe::Parse(document->root());
}

// The definition, step by step: merge the first pair of the lowest rank until none is left.
std::vector<TokenId> Naive(const Model& model, const std::string& text) {
  std::vector<std::string> symbols;
  for (const char c : text) symbols.emplace_back(1, c);
  while (true) {
    size_t best_rank = model.merges.size();
    size_t best_place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (model.merges[rank] == std::pair(symbols[i], symbols[i + 1])) {
          best_rank = rank;
          best_place = i;
        }
      }
    }
    if (best_rank == model.merges.size()) break;
    symbols[best_place] += symbols[best_place + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best_place) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& symbol : symbols) ids.push_back(model.vocab.at(symbol));
  return ids;
}

// Short pieces, long ones (a heap) and ones that are cut where no merge reaches, all from the same
// definition.
TEST(BpeTest, EqualsTheDefinition) {
  std::mt19937 rng(3);
  for (int round = 0; round < 40; ++round) {
    const Model model = RandomModel(rng);
    const Result<Bpe> bpe = Build(model);
    ASSERT_TRUE(bpe.has_value()) << bpe.error().message();
    BpeScratch scratch;
    for (const size_t size : {1, 2, 3, 5, 8, 20, 47, 48, 49, 95, 96, 97, 98, 200, 400}) {
      std::string text;
      for (size_t i = 0; i < size; ++i) text += static_cast<char>('a' + rng() % 6);
      std::vector<TokenId> ids;
      bpe->Encode(text, scratch, ids);
      ASSERT_EQ(ids, Naive(model, text)) << text;
      std::vector<TokenId> again;
      bpe->Encode(text, scratch, again);
      ASSERT_EQ(again, ids) << "from the cache";
    }
  }
}

}  // namespace
}  // namespace moebius::text
