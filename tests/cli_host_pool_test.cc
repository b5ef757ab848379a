// A server with a host pool of experts on a machine whose /dev/shm is small, or gets full: a clear
// error at the start, else nothing. In a mount namespace with a /dev/shm of its own; skipped where
// the system gives none.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

const std::string kModel = MOEBIUS_SOURCE_DIR "/tests/golden/deepseek_v3";
const Args kPooled = {kModel,
                      "-dp",
                      "2",
                      "-ep",
                      "--deterministic",
                      "--max-model-len",
                      "128",
                      "--enable-eplb",
                      "--num-redundant-experts",
                      "4",
                      "--eplb-config",
                      R"({"host_pool": true, "random_moves": 3, "step_interval": 1})"};

class HostPoolRoomTest : public ServeTest {
 protected:
  // The program, or another, from now on with so much of /dev/shm.
  void GiveRoom(const std::string& size) {
    const std::string script =
        Write("with_room", fmt::format("#!/bin/sh\n"
                                       "exec unshare -rm sh -c 'mount -t tmpfs -o size={} tmpfs "
                                       "/dev/shm && exec \"$0\" \"$@\"' {} \"$@\"\n",
                                       size, MOEBIUS_PROGRAM));
    std::filesystem::permissions(script, std::filesystem::perms::owner_all);
    program_ = script;
  }
  bool HasNamespaces() {
    GiveRoom("1m");
    return Run({"--version"}).exit_code == 0;
  }
};

TEST_F(HostPoolRoomTest, TooLittleIsAnErrorWithTheRemedy) {
  if (!HasNamespaces()) GTEST_SKIP() << "no mount namespaces here";
  GiveRoom("64k");
  const Finished finished =
      Run(Args{"run"} + kPooled + Args{"--prompt-ids", "1,2,3", "--max-tokens", "4"});
  EXPECT_EQ(finished.exit_code, 1) << finished.err;
  for (const char* part : {"host pool moe_shared (all experts of the node) needs ",
                           " in /dev/shm, where ", "mount -o remount,size="}) {
    EXPECT_TRUE(Contains(finished.err, part)) << finished.err;
  }
  // A dry run knows before.
  const Args dry = Args{"serve"} + kPooled + Args{"--dry-run", "--device", "cpu"};
  const Finished small = Run(dry);
  EXPECT_EQ(small.exit_code, 1) << small.out;
  EXPECT_TRUE(Contains(small.out, "It does not hold: the host pool ") &&
              Contains(small.out, "-o remount,size="))
      << small.out;
  GiveRoom("4m");
  const Finished large = Run(dry);
  EXPECT_EQ(large.exit_code, 0) << large.out;
  EXPECT_TRUE(Contains(large.out, " of /dev/shm for the host pool ")) << large.out;
}

TEST_F(HostPoolRoomTest, WhatIsFilledLaterHurtsNobody) {
  if (!HasNamespaces()) GTEST_SKIP() << "no mount namespaces here";
  const std::vector<int> prompt{5, 17, 3, 88, 41};
  constexpr int kMaxTokens = 60;
  const json request = {{"prompt", prompt},
                        {"max_tokens", kMaxTokens},
                        {"temperature", 0},
                        {"ignore_eos", true},
                        {"return_token_ids", true}};
  program_ = MOEBIUS_PROGRAM;
  const json line = {{"prompt_ids", prompt}, {"max_tokens", kMaxTokens}, {"ignore_eos", true}};
  const Finished one = Run({"run", kModel, "--input-file", Write("one.jsonl", line.dump() + "\n"),
                            "--temperature", "0", "--deterministic"});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const json expected = json::parse(one.out)["token_ids"];

  GiveRoom("4m");
  Serve(kPooled);
  if (HasFatalFailure()) return;
  // From outside: its /dev/shm, with the segments of the pool; the last byte of it is taken.
  const std::string shared = fmt::format("/proc/{}/root/dev/shm/", server_);
  EXPECT_TRUE(std::filesystem::exists(shared + "moe_shared_l0_lr0_all"));
  EXPECT_TRUE(std::filesystem::exists(shared + "moe_shared_l1_lr1_all"));
  const std::string block(4096, 'x');
  std::ofstream filler(shared + "filler");
  while (filler.write(block.data(), std::ssize(block)).flush()) {
  }
  EXPECT_EQ(std::filesystem::space(shared).free, 0U);

  const auto epoch = [&] {
    return json::parse(Fetch("GET", "/moebius/stats").body)["balance"].value("epoch", 0);
  };
  const int before = epoch();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  do {
    const net::HttpResponse answer = Fetch("POST", "/v1/completions", request.dump());
    ASSERT_EQ(answer.status, 200) << answer.body;
    ASSERT_EQ(json::parse(answer.body)["choices"][0]["token_ids"], expected);
  } while (epoch() < before + 5 && std::chrono::steady_clock::now() < deadline);
  EXPECT_GE(epoch(), before + 5) << ReadFile(folder_ + "server_err");
  EXPECT_EQ(End(SIGTERM), 0);
}

}  // namespace
}  // namespace moebius
