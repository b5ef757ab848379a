// The GPU's part of `moebius doctor`: driver, NVLink, and what wide expert parallelism needs beside
// them. Reads what the driver shows under /proc and /dev and asks nvidia-smi; needs no CUDA.
#pragma once

#include <string>
#include <vector>

#include "app/doctor.h"

namespace moebius::app {

std::vector<Finding> CheckGpus(const DoctorOptions& options);

// The models in /proc/driver/nvidia/gpus/*/information under `root`, one a GPU, sorted.
std::vector<std::string> GpuNames(const std::string& root = "");

// The parts, from the texts that the system has for them.

// /proc/driver/nvidia/version -> "575.57.08"; empty if the text names none.
std::string DriverVersion(const std::string& version_file);
Finding CheckDriver(const std::string& version_file);

// The links between GPUs in `nvidia-smi topo -m`.
struct GpuLinks {
  int num_gpus = 0;
  int num_pairs = 0;         // unordered
  int num_nvlink_pairs = 0;  // connected by NVLink ("NV18")
  std::string slowest;  // the name of a connection without NVLink ("SYS", "PHB"), if there is one
};
GpuLinks ParseGpuLinks(const std::string& topology);
Finding CheckNvlink(const std::string& topology);
// The fabric's states in `nvidia-smi -q`; GPUs behind NVSwitch reach each other only when it says
// "Completed".
Finding CheckFabric(const std::string& query);

// A GPU that shares one coherent memory with its CPU (GH200, GB200, GB300), by the names of the
// GPUs.
bool IsCoherent(const std::vector<std::string>& gpu_names);
Finding CheckImex(bool coherent, bool has_channel);
Finding CheckGdrCopy(bool has_device, bool coherent, bool cdmm);
// params: /proc/driver/nvidia/params. gpu_memory_nodes: NUMA nodes with memory and no CPU.
bool IsCdmm(const std::string& params, int gpu_memory_nodes);
Finding CheckCdmm(bool coherent, bool cdmm, bool has_gdrcopy);

}  // namespace moebius::app
