// The weights of a Hugging Face folder: model.safetensors, or shards named by
// model.safetensors.index.json. Files stay mapped while the checkpoint lives. Reading is safe from
// any thread.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "model/safetensors.h"

namespace moebius::model {

class Checkpoint {
 public:
  struct Tensor {
    const TensorInfo* info = nullptr;
    const SafetensorsFile* file = nullptr;
    const std::byte* data() const { return file->Data(*info); }
  };

  // Opens every file and checks the index against them. File names in an index are plain names of
  // files in this folder; anything else is refused.
  static Result<Checkpoint> Open(const std::string& folder);

  // Null where there is no such tensor.
  const Tensor* Find(const std::string& name) const;
  // Whether any tensor's name begins so.
  bool HasPrefix(const std::string& prefix) const;

  const std::string& folder() const { return folder_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  Status OpenShards(const std::string& index_path);
  void AddAll(const SafetensorsFile& file);

  std::string folder_;
  std::vector<SafetensorsFile> files_;  // never grows after Open: tensors point into it
  std::unordered_map<std::string, Tensor> tensors_;
};

}  // namespace moebius::model
