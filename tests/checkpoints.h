// The checkpoints that tests of whole engines run: the demo and the golden ones, of the repository
// or of a bundle (tools/cuda_bundle.sh).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace moebius {

// Where the repository lies, or a copy of what is needed of it.
inline std::string Root() {
  const char* root = std::getenv("MOEBIUS_ROOT");
  return root != nullptr ? root : MOEBIUS_SOURCE_DIR;
}

inline std::vector<std::string> Checkpoints() {
  std::vector<std::string> folders = {Root() + "/models/demo"};
  for (const auto& entry : std::filesystem::directory_iterator(Root() + "/tests/golden")) {
    if (std::filesystem::exists(entry.path() / "golden.json")) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace moebius
