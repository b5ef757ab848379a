// Writes small checkpoints for tests.
#pragma once

#include <fmt/format.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace moebius::model {

// A folder under the system's temporary one, gone with its object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "moebius_model_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

struct TestTensor {
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  std::string bytes;
};

inline std::string Dims(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

// A float32 tensor, or its values in another dtype.
inline TestTensor MakeTensor(const std::vector<int64_t>& shape, const std::vector<float>& values,
                             DType dtype = DType::kF32) {
  TestTensor tensor;
  tensor.shape = shape;
  tensor.dtype = dtype == DType::kF32    ? "F32"
                 : dtype == DType::kBF16 ? "BF16"
                 : dtype == DType::kF16  ? "F16"
                                         : "F8_E4M3";
  tensor.bytes.resize(values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    char* out = tensor.bytes.data() + i * SizeOf(dtype);
    if (dtype == DType::kF32) {
      std::memcpy(out, &values[i], 4);
    } else if (dtype == DType::kF8E4M3) {
      *out = static_cast<char>(FloatToF8E4M3(values[i]));
    } else {
      const uint16_t bits =
          dtype == DType::kBF16 ? ToBFloat16(values[i]).bits : FloatToHalf(values[i]);
      std::memcpy(out, &bits, 2);
    }
  }
  return tensor;
}

inline std::string WithLength(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}

// The bytes of a safetensors file.
inline std::string SafetensorsBytes(const std::map<std::string, TestTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name,
                          tensor.dtype, Dims(tensor.shape), data.size(),
                          data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  return WithLength(header + "}", data);
}

}  // namespace moebius::model
