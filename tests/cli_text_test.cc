// The program's text side: prompts, conversations and stop strings, on a folder with a tokeniser
// and a chat template made here (tokens are bytes; weights are random, so answers are nonsense, but
// always the same).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "cli_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

std::string CodePoint(int code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// Ids 0 to 255 are bytes in GPT-2's spelling, 256 is <end>.
std::string ByteTokenizer() {
  json vocab;
  int rank = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    vocab[CodePoint(printable ? b : 256 + rank++)] = b;
  }
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  const json end = {{"id", 256},       {"content", "<end>"}, {"single_word", false},
                    {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                    {"special", true}};
  return json{{"version", "1.0"},
              {"added_tokens", json::array({end})},
              {"normalizer", nullptr},
              {"pre_tokenizer", byte_level},
              {"post_processor", nullptr},
              {"decoder", byte_level},
              {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}}
      .dump();
}

constexpr const char* kConfig = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16", "vocab_size": 257,
  "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2,
  "norm_topk_prob": true, "decoder_sparse_step": 1, "max_position_embeddings": 2048, "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu", "eos_token_id": 256})";

constexpr const char* kTemplate =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}{% if "
    "add_generation_prompt %}[assistant]{% endif %}";

class CliTextTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    Write("config.json", kConfig);
    Write("tokenizer.json", ByteTokenizer());
    Write("tokenizer_config.json",
          json{{"chat_template", kTemplate}, {"eos_token", "<end>"}}.dump());
  }
  // `run` or `chat` on the folder, greedy, 24 tokens that no end token cuts short.
  Args Base(const char* command) const {
    return {command,        folder_, "--load-format", "dummy", "--temperature", "0",
            "--max-tokens", "24",    "--ignore-eos"};
  }
  std::vector<json> Batch(const std::string& lines, const Args& more = {}) const {
    const Finished finished =
        Run(Base("run") + Args{"--input-file", Write("in.jsonl", lines)} + more);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    std::vector<json> answers;
    std::istringstream stream(finished.out);
    for (std::string line; std::getline(stream, line);) answers.push_back(json::parse(line));
    return answers;
  }
};

TEST_F(CliTextTest, TheTemplateIsAppliedUnlessNotWanted) {
  const Finished chat = Run(Base("run") + Args{"-p", "hi", "--print-ids"});
  ASSERT_EQ(chat.exit_code, 0) << chat.err;
  const Finished raw =
      Run(Base("run") + Args{"-p", "[user]hi<end>[assistant]", "--no-chat", "--print-ids"});
  EXPECT_EQ(raw.out, chat.out);
  const Finished plain = Run(Base("run") + Args{"-p", "hi", "--no-chat", "--print-ids"});
  EXPECT_TRUE(Contains(plain.err, "2 prompt tokens")) << plain.err;
  const Finished with_system =
      Run(Base("run") + Args{"-p", "hi", "--system", "be brief", "--print-ids"});
  EXPECT_TRUE(
      Contains(with_system.err, fmt::format("{} prompt tokens", 8 + 8 + 1 + 6 + 2 + 1 + 11)))
      << with_system.err;
  const Finished from_input = Run(Base("run") + Args{"-p", "-", "--print-ids"}, "hi\n");
  EXPECT_EQ(from_input.out, chat.out);
}

TEST_F(CliTextTest, BatchTakesTextMessagesAndIds) {
  const std::vector<json> answers = Batch(
      "{\"prompt\": \"hi\"}\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n"
      "{\"prompt_ids\": [104, 105]}\n");
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0]["token_ids"], answers[1]["token_ids"]);
  EXPECT_EQ(answers[2]["usage"]["prompt_tokens"], 2);
  const std::vector<json> raw = Batch("{\"prompt\": \"hi\"}\n", {"--no-chat"});
  EXPECT_EQ(raw[0]["token_ids"], answers[2]["token_ids"]);
}

TEST_F(CliTextTest, AStopStringCutsTheText) {
  // Ids draw printable and unprintable bytes; a stop string must be text, so take one from a long
  // enough answer.
  const json whole =
      Batch("{\"prompt\": \"hi\", \"max_tokens\": 200, \"temperature\": 1, \"seed\": 3}\n")[0];
  const std::string text = whole["text"];
  size_t at = 5;
  while (at + 2 < text.size() && !(std::isalnum(static_cast<unsigned char>(text[at])) != 0 &&
                                   std::isalnum(static_cast<unsigned char>(text[at + 1])) != 0)) {
    ++at;
  }
  const std::string stop = text.substr(at, 2);
  const size_t first = text.find(stop);
  const json request = {
      {"prompt", "hi"}, {"max_tokens", 200}, {"temperature", 1}, {"seed", 3}, {"stop", stop}};
  const json cut = Batch(request.dump() + "\n")[0];
  EXPECT_EQ(cut["text"], text.substr(0, first));
  EXPECT_EQ(cut["finish_reason"], "stop");
  EXPECT_EQ(cut["stop_reason"], stop);
  EXPECT_LT(cut["usage"]["completion_tokens"], 200);
}

TEST_F(CliTextTest, PromptsFilePrintsQuestionsAndAnswers) {
  const std::string path = Write("prompts.txt", "# comment\nhi\n\n  \nwho are you?\n");
  const Finished finished = Run(Base("run") + Args{"--prompts-file", path});
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(finished.out.rfind("> hi\n", 0), 0u) << finished.out;
  EXPECT_TRUE(Contains(finished.out, "> who are you?\n"));
  EXPECT_FALSE(Contains(finished.out, "comment"));
}

TEST_F(CliTextTest, ChatRemembersUntilReset) {
  const Finished finished = Run(Base("chat"), "hi\nand?\n/rest\n/reset\nhi\n/exit\nnever\n");
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "did you mean /reset?")) << finished.err;
  std::vector<std::string> figures;
  std::istringstream lines(finished.err);
  for (std::string line; std::getline(lines, line);) {
    if (Contains(line, "prompt tokens")) figures.push_back(line);
  }
  ASSERT_EQ(figures.size(), 3u) << finished.err;
  // "[user]hi<end>[assistant]": 6 + 2 + 1 + 11 tokens; the second turn adds an answer and a
  // question, and finds the first turn's full blocks in the cache; the third is the first again.
  EXPECT_TRUE(Contains(figures[0], "[20 prompt tokens,")) << figures[0];
  EXPECT_FALSE(Contains(figures[1], "[20 prompt tokens")) << figures[1];
  EXPECT_TRUE(Contains(figures[1], "cached")) << figures[1];
  EXPECT_TRUE(Contains(figures[2], "[20 prompt tokens")) << figures[2];
}

TEST_F(CliTextTest, InterruptEndsTheAnswerAndKeepsWhatCame) {
  // Far more tokens than the time allows.
  const Finished finished = Run(
      {"run", folder_, "--load-format", "dummy", "-p", "hi", "--max-tokens", "90000",
       "--ignore-eos", "--hf-overrides", R"({"max_position_embeddings": 100000})", "--print-ids"},
      "", true);
  EXPECT_EQ(finished.exit_code, 130) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "finish: abort")) << finished.err;
  // At least the token whose text was seen; on a busy machine there may be no second one.
  const std::string ids = finished.LastLine();
  EXPECT_FALSE(ids.empty()) << finished.out;
  EXPECT_EQ(ids.find_first_not_of("0123456789,"), std::string::npos) << finished.out;
}

TEST_F(CliTextTest, ATooLongConversationIsRefusedAndTheRestGoesOn) {
  const Finished finished =
      Run(Base("chat") + Args{"--max-model-len", "60"}, std::string(100, 'x') + "\nhi\n");
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, "moebius: error: ")) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "[20 prompt tokens")) << finished.err;
  EXPECT_FALSE(Contains(finished.err, "/reset forgets")) << "the line itself is too long";
}

TEST_F(CliTextTest, AFullConversationSuggestsReset) {
  const Finished finished =
      Run(Base("chat") + Args{"--max-model-len", "60"}, "hi\nand?\n/reset\nhi\n/help\n");
  EXPECT_TRUE(Contains(finished.err, "fills the context; /reset forgets it")) << finished.err;
  for (const char* word : {"/quit", "/exit", "Ctrl-D"})
    EXPECT_TRUE(Contains(finished.err, word)) << finished.err;
}

// The folder has no weights: whoever asks for them says so.
TEST_F(CliTextTest, RequestsAreCheckedBeforeWeightsAreRead) {
  const Args run = {"run", folder_, "-p", "hi"};
  EXPECT_TRUE(Contains(Run(run).err, "safetensors")) << "what a good request gets";
  const std::string lines = Write("in.jsonl", "{\"prompt\": \"hi\"}\n");
  const std::string broken = Write("broken.jinja", "{% for %}");
  struct Case {
    Args args;
    std::string part;
    int exit_code = 1;
  };
  const std::vector<Case> cases = {
      {run + Args{"--temperature", "nan"}, "temperature is nan", 2},
      {run + Args{"--top-p", "0"}, "top_p is 0", 2},
      {run + Args{"--stop-token-ids", "257"}, "stop_token_ids is 257"},
      {run + Args{"--max-model-len", "4"}, "max_model_len"},
      {{"run", folder_, "--prompt-ids", "5,257"}, "prompt token 1 has id 257"},
      {{"run", folder_, "--prompts-file", Write("p.txt", "hi\n"), "--min-p", "2"}, "min_p is 2", 2},
      {{"run", folder_, "--input-file", lines, "--temperature", "-1"}, "temperature is -1", 2},
      {{"run", folder_, "--input-file", lines, "--output-file", "/nowhere/x"}, "--output-file"},
      {{"chat", folder_, "--temperature", "inf"}, "temperature is inf", 2},
      {run + Args{"--chat-template", broken}, "broken.jinja"},
      {run + Args{"--chat-template", folder_ + "none.jinja"}, "--chat-template"},
      {{"bench", "latency", folder_, "--output-json", "/nowhere/x"}, "--output-json"},
      {{"bench", "latency", folder_, "--input-len", "5000"}, "--input-len", 2},
  };
  const auto check = [this](const Case& c) {
    const Finished finished = Run(c.args);
    EXPECT_EQ(finished.exit_code, c.exit_code) << c.part << finished.err;
    EXPECT_TRUE(Contains(finished.err, c.part)) << c.part << " in: " << finished.err;
    EXPECT_FALSE(Contains(finished.err, "safetensors")) << finished.err;
  };
  for (const Case& c : cases) check(c);
  Write("tokenizer_config.json", json{{"chat_template", "{% nonsense %}"}}.dump());
  for (const Args& args :
       {run, Args{"chat", folder_}, Args{"run", folder_, "--input-file", lines}}) {
    check({args, "nonsense"});
  }
}

TEST_F(CliTextTest, AnotherTemplateStandsInForTheFolders) {
  const std::string file = Write("other.jinja", "<{{ messages[-1].content }}>{{ eos_token }}");
  const Finished finished = Run(Base("run") + Args{"-p", "hi", "--chat-template", file});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "[5 prompt tokens")) << finished.err;
}

TEST_F(CliTextTest, EmptyAndMalformedPromptsAreSaid) {
  const Finished empty = Run(Base("run") + Args{"-p", "-"}, "\n");
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_TRUE(Contains(empty.err, "standard input, is empty")) << empty.err;
  const Finished malformed = Run(Base("run") + Args{"-p", "a\xff"});
  EXPECT_EQ(malformed.exit_code, 0) << malformed.err;
  EXPECT_TRUE(Contains(malformed.err, "--prompt is not UTF-8 from byte 1 on")) << malformed.err;
}

TEST_F(CliTextTest, ATokeniserOfAnotherModelIsRefused) {
  const Args base = Base("run") + Args{"-p", "hi"};
  const Finished refused =
      Run(base + Args{"--hf-overrides", R"({"vocab_size": 200, "eos_token_id": 0})"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_TRUE(Contains(refused.err, "256 entries") && Contains(refused.err, "vocab_size, 200"))
      << refused.err;
  // Added tokens alone beyond the vocabulary, and a padded embedding, are usual.
  const Finished warned =
      Run(base + Args{"--no-chat", "--hf-overrides", R"({"vocab_size": 256, "eos_token_id": 0})"});
  EXPECT_EQ(warned.exit_code, 0) << warned.err;
  EXPECT_TRUE(Contains(warned.err, "added tokens")) << warned.err;
  const Finished padded = Run(base + Args{"--hf-overrides", R"({"vocab_size": 320})"});
  EXPECT_EQ(padded.exit_code, 0) << padded.err;
  EXPECT_FALSE(Contains(padded.err, "added tokens")) << padded.err;
}

TEST_F(CliTextTest, SwitchesWithoutEffectAreSaid) {
  const Args dense = {"--hf-overrides",
                      R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})"};
  const Finished finished =
      Run(Base("run") + dense + Args{"-p", "hi", "--moe-mode", "dense", "--routing", "uniform"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "--moe-mode dense has no effect")) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "--routing has no effect")) << finished.err;
  EXPECT_FALSE(Contains(Run(Base("run") + dense + Args{"-p", "hi"}).err, "has no effect"));
  EXPECT_FALSE(
      Contains(Run(Base("run") + Args{"-p", "hi", "--moe-mode", "dense"}).err, "has no effect"));
}

}  // namespace
}  // namespace moebius
