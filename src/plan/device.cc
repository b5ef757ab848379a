#include "plan/device.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/suggest.h"
#include "plan/device_file.h"

namespace moebius::plan {
namespace {

constexpr double kTera = 1e12;
constexpr double kGiga = 1e9;

// Peaks are dense datasheet figures without sparsity. Shares on the H200 are our own readings
// (4 x H200, CUDA 13): copy 4.27 of 4.8 TB/s; bf16 8192^3 782 of 989 TFLOP/s, fp8 1438 of 1979;
// all-to-all by peer stores 356 of 450 GB/s. Latencies of a small exchange: DeepEP's low-latency
// kernels at one token on H200 (12 us), the one-sided kernels on GB200 (19 us). Links between nodes
// are 400 Gb/s a GPU unless said; the share is what DeepEP's low-latency kernels reach on them.
Device H200() {
  Device d;
  d.name = "h200";
  d.title = "NVIDIA H200 SXM 141 GB";
  d.hbm_bytes = 141 * kGiga;
  d.hbm_bandwidth = 4.8 * kTera;
  d.bf16_flops = 989.5 * kTera;
  d.fp8_flops = 1979 * kTera;
  d.link_bandwidth = 450 * kGiga;
  d.node_bandwidth = 50 * kGiga;
  d.link_latency_us = 12;
  d.node_latency_us = 12;
  d.memory_efficiency = 0.89;
  d.gemm_efficiency = 0.73;
  d.attention_efficiency = 0.67;  // FlashMLA: 660 of 989 TFLOP/s on H800
  d.link_efficiency = 0.79;
  d.node_efficiency = 0.9;
  d.basis = Basis::kInterpolated;
  d.launch_us = 2.5;
  d.measured_as = "h200";
  return d;
}

// Copies and links were not read on others of the family.
Device Relative(Device d) {
  d.basis = Basis::kRoofline;
  return d;
}

// The H200 with less and slower memory (NVIDIA H100 datasheet).
Device H100() {
  Device d = Relative(H200());
  d.name = "h100";
  d.title = "NVIDIA H100 SXM 80 GB";
  d.hbm_bytes = 80 * kGiga;
  d.hbm_bandwidth = 3.35 * kTera;
  return d;
}

// The H100 with 8 instead of 18 links.
Device H800() {
  Device d = H100();
  d.name = "h800";
  d.title = "NVIDIA H800 SXM 80 GB";
  d.link_bandwidth = 200 * kGiga;
  return d;
}

// Hopper with 78 of 132 multiprocessors and full memory and links (published summaries; 96 GB).
Device H20() {
  Device d = Relative(H200());
  d.name = "h20";
  d.title = "NVIDIA H20 96 GB";
  d.hbm_bytes = 96 * kGiga;
  d.hbm_bandwidth = 4.0 * kTera;
  d.bf16_flops = 148 * kTera;
  d.fp8_flops = 296 * kTera;
  d.gemm_efficiency = 0.85;  // little arithmetic beside the memory: nearer its peak than an H200
  d.attention_efficiency = 0.85;
  d.measured_as.clear();
  return d;
}

// NVIDIA GB200 NVL72: per GPU half of a GB200's figures; one NVLink domain of 72; 185 GiB usable.
Device Gb200() {
  Device d;
  d.name = "gb200";
  d.title = "NVIDIA GB200 NVL72 (one of 72 GPUs)";
  d.hbm_bytes = 185.0 * 1024 * 1024 * 1024;
  d.hbm_bandwidth = 8 * kTera;
  d.bf16_flops = 2500 * kTera;
  d.fp8_flops = 5000 * kTera;
  d.fp4_flops = 10000 * kTera;
  d.link_bandwidth = 900 * kGiga;
  d.node_bandwidth = 50 * kGiga;
  d.link_latency_us = 19;
  d.node_latency_us = 12;
  d.gpus_per_node = 72;
  d.memory_efficiency = 0.85;
  d.gemm_efficiency = 0.7;
  d.attention_efficiency = 0.55;  // from the slope of summed step times over context (measured.cc)
  d.link_efficiency = 0.8;        // one-sided kernels at 2048 tokens, EP8
  d.node_efficiency = 0.9;
  d.launch_us = 2.5;
  d.measured_as = "gb200";
  return d;
}

// NVIDIA DGX/HGX B200: 8 GPUs a node; datasheet 4.5 PFLOP/s fp8, 9 fp4 dense, 8 TB/s, 180 GB.
Device B200() {
  Device d = Gb200();
  d.name = "b200";
  d.title = "NVIDIA B200 SXM 180 GB";
  d.hbm_bytes = 180 * kGiga;
  d.bf16_flops = 2250 * kTera;
  d.fp8_flops = 4500 * kTera;
  d.fp4_flops = 9000 * kTera;
  d.gpus_per_node = 8;
  return d;
}

// NVIDIA GB300 NVL72: 288 GB (about 277 usable), fp4 at 1.5 times the GB200.
Device Gb300() {
  Device d = Gb200();
  d.name = "gb300";
  d.title = "NVIDIA GB300 NVL72 (one of 72 GPUs)";
  d.hbm_bytes = 277 * kGiga;
  d.fp4_flops = 15000 * kTera;
  d.node_bandwidth = 100 * kGiga;  // ConnectX-8
  return d;
}

// A PCIe workstation card (Blackwell, GDDR7) made for one market; figures from press summaries, to
// be replaced by a file where known better. Cards of a host meet over PCIe 5.
Device Rtx6000d() {
  Device d;
  d.name = "rtx6000d";
  d.title = "NVIDIA RTX 6000D 84 GB";
  d.hbm_bytes = 84 * kGiga;
  d.hbm_bandwidth = 1.4 * kTera;
  d.bf16_flops = 148 * kTera;
  d.fp8_flops = 296 * kTera;
  d.fp4_flops = 592 * kTera;
  d.link_bandwidth = 55 * kGiga;
  d.node_bandwidth = 25 * kGiga;
  d.link_latency_us = 25;
  d.node_latency_us = 15;
  d.memory_efficiency = 0.85;
  d.gemm_efficiency = 0.75;
  d.attention_efficiency = 0.7;
  d.link_efficiency = 0.75;
  d.launch_us = 3;
  return d;
}

// AMD Instinct MI300X datasheet: 192 GB, 5.3 TB/s, 1307 / 2615 TFLOP/s; seven xGMI links of 64 GB/s
// one way. No measurement of ours or on the reference pages: all shares are assumed, below those of
// the H200 because published kernels reach less of these peaks.
Device Mi300x() {
  Device d;
  d.name = "mi300x";
  d.title = "AMD Instinct MI300X 192 GB";
  d.hbm_bytes = 192 * kGiga;
  d.hbm_bandwidth = 5.3 * kTera;
  d.bf16_flops = 1307 * kTera;
  d.fp8_flops = 2615 * kTera;
  d.link_bandwidth = 448 * kGiga;
  d.node_bandwidth = 50 * kGiga;
  d.link_latency_us = 20;
  d.node_latency_us = 15;
  d.memory_efficiency = 0.75;
  d.gemm_efficiency = 0.45;
  d.attention_efficiency = 0.4;
  d.link_efficiency = 0.7;
  d.launch_us = 4;
  return d;
}

const std::vector<Device>& BuiltIn() {
  static const std::vector<Device> devices = {H100(),  H800(),  H200(),     H20(),   B200(),
                                              Gb200(), Gb300(), Rtx6000d(), Mi300x()};
  return devices;
}

}  // namespace

const char* BasisName(Basis basis) {
  switch (basis) {
    case Basis::kMeasured:
      return "measured";
    case Basis::kInterpolated:
      return "interpolated";
    case Basis::kRoofline:
      return "roofline";
  }
  return "";
}

std::string SharesFrom(const Device& device) {
  if (device.measured_as.empty()) return "";
  // Products and exchanges of Hopper were partly read on the H800 (measured.cc).
  const bool hopper = device.measured_as == "h200";
  const std::string from = hopper ? "h200 and h800" : device.measured_as;
  const bool own = device.name == device.measured_as || (hopper && device.name == "h800");
  return own ? from : fmt::format("{} (none on {} itself)", from, device.name);
}

std::vector<std::string> KnownDevices() {
  std::vector<std::string> names;
  for (const Device& device : BuiltIn()) names.push_back(device.name);
  return names;
}

Result<Device> LoadDevice(const std::string& name_or_file) {
  for (const Device& device : BuiltIn()) {
    if (device.name == name_or_file) return device;
  }
  if (LooksLikeDeviceFile(name_or_file)) return ReadDeviceFile(name_or_file);
  return MakeError(ErrorCode::kInvalidArgument,
                   "--device is '{}'{}, expected one of {}, or a .yaml file", name_or_file,
                   DidYouMean(name_or_file, KnownDevices()), fmt::join(KnownDevices(), ", "));
}

Device KnownDevice(const std::string& name) {
  Result<Device> device = LoadDevice(name);
  MOEBIUS_CHECK(device.has_value());
  return *std::move(device);
}

}  // namespace moebius::plan
