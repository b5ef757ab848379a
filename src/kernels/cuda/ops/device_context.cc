#include "kernels/cuda/ops/device_context.h"

#include <utility>

#include "platform/cuda/device.h"

namespace moebius::kernels::cuda {

void DeviceContext::Check(int code, const char* op) {
  if (code == 0 || error) return;
  error = platform::cuda::ToStatus(code, op).error();
}

void DeviceContext::Check(const char* text, const char* op) {
  if (text == nullptr || error) return;
  error = Error(ErrorCode::kInternal, fmt::format("CUDA: {}: {}", op, text));
}

Status DeviceContext::TakeError() {
  if (!error) return {};
  return tl::unexpected(*std::exchange(error, std::nullopt));
}

}  // namespace moebius::kernels::cuda
