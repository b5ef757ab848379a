#include "model/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "model/json_text.h"

namespace moebius::model {
namespace {

constexpr size_t kMaxIndexBytes = 256u << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// A name of a file in this folder, not a way out of it.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

}  // namespace

Result<Checkpoint> Checkpoint::Open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const std::string single = folder + "/" + kSingleFile;
  const std::string index = folder + "/" + kIndexFile;
  if (Exists(single)) {
    MOEBIUS_ASSIGN(SafetensorsFile file, SafetensorsFile::Open(single));
    checkpoint.files_.push_back(std::move(file));
    checkpoint.AddAll(checkpoint.files_.front());
    return checkpoint;
  }
  if (Exists(index)) {
    MOEBIUS_TRY(checkpoint.OpenShards(index));
    return checkpoint;
  }
  const bool has_pickle =
      Exists(folder + "/pytorch_model.bin") || Exists(folder + "/pytorch_model.bin.index.json");
  return MakeError(has_pickle ? ErrorCode::kUnsupported : ErrorCode::kNotFound,
                   "{}: no weights, expected {} or {}{}", folder, kSingleFile, kIndexFile,
                   has_pickle ? " (pytorch_model.bin is not read)" : "");
}

void Checkpoint::AddAll(const SafetensorsFile& file) {
  tensors_.reserve(file.tensors().size());
  for (const TensorInfo& info : file.tensors()) tensors_[info.name] = Tensor{&info, &file};
}

Status Checkpoint::OpenShards(const std::string& index_path) {
  nlohmann::json index;
  MOEBIUS_TRY(ReadJsonFile(index_path, kMaxIndexBytes, index));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: no 'weight_map', expected tensor names to files",
                     index_path);
  }
  std::map<std::string, std::vector<std::string>> names_of_file;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string() || !IsPlainName(file.get_ref<const std::string&>())) {
      return MakeError(
          ErrorCode::kCorrupt, "{}: weight_map['{}'] is {}, expected the plain name of a file here",
          index_path, name, file.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    }
    names_of_file[file.get<std::string>()].push_back(name);
  }
  files_.reserve(names_of_file.size());
  for (const auto& [file_name, names] : names_of_file) {
    const std::string path = folder_ + "/" + file_name;
    auto file = SafetensorsFile::Open(path);
    if (!file) return tl::unexpected<Error>(file.error().WithContext(index_path));
    files_.push_back(std::move(*file));
    const SafetensorsFile& opened = files_.back();
    std::unordered_map<std::string, const TensorInfo*> held;
    for (const TensorInfo& info : opened.tensors()) held[info.name] = &info;
    for (const std::string& name : names) {
      const auto it = held.find(name);
      if (it == held.end()) {
        return MakeError(ErrorCode::kCorrupt, "{}: tensor '{}' is not in {}, where it should be",
                         index_path, name, path);
      }
      tensors_[name] = Tensor{it->second, &opened};
    }
  }
  return {};
}

const Checkpoint::Tensor* Checkpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

bool Checkpoint::HasPrefix(const std::string& prefix) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

}  // namespace moebius::model
