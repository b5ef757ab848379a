// A command line as tests write it: what `run` got from it, or why it was refused.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

#include "app/parse.h"

namespace moebius::app {

using Args = std::vector<std::string>;

inline RunOptions ParsedRun(Args args) {
  args.insert(args.begin(), "run");
  const auto line = ParseCommandLine(args);
  EXPECT_TRUE(line) << line.error().message();
  return line ? std::get<RunOptions>(line->command) : RunOptions{};
}

inline std::string ParseError(const Args& args) {
  const auto line = ParseCommandLine(args);
  EXPECT_FALSE(line);
  return line ? "" : line.error().message();
}

}  // namespace moebius::app
