// A safetensors file of any bytes: an error or a header whose every tensor lies within the file.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using moebius::model::TensorInfo;
  // As libFuzzer finds lengths hard to guess, the header's is derived: all of the input, less what
  // the last byte says.
  std::string file(8, '\0');
  if (size > 0 && data[0] == 0) {
    file.assign(reinterpret_cast<const char*>(data) + 1, size - 1);  // the raw bytes
  } else {
    const uint64_t tail = size > 0 ? data[size - 1] : 0;
    const uint64_t length = size > tail ? size - tail : 0;
    for (int i = 0; i < 8; ++i) file[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
    file.append(reinterpret_cast<const char*>(data), size);
  }
  const auto bytes = std::as_bytes(std::span(file.data(), file.size()));
  const auto header = moebius::model::ParseSafetensors(bytes, "fuzz");
  if (!header) return 0;
  size_t sum = header->header_bytes;
  for (const TensorInfo& tensor : header->tensors) {
    if (tensor.offset > file.size() || tensor.num_bytes > file.size() - tensor.offset) abort();
    sum += tensor.num_bytes;
  }
  if (sum != file.size()) abort();
  return 0;
}
