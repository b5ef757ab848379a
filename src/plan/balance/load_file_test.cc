#include "plan/balance/load_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace moebius::plan {
namespace {

std::string LoadError(const std::string& text) {
  const auto loads = ParseLoads(text, "load.json");
  EXPECT_FALSE(loads) << text;
  return loads ? "" : loads.error().message();
}

TEST(LoadFile, Reads) {
  const std::string path = testing::TempDir() + "load_file_test.json";
  std::ofstream(path) << R"({"load": [[90, 132.5], [0, 7]], "of": "a test"})";
  const auto loads = ReadLoadFile(path);
  ASSERT_TRUE(loads) << loads.error().message();
  EXPECT_EQ(*loads, (LayerLoads{{90, 132.5}, {0, 7}}));
  EXPECT_EQ(ReadLoadFile("/nowhere.json").error().code(), ErrorCode::kNotFound);
}

TEST(LoadFile, Errors) {
  EXPECT_EQ(LoadError("[[1]]"),
            "load.json: no JSON object, expected {\"load\": [[per expert] per layer]}");
  EXPECT_EQ(LoadError(R"({"loads": [[1]]})"),
            "load.json: expected \"load\": [[per expert] per layer] (did you mean loads?)");
  EXPECT_EQ(LoadError(R"({"load": []})"), "load.json: expected \"load\": [[per expert] per layer]");
  EXPECT_EQ(LoadError(R"({"load": [[1, 2], 3]})"),
            "load.json: layer 1 is no list of tokens by expert");
  EXPECT_EQ(LoadError(R"({"load": [[1, 2], []]})"),
            "load.json: layer 1 is no list of tokens by expert");
  EXPECT_EQ(LoadError(R"({"load": [[1, 2], [3, -4]]})"),
            "load.json: layer 1: expert 1 has -4, expected 0 or more");
  EXPECT_EQ(LoadError(R"({"load": [[1, "2"]]})"),
            "load.json: layer 0: expert 1 has \"2\", expected 0 or more");
  EXPECT_EQ(LoadError(R"({"load": [[1, 2], [3]]})"),
            "load.json: layer 1 has 1 experts, expected 2 as layer 0");
}

}  // namespace
}  // namespace moebius::plan
