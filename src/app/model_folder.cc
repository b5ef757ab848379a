#include "app/model_folder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "plan/model_shape.h"

namespace moebius::app {
namespace {

namespace fs = std::filesystem;

Result<std::string> MakeFolder(const std::string& config) {
  std::error_code error;
  std::string pattern = (fs::temp_directory_path(error) / "moebius-model-XXXXXX").string();
  if (error || mkdtemp(pattern.data()) == nullptr) {
    return MakeError(ErrorCode::kUnavailable, "{}: no folder can be made for config.json", pattern);
  }
  std::ofstream file(pattern + "/config.json", std::ios::binary);
  file << config;
  file.close();
  if (!file) {
    fs::remove_all(pattern, error);
    return MakeError(ErrorCode::kUnavailable, "{}/config.json cannot be written", pattern);
  }
  return pattern;
}

}  // namespace

bool IsHubName(const std::string& model) {
  std::error_code error;
  const size_t slash = model.find('/');
  return !fs::exists(model, error) && slash != std::string::npos && slash > 0 &&
         slash + 1 < model.size() && model.find('/', slash + 1) == std::string::npos &&
         model.front() != '.' && model.front() != '~';
}

Result<ModelFolder> ModelFolder::Find(frontend::OpenOptions& open) {
  ModelFolder folder;
  std::error_code error;
  if (fs::exists(open.model, error)) return folder;
  if (open.load_format == "dummy") {
    const Result<std::string> config = plan::KnownConfig(open.model);
    if (config) {
      MOEBIUS_ASSIGN(folder.made_, MakeFolder(*config));
      folder.name_ = std::exchange(open.model, folder.made_);
      return folder;
    }
    if (IsHubName(open.model)) {
      return tl::unexpected(config.error().WithContext(
          "--load-format dummy needs a folder with config.json, or a name of moebius plan "
          "--list-models"));
    }
    return folder;
  }
  if (!IsHubName(open.model)) return folder;
  return MakeError(ErrorCode::kNotFound,
                   "'{}' is no folder here, and nothing is downloaded: give the folder that holds "
                   "the model; --load-format dummy runs random weights of its shape, moebius serve "
                   "--dry-run shows what it needs",
                   open.model);
}

ModelFolder::ModelFolder(ModelFolder&& other) noexcept
    : made_(std::exchange(other.made_, {})), name_(std::exchange(other.name_, {})) {}

ModelFolder& ModelFolder::operator=(ModelFolder&& other) noexcept {
  std::swap(made_, other.made_);
  std::swap(name_, other.name_);
  return *this;
}

ModelFolder::~ModelFolder() {
  std::error_code ignored;
  if (!made_.empty()) fs::remove_all(made_, ignored);
}

Error ModelFolder::Named(const Error& error) const {
  std::string message = error.message();
  for (size_t at = 0; !made_.empty() && (at = message.find(made_, at)) != std::string::npos;
       at += name_.size()) {
    message.replace(at, made_.size(), name_);
  }
  return Error(error.code(), std::move(message));
}

}  // namespace moebius::app
