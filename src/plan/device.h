// A GPU and the links between GPUs, as numbers with their source. Built-in ones by name, others
// from a YAML file. Plain values, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::plan {

// Where a number comes from, the surest first.
enum class Basis : uint8_t {
  kMeasured,      // read on this device at this shape
  kInterpolated,  // a share of the peak measured on this device, or on those that SharesFrom names,
                  // applied to another shape
  kRoofline,      // max(operations / peak, bytes / bandwidth) with assumed efficiency
};
const char* BasisName(Basis basis);

struct Device {
  std::string name;   // "h200"
  std::string title;  // "NVIDIA H200 SXM 141 GB"
  double hbm_bytes = 0;
  double hbm_bandwidth = 0;  // bytes/s, datasheet
  double bf16_flops = 0;     // dense, datasheet
  double fp8_flops = 0;
  double fp4_flops = 0;        // 0: none (weights are expanded to the next wider type)
  double link_bandwidth = 0;   // bytes/s one way inside a node (NVLink, xGMI)
  double node_bandwidth = 0;   // bytes/s one way between nodes, a GPU
  double link_latency_us = 0;  // of one small exchange, inside a node
  double node_latency_us = 0;  // between nodes, what comes on top
  int gpus_per_node = 8;       // one NVLink domain (72 for NVL72)
  // Shares of the peaks that real kernels reach where no measured shape is near, and what says so.
  double memory_efficiency = 0.8;
  double gemm_efficiency = 0.7;
  double attention_efficiency = 0.6;
  double link_efficiency = 0.75;
  double node_efficiency = 0.8;
  Basis basis = Basis::kRoofline;  // of memory and link efficiency; the others' is kRoofline
  double launch_us = 0;            // of one operation in a captured graph: gap, start, drain
  // The built-in device whose measured shapes (measured.h) speak for this one; empty: none does.
  std::string measured_as;
};

// h100, h800, h200, h20, b200, gb200, gb300, rtx6000d, mi300x; or a path to a YAML file with the
// keys above (`base: h200` starts from a built-in one, `name` is the file's unless given). Errors
// name file, line, key, what was found and what was expected, and the nearest key or name.
Result<Device> LoadDevice(const std::string& name_or_file);
// One that the program brings along: there is no error.
Device KnownDevice(const std::string& name);
std::vector<std::string> KnownDevices();

// Whose measured shares "interpolated" stands for on this device, for a legend: "h200 and h800
// (none on h100 itself)"; empty where nothing measured speaks for it.
std::string SharesFrom(const Device& device);

}  // namespace moebius::plan
