#include "platform/cuda/shareable_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/math.h"
#include "platform/cuda/device.h"
#include "platform/cuda/memory.h"

namespace moebius::platform::cuda {
namespace {

constexpr CUmemAllocationHandleType kDescriptor = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

// The driver's functions, which are looked for at run time as no program links the driver.
struct Driver {
  decltype(&cuDeviceGetAttribute) device_attribute = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemRetainAllocationHandle) retain = nullptr;
  decltype(&cuMemExportToShareableHandle) export_handle = nullptr;
  decltype(&cuMemImportFromShareableHandle) import_handle = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free_address = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
};

template <typename Function>
Status Find(const char* name, Function* function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  MOEBIUS_TRY(ToStatus(
      cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result), name));
  if (result != cudaDriverEntryPointSuccess) {
    return MakeError(ErrorCode::kUnsupported, "the driver has no {}, expected one for CUDA 12",
                     name);
  }
  *function = reinterpret_cast<Function>(found);
  return {};
}

Result<Driver> FindDriver() {
  Driver driver;
  MOEBIUS_TRY(Find("cuDeviceGetAttribute", &driver.device_attribute));
  MOEBIUS_TRY(Find("cuMemGetAllocationGranularity", &driver.granularity));
  MOEBIUS_TRY(Find("cuMemCreate", &driver.create));
  MOEBIUS_TRY(Find("cuMemRelease", &driver.release));
  MOEBIUS_TRY(Find("cuMemRetainAllocationHandle", &driver.retain));
  MOEBIUS_TRY(Find("cuMemExportToShareableHandle", &driver.export_handle));
  MOEBIUS_TRY(Find("cuMemImportFromShareableHandle", &driver.import_handle));
  MOEBIUS_TRY(Find("cuMemAddressReserve", &driver.reserve));
  MOEBIUS_TRY(Find("cuMemAddressFree", &driver.free_address));
  MOEBIUS_TRY(Find("cuMemMap", &driver.map));
  MOEBIUS_TRY(Find("cuMemUnmap", &driver.unmap));
  MOEBIUS_TRY(Find("cuMemSetAccess", &driver.set_access));
  return driver;
}

const Result<Driver>& TheDriver() {
  static const Result<Driver> driver = FindDriver();
  return driver;
}

// The run time's errors have the driver's numbers.
Status DriverStatus(CUresult result, const char* what) {
  return ToStatus(static_cast<int>(result), what);
}

Result<int> CurrentNumber() {
  int device = 0;
  MOEBIUS_TRY(ToStatus(cudaGetDevice(&device), "asking which device is current"));
  return device;
}

Status Allow(const Driver& driver, const std::byte* data, size_t size, int device) {
  const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
                                  .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  const std::string what = fmt::format("letting GPU {} address {} bytes", device, size);
  return DriverStatus(driver.set_access(reinterpret_cast<CUdeviceptr>(data), size, &access, 1),
                      what.c_str());
}

}  // namespace

// Takes the handle: the mapping keeps the memory.
Result<ShareableMemory> ShareableMemory::Map(unsigned long long handle, size_t size, int device) {
  const Driver& driver = *TheDriver();
  CUdeviceptr address = 0;
  CUresult result = driver.reserve(&address, size, 0, 0, 0);
  if (result == CUDA_SUCCESS) {
    result = driver.map(address, size, 0, handle, 0);
    if (result != CUDA_SUCCESS) driver.free_address(address, size);
  }
  driver.release(handle);
  const std::string what = fmt::format("mapping {} bytes of device memory", size);
  MOEBIUS_TRY(DriverStatus(result, what.c_str()));
  ShareableMemory memory(reinterpret_cast<std::byte*>(address), size, device);
  MOEBIUS_TRY(Allow(driver, memory.data_, size, device));
  return memory;
}

Result<ShareableMemory> ShareableMemory::Allocate(size_t num_bytes) {
  if (num_bytes == 0) return ShareableMemory();
  MOEBIUS_ASSIGN(const int device, CurrentNumber());
  MOEBIUS_ASSIGN(const Driver driver, TheDriver());
  // Threads of one process share it in any case.
  int exports = 0;
  MOEBIUS_TRY(DriverStatus(
      driver.device_attribute(
          &exports, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device),
      "asking what the device can share"));
  CUmemAllocationProp wanted = {};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.requestedHandleTypes = exports != 0 ? kDescriptor : CU_MEM_HANDLE_TYPE_NONE;
  wanted.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  size_t page = 0;
  MOEBIUS_TRY(DriverStatus(driver.granularity(&page, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                           "asking for the size of pages"));
  const size_t size = RoundUp(num_bytes, page);
  CUmemGenericAllocationHandle handle = 0;
  MOEBIUS_TRY(AllocationStatus(static_cast<int>(driver.create(&handle, size, &wanted, 0)), size,
                               "shareable device"));
  return Map(handle, size, device);
}

Result<ShareableMemory> ShareableMemory::Import(const FileDescriptor& descriptor, size_t size) {
  MOEBIUS_ASSIGN(const int device, CurrentNumber());
  MOEBIUS_ASSIGN(const Driver driver, TheDriver());
  CUmemGenericAllocationHandle handle = 0;
  // The driver wants the number of the descriptor where a pointer stands.
  void* const number = reinterpret_cast<void*>(static_cast<uintptr_t>(descriptor.get()));
  MOEBIUS_TRY(DriverStatus(driver.import_handle(&handle, number, kDescriptor),
                           "importing another process's device memory"));
  return Map(handle, size, device);
}

Result<FileDescriptor> ShareableMemory::Export() const {
  MOEBIUS_CHECK(data_ != nullptr);
  const Driver& driver = *TheDriver();
  CUmemGenericAllocationHandle handle = 0;
  MOEBIUS_TRY(DriverStatus(driver.retain(&handle, data_), "finding device memory by its address"));
  int descriptor = -1;
  const CUresult result = driver.export_handle(&descriptor, handle, kDescriptor, 0);
  driver.release(handle);
  MOEBIUS_TRY(DriverStatus(result, "exporting device memory to other processes"));
  return FileDescriptor(descriptor);
}

ShareableMemory::ShareableMemory(ShareableMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      device_(other.device_) {}

ShareableMemory& ShareableMemory::operator=(ShareableMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(device_, other.device_);
  return *this;
}

ShareableMemory::~ShareableMemory() {
  if (data_ == nullptr) return;
  int current = device_;
  cudaGetDevice(&current);
  if (current != device_) cudaSetDevice(device_);
  cudaDeviceSynchronize();
  if (current != device_) cudaSetDevice(current);
  const Driver& driver = *TheDriver();
  driver.unmap(reinterpret_cast<CUdeviceptr>(data_), size_);
  driver.free_address(reinterpret_cast<CUdeviceptr>(data_), size_);
}

Status LetCurrentDevice(std::byte* data, size_t size) {
  MOEBIUS_ASSIGN(const int device, CurrentNumber());
  MOEBIUS_ASSIGN(const Driver driver, TheDriver());
  return Allow(driver, data, size, device);
}

}  // namespace moebius::platform::cuda
