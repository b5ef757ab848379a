// Readers that do not read: what a stream keeps for one is bounded, what it says stays right, and
// the others do not notice.
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>

#include "frontend/read_budget.h"
#include "serve/testing/rig.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

constexpr char kTenWords[] = "one two three four five six seven eight nine ten ";

constexpr int64_t kHeavyBytes = frontend::TokenBytes(true, 20);

// Tokens of so many bytes.
json Heavy(size_t num_tokens) {
  return {{"prompt", kTenWords}, {"max_tokens", num_tokens}, {"logprobs", 20}, {"stream", true}};
}

// The prompt's tokens, round and round.
std::string TextOfTokens(const Rig& rig, size_t num_tokens) {
  const size_t round = rig.Tokens(kTenWords).size();
  std::string text;
  for (size_t i = 0; i < num_tokens / round; ++i) text += kTenWords;
  EXPECT_EQ(num_tokens % round, 0U);
  return text;
}

size_t NumLogprobs(const std::vector<json>& events) {
  size_t count = 0;
  for (const json& event : events) {
    if (!event.contains("choices") || event["choices"].empty()) continue;
    const json& logprobs = event["choices"][0]["logprobs"];
    if (!logprobs.is_null()) count += logprobs["tokens"].size();
  }
  return count;
}

TEST(ServerReaders, AStalledOneIsCutOffAndAFastOneBesideItIsNot) {
  ServerOptions options = TestOptions();
  options.max_unread_bytes = 4 << 20;
  const Rig rig(options);
  rig.engine->set_step_time(std::chrono::microseconds(500));
  TestClient stalled(rig.port, 4096);
  stalled.Send("POST", "/v1/completions", Heavy(1000000).dump());
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 1; }));
  // All of it may wait: however slow this machine, it is never cut off.
  const size_t num_tokens = rig.Tokens(kTenWords).size() * 80;
  ASSERT_LT(static_cast<int64_t>(num_tokens) * kHeavyBytes, options.max_unread_bytes);
  auto fast = std::async(std::launch::async,
                         [&] { return Post(rig.port, "/v1/completions", Heavy(num_tokens)); });
  // Sampled until the engine has heard that nobody reads the one, and the other is done.
  int64_t most = 0;
  ASSERT_TRUE(Eventually([&] {
    most = std::max(most, rig.server->TakeSnapshot().server.num_unread_bytes);
    return rig.engine->num_active() == 0;
  }));
  RecordProperty("most_unread_bytes", std::to_string(most));
  EXPECT_GT(most, options.max_unread_bytes / 2);
  // What may wait of the one, all of the other, and the token for which there was no room.
  EXPECT_LE(most, options.max_unread_bytes + (static_cast<int64_t>(num_tokens) + 1) * kHeavyBytes);

  const TestAnswer answer = fast.get();
  const std::vector<json> events = EventsOf(answer.body);
  EXPECT_EQ(TextOf(events), TextOfTokens(rig, num_tokens));
  EXPECT_EQ(NumLogprobs(events), num_tokens);

  // What it got is right as far as it goes, and then it is told.
  const std::vector<json> cut = EventsOf(stalled.ReadAnswer().body);
  ASSERT_GT(cut.size(), 1U);
  ASSERT_TRUE(cut.back().contains("error")) << cut.back();
  EXPECT_NE(cut.back()["error"]["message"].get<std::string>().find("read too slowly"),
            std::string::npos);
  const std::string text = TextOf(cut);
  EXPECT_GT(text.size(), 100U);
  std::string endless = kTenWords;
  while (endless.size() < text.size()) endless += kTenWords;
  EXPECT_TRUE(endless.starts_with(text));
  const size_t num_said = NumLogprobs(cut);
  EXPECT_TRUE(Eventually([&] { return rig.server->TakeSnapshot().server.num_unread_bytes == 0; }));
  const ServerStats stats = rig.server->TakeSnapshot().server;
  EXPECT_EQ(stats.num_slow_readers, 1);
  EXPECT_EQ(stats.num_streamed_tokens, static_cast<int64_t>(num_tokens + num_said));
  EXPECT_NE(Call(rig.port, "GET", "/metrics").body.find("moebius:slow_readers_total"),
            std::string::npos);
}

// One who was away for a while gets all of it, in pieces that leave the thread to others.
TEST(ServerReaders, OneWhoComesBackGetsAllInPieces) {
  const Rig rig;
  const size_t num_tokens = rig.Tokens(kTenWords).size() * 200;
  TestClient away(rig.port, 4096);
  json body = Heavy(num_tokens);
  body["n"] = 3;
  away.Send("POST", "/v1/completions", body.dump());
  ASSERT_TRUE(away.ReadUntil("data:"));
  ASSERT_TRUE(Eventually([&] { return rig.engine->num_active() == 0; }));
  const std::vector<json> events = EventsOf(away.ReadAnswer().body);
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(TextOf(events, choice), TextOfTokens(rig, num_tokens));
  }
  EXPECT_EQ(NumLogprobs(events), 3 * num_tokens);
  RecordProperty("largest_chunk", std::to_string(away.largest_chunk()));
  EXPECT_LT(away.largest_chunk(), size_t{1} << 20);
  EXPECT_EQ(rig.server->TakeSnapshot().server.num_slow_readers, 0);
}

}  // namespace
}  // namespace moebius::serve
