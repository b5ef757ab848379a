#include "model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "model/json_text.h"

namespace moebius::model {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDims = 8;

struct FileDType {
  std::string_view name;
  size_t num_bytes;
  std::optional<DType> dtype;
};
constexpr std::array<FileDType, 14> kFileDTypes = {{
    {"F32", 4, DType::kF32},
    {"BF16", 2, DType::kBF16},
    {"F16", 2, DType::kF16},
    {"F8_E4M3", 1, DType::kF8E4M3},
    {"I8", 1, DType::kI8},
    {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},
    {"F64", 8, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"U8", 1, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
    {"U32", 4, std::nullopt},
}};

bool IsOffset(const nlohmann::json& value) {
  return value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
}

// The bytes of `shape`; nothing where the product overflows.
std::optional<uint64_t> NumBytes(std::span<const int64_t> shape, size_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const int64_t dim : shape) {
    const uint64_t size = static_cast<uint64_t>(dim);
    if (size != 0 && bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / size) {
      return std::nullopt;
    }
    bytes *= size;
  }
  return bytes;
}

// Reads one header entry; offsets become those of the file.
Result<TensorInfo> ParseTensor(const std::string& name, const nlohmann::json& entry,
                               size_t data_begin, size_t file_size, const std::string& where) {
  const auto corrupt = [&](std::string_view what, std::string_view expected) {
    return MakeError(ErrorCode::kCorrupt, "{}: tensor '{}': {}, expected {}", where, name, what,
                     expected);
  };
  if (!entry.is_object()) return corrupt("its entry is no object", "dtype, shape, data_offsets");
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) return corrupt("no dtype", "a string");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxDims) {
    return corrupt("no shape", "a list of at most 8 sizes");
  }
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !IsOffset((*offsets)[0]) || !IsOffset((*offsets)[1])) {
    return corrupt("no data_offsets", "[begin, end]");
  }
  TensorInfo info;
  info.name = name;
  info.dtype_name = dtype->get<std::string>();
  for (const nlohmann::json& dim : *shape) {
    if (!IsOffset(dim) || dim.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return corrupt(fmt::format("a size of its shape is {}", dim.dump()), "a whole number >= 0");
    }
    info.shape.push_back(dim.get<int64_t>());
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  const uint64_t data_bytes = file_size - data_begin;
  if (begin > end || end > data_bytes) {
    return corrupt(fmt::format("data_offsets [{}, {}]", begin, end),
                   fmt::format("a range within the {} data bytes of a file of {} bytes (is it "
                               "truncated?)",
                               data_bytes, file_size));
  }
  const auto known = std::find_if(kFileDTypes.begin(), kFileDTypes.end(),
                                  [&](const FileDType& d) { return d.name == info.dtype_name; });
  if (known != kFileDTypes.end()) {
    info.dtype = known->dtype;
    const std::optional<uint64_t> bytes = NumBytes(info.shape, known->num_bytes);
    if (!bytes || *bytes != end - begin) {
      return corrupt(
          fmt::format("{} data bytes", end - begin),
          bytes ? fmt::format("{} for {} {}", *bytes, info.dtype_name, ShapeText(info.shape))
                : fmt::format("a shape that fits in memory, not {}", ShapeText(info.shape)));
    }
  }
  info.offset = data_begin + static_cast<size_t>(begin);
  info.num_bytes = static_cast<size_t>(end - begin);
  return info;
}

// Sorts by offset; every data byte must belong to exactly one tensor.
Status CheckCover(SafetensorsHeader& header, size_t file_size, const std::string& where) {
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return a.offset != b.offset ? a.offset < b.offset : a.num_bytes < b.num_bytes;
            });
  size_t end = header.header_bytes;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.offset < end) {
      return MakeError(ErrorCode::kCorrupt,
                       "{}: tensor '{}' begins at byte {}, inside tensor '{}', which ends at {}",
                       where, tensor.name, tensor.offset, previous->name, end);
    }
    if (tensor.offset > end) break;
    end = tensor.offset + tensor.num_bytes;
    previous = &tensor;
  }
  if (end != file_size) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: the bytes from {} on belong to no tensor, expected none of the {} bytes "
                     "of the file to be unused",
                     where, end, file_size);
  }
  return {};
}

}  // namespace

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += fmt::format("{}{}", i ? ", " : "", shape[i]);
  return text + "]";
}

Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file,
                                           const std::string& where) {
  if (file.size() < kLengthBytes) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: {} bytes, expected at least 8 (a safetensors header length)", where,
                     file.size());
  }
  if (std::string_view(reinterpret_cast<const char*>(file.data()), file.size())
          .starts_with("version https://git-lfs")) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: a Git LFS pointer, expected the weights themselves (git lfs pull)",
                     where);
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: header of {} bytes, expected at most {} in a file of {} bytes", where,
                     length, std::min<uint64_t>(kMaxHeaderBytes, file.size() - kLengthBytes),
                     file.size());
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                              static_cast<size_t>(length));
  std::unordered_set<std::string> names;
  nlohmann::json object;
  MOEBIUS_TRY(ParseJson(text, where, object,
                        [&](const std::string& key) { return names.insert(key).second; }));
  if (!object.is_object()) {
    return MakeError(ErrorCode::kCorrupt, "{}: the header is no JSON object", where);
  }
  SafetensorsHeader header;
  header.header_bytes = kLengthBytes + static_cast<size_t>(length);
  header.tensors.reserve(object.size());
  for (const auto& [name, entry] : object.items()) {
    if (name == "__metadata__") continue;
    MOEBIUS_ASSIGN(TensorInfo info,
                   ParseTensor(name, entry, header.header_bytes, file.size(), where));
    header.tensors.push_back(std::move(info));
  }
  MOEBIUS_TRY(CheckCover(header, file.size(), where));
  return header;
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  MOEBIUS_ASSIGN(platform::MappedFile file, platform::MappedFile::Open(path));
  MOEBIUS_ASSIGN(SafetensorsHeader header,
                 ParseSafetensors(std::span(file.data(), file.size()), path));
  return SafetensorsFile(std::move(file), std::move(header));
}

void SafetensorsFile::DropPages(const std::byte* data, size_t num_bytes) const {
  file_.DropPages(static_cast<size_t>(data - file_.data()), num_bytes);
}

}  // namespace moebius::model
