// Where a model's files are: the folder that MODEL names, or for random weights of a model that is
// known by its hub name a folder with that one's config.json, made for as long as this lives.
// Nothing is ever downloaded. One thread.
#pragma once

#include <string>

#include "base/result.h"
#include "frontend/open.h"

namespace moebius::app {

class ModelFolder {
 public:
  // Sets open.model to the folder where MODEL is a known name and the weights are random. What is
  // no folder otherwise is kept: reading it fails with the file's name. kNotFound: a hub name, and
  // what to do.
  static Result<ModelFolder> Find(frontend::OpenOptions& open);

  ModelFolder() = default;
  ModelFolder(ModelFolder&& other) noexcept;
  ModelFolder& operator=(ModelFolder&& other) noexcept;
  ~ModelFolder();  // removes what was made

  // An error as the user reads it: with MODEL as it was written where the folder stands that was
  // made, which will be gone.
  Error Named(const Error& error) const;
  template <typename T>
  Result<T> Named(Result<T> result) const {
    if (!result) return tl::unexpected(Named(result.error()));
    return result;
  }

 private:
  std::string made_;
  std::string name_;  // MODEL
};

// "org/name", which is no folder here.
bool IsHubName(const std::string& model);

}  // namespace moebius::app
