#include "app/output_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace moebius::app {
namespace {

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(OutputFile, WhatItHeldStaysUntilThereIsSomethingToWrite) {
  const std::string path = testing::TempDir() + "moebius_output_file_test";
  std::ofstream(path) << "a longer text of before";
  auto output = OutputFile::Open("--output-json", path);
  ASSERT_TRUE(output) << output.error().message();
  EXPECT_EQ(ReadAll(path), "a longer text of before");
  std::fputs("new", output->Begin());
  EXPECT_TRUE(output->Finish());
  EXPECT_EQ(ReadAll(path), "new");
  std::filesystem::remove(path);
}

TEST(OutputFile, APathThatCannotBeWrittenIsNamedWithItsFlag) {
  for (const std::string& path : {testing::TempDir(), std::string("/nowhere/at/all")}) {
    const auto output = OutputFile::Open("--output-json", path);
    ASSERT_FALSE(output);
    EXPECT_EQ(output.error().message().rfind("--output-json: " + path + " cannot be written", 0),
              0u);
  }
}

TEST(OutputFile, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  auto output = OutputFile::Open("--output-json", "/dev/full");
  ASSERT_TRUE(output);
  std::fputs("new", output->Begin());
  EXPECT_FALSE(output->Finish());
}

}  // namespace
}  // namespace moebius::app
