// Reads a safetensors file: 8 bytes of header length, a JSON header, then the tensors' bytes. The
// file is mapped, never copied; every length, offset, shape and dtype in the header is checked
// against the file before anything points into it. Reading is safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "platform/mapped_file.h"
#include "tensor/dtype.h"

namespace moebius::model {

struct TensorInfo {
  std::string name;
  std::string dtype_name;      // as the header says: "BF16", "F8_E4M3", "BOOL", ...
  std::optional<DType> dtype;  // nothing: a dtype that no weight may have
  std::vector<int64_t> shape;
  size_t offset = 0;  // from the start of the file; any alignment
  size_t num_bytes = 0;
};

// "[2, 3]"
std::string ShapeText(std::span<const int64_t> shape);

// The tensors that the header of `file` describes, in order of offset; together with header_bytes
// (length field included) they cover all of the file: holes, overlaps and bytes behind the last
// tensor are kCorrupt, as is anything else that contradicts itself. `where` (the path) begins every
// error.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  size_t header_bytes = 0;
};
Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file,
                                           const std::string& where);

// One open file.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  size_t size() const { return file_.size(); }
  size_t header_bytes() const { return header_.header_bytes; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::byte* Data(const TensorInfo& tensor) const { return file_.data() + tensor.offset; }
  // Gives back the memory of [data, data + num_bytes), part of this file.
  void DropPages(const std::byte* data, size_t num_bytes) const;

 private:
  SafetensorsFile(platform::MappedFile file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  platform::MappedFile file_;
  SafetensorsHeader header_;
};

}  // namespace moebius::model
