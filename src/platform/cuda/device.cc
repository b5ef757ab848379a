#include "platform/cuda/device.h"

#include <cuda_runtime_api.h>

namespace moebius::platform::cuda {
namespace {

ErrorCode CodeOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return ErrorCode::kOutOfMemory;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
      return ErrorCode::kUnavailable;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
      return ErrorCode::kInvalidArgument;
    case cudaErrorNotSupported:
    case cudaErrorNotPermitted:
      return ErrorCode::kUnsupported;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Status ToStatus(int error, const char* what) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return {};
  cudaGetLastError();  // one that does not stay must not be seen again by the next launch
  return MakeError(CodeOf(code), "CUDA: {}: {} ({})", what, cudaGetErrorString(code),
                   cudaGetErrorName(code));
}

Result<int> DeviceCount() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return 0;
  }
  MOEBIUS_TRY(ToStatus(error, "counting devices"));
  return count;
}

Result<DeviceInfo> SelectDevice(int device) {
  MOEBIUS_TRY(ToStatus(cudaSetDevice(device), "selecting the device"));
  return CurrentDevice();
}

Result<DeviceInfo> DescribeDevice(int device) {
  cudaDeviceProp properties;
  MOEBIUS_TRY(ToStatus(cudaGetDeviceProperties(&properties, device), "reading the device"));
  DeviceInfo info;
  info.name = properties.name;
  info.num_multiprocessors = properties.multiProcessorCount;
  info.major = properties.major;
  info.minor = properties.minor;
  info.l2_bytes = static_cast<size_t>(properties.l2CacheSize);
  info.total_bytes = properties.totalGlobalMem;
  return info;
}

Result<DeviceInfo> CurrentDevice() {
  int device = 0;
  MOEBIUS_TRY(ToStatus(cudaGetDevice(&device), "asking which device is current"));
  MOEBIUS_ASSIGN(DeviceInfo info, DescribeDevice(device));
  MOEBIUS_TRY(ToStatus(cudaMemGetInfo(&info.free_bytes, &info.total_bytes),
                       "reading the device's free memory"));
  return info;
}

Status CheckLink(int peer) {
  int device = 0;
  int can = 0;
  MOEBIUS_TRY(ToStatus(cudaGetDevice(&device), "asking which device is current"));
  if (peer == device) return {};
  MOEBIUS_TRY(ToStatus(cudaDeviceCanAccessPeer(&can, device, peer), "asking for peer access"));
  if (can != 0) return {};
  return MakeError(ErrorCode::kUnsupported,
                   "GPU {} cannot address the memory of GPU {}, expected GPUs that are linked",
                   device, peer);
}

Status EnablePeerAccess(int peer) {
  MOEBIUS_TRY(CheckLink(peer));
  int device = 0;
  MOEBIUS_TRY(ToStatus(cudaGetDevice(&device), "asking which device is current"));
  if (peer == device) return {};
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return {};
  }
  return ToStatus(error, "enabling peer access");
}

}  // namespace moebius::platform::cuda
