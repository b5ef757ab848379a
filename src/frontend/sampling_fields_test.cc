#include "frontend/sampling_fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace moebius::frontend {
namespace {

TEST(SamplingFields, LaterOnesWinFieldByField) {
  SamplingFields fields =
      *ParseSamplingFields({{"temperature", 0.5}, {"top_k", 7}, {"stop", "a"}}, "first");
  fields.Override(*ParseSamplingFields(
      {{"temperature", 0}, {"stop", {"b", "c"}}, {"top_k", nullptr}}, "second"));
  GenerateRequest request;
  fields.Apply(request);
  EXPECT_EQ(request.sampling.temperature, 0.0f);
  EXPECT_EQ(request.sampling.top_k, 7);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(request.sampling.top_p, 1.0f) << "what nobody said keeps its default";
  EXPECT_FALSE(request.sampling.max_tokens);
}

// Each name that may stand in a request is read, overrides and reaches its place: none is forgotten
// in one of them.
TEST(SamplingFields, EveryNameReachesTheRequest) {
  const nlohmann::json values = {{"max_tokens", 3},
                                 {"min_tokens", 3},
                                 {"temperature", 3},
                                 {"top_k", 3},
                                 {"top_p", 0.5},
                                 {"min_p", 0.5},
                                 {"repetition_penalty", 3},
                                 {"presence_penalty", 3},
                                 {"frequency_penalty", 3},
                                 {"seed", 3},
                                 {"stop", "x"},
                                 {"stop_token_ids", {3}},
                                 {"ignore_eos", true},
                                 {"logprobs", 3},
                                 {"prompt_logprobs", 3},
                                 {"logit_bias", {{"3", 200}, {"4", -1.5}}},
                                 {"allowed_token_ids", {3}},
                                 {"bad_words", {"x"}},
                                 {"cache_salt", "x"},
                                 {"priority", -3},
                                 {"include_stop_str_in_output", true},
                                 {"skip_special_tokens", false}};
  ASSERT_EQ(values.size(), SamplingFieldNames().size());
  SamplingFields fields;
  for (const std::string& name : SamplingFieldNames()) {
    ASSERT_TRUE(values.contains(name)) << name;
    const auto one = ParseSamplingFields({{name, values[name]}}, "test");
    ASSERT_TRUE(one) << one.error().message();
    fields.Override(*one);
  }
  GenerateRequest request;
  fields.Apply(request);
  const engine::SamplingParams& sampling = request.sampling;
  EXPECT_EQ(sampling.max_tokens, 3);
  EXPECT_EQ(sampling.min_tokens, 3);
  EXPECT_EQ(sampling.temperature, 3);
  EXPECT_EQ(sampling.top_k, 3);
  EXPECT_EQ(sampling.top_p, 0.5f);
  EXPECT_EQ(sampling.min_p, 0.5f);
  EXPECT_EQ(sampling.repetition_penalty, 3);
  EXPECT_EQ(sampling.presence_penalty, 3);
  EXPECT_EQ(sampling.frequency_penalty, 3);
  EXPECT_EQ(sampling.seed, 3u);
  EXPECT_EQ(request.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(sampling.stop_token_ids, std::vector<TokenId>{3});
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_EQ(sampling.num_logprobs, 3);
  EXPECT_EQ(sampling.num_prompt_logprobs, 3);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{3, 100.0f}, {4, -1.5f}}));
  EXPECT_EQ(sampling.allowed_token_ids, std::vector<TokenId>{3});
  EXPECT_EQ(request.bad_words, std::vector<std::string>{"x"});
  EXPECT_EQ(request.cache_salt, "x");
  EXPECT_EQ(request.priority, -3);
  EXPECT_TRUE(request.include_stop_str_in_output);
  EXPECT_FALSE(request.skip_special_tokens);
}

TEST(SamplingFields, SeedsAreAnyInteger) {
  const auto seed = [](int64_t value) { return ParseSamplingFields({{"seed", value}}, "x")->seed; };
  EXPECT_EQ(seed(-5), static_cast<uint64_t>(-5));
  EXPECT_EQ(seed(std::numeric_limits<int64_t>::min()), uint64_t{1} << 63);
  EXPECT_EQ(seed(-1), std::nullopt) << "asks for a seed of the engine's own";
}

TEST(SamplingFields, WrongTypesNameTheField) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, nlohmann::json>>{{"max_tokens", "many"},
                                                           {"temperature", "hot"},
                                                           {"seed", 1e30},
                                                           {"seed", 0.5},
                                                           {"prompt_logprobs", -1},
                                                           {"logit_bias", {3}},
                                                           {"logit_bias", {{"x", 1}}},
                                                           {"logit_bias", {{"-3", 1}}},
                                                           {"logit_bias", {{"3", "x"}}},
                                                           {"bad_words", {3}},
                                                           {"cache_salt", 3},
                                                           {"priority", 1e10},
                                                           {"stop", 5},
                                                           {"logprobs", -1},
                                                           {"logprobs", 21},
                                                           {"stop_token_ids", {"x"}}}) {
    const auto fields = ParseSamplingFields({{name, value}}, "line 7");
    ASSERT_FALSE(fields) << name;
    EXPECT_EQ(fields.error().message().rfind("line 7", 0), 0u);
    EXPECT_NE(fields.error().message().find("'" + name), std::string::npos)
        << fields.error().message();
  }
}

}  // namespace
}  // namespace moebius::frontend
