#include "app/doctor_gpu.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

namespace moebius::app {
namespace {

namespace fs = std::filesystem;

constexpr int kMinDriver =
    575;  // multi-node NVLink, and the CUDA 12.9 runtime that wide EP is built with

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::vector<std::string> WordsOf(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

// What follows "key" and a colon on the first line that begins with key.
std::string Field(const std::string& text, std::string_view key) {
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    const std::string trimmed = Trimmed(line);
    if (trimmed.compare(0, key.size(), key) != 0) continue;
    const size_t colon = trimmed.find(':', key.size());
    if (colon != std::string::npos) return Trimmed(trimmed.substr(colon + 1));
  }
  return "";
}

int CountMemoryOnlyNodes(const std::string& root) {
  int count = 0;
  std::error_code error;
  for (const fs::directory_entry& node :
       fs::directory_iterator(root + "/sys/devices/system/node", error)) {
    const std::string cpus = node.path().string() + "/cpulist";
    if (Exists(cpus) && Trimmed(ReadText(cpus)).empty()) ++count;
  }
  return count;
}

bool HasImexChannel(const std::string& root) {
  std::error_code error;
  const fs::directory_iterator channels(root + "/dev/nvidia-caps-imex-channels", error);
  return !error && channels != fs::directory_iterator();
}

bool IsVersion(std::string_view word) {
  const bool digits = std::all_of(word.begin(), word.end(), [](unsigned char character) {
    return std::isdigit(character) != 0 || character == '.';
  });
  return digits && word.size() >= 5 && std::isdigit(static_cast<unsigned char>(word[0])) != 0 &&
         word.find('.') != std::string_view::npos;
}

Finding NotApplicable(std::string subject, std::string found) {
  return {std::move(subject), FindingState::kNotApplicable, std::move(found), ""};
}

}  // namespace

std::vector<std::string> GpuNames(const std::string& root) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& gpu :
       fs::directory_iterator(root + "/proc/driver/nvidia/gpus", error)) {
    names.push_back(Field(ReadText(gpu.path().string() + "/information"), "Model"));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string DriverVersion(const std::string& version_file) {
  for (const std::string& word : WordsOf(Field(version_file, "NVRM version"))) {
    if (IsVersion(word)) return word;
  }
  return "";
}

Finding CheckDriver(const std::string& version_file) {
  if (version_file.empty())
    return NotApplicable("gpu driver", "no NVIDIA driver: the CPU back end runs");
  Finding finding = {"gpu driver", FindingState::kOk, DriverVersion(version_file), ""};
  if (finding.found.empty()) {
    finding.state = FindingState::kWarning;
    finding.found = "loaded, but its version cannot be read";
    finding.remedy = "see /proc/driver/nvidia/version";
  } else if (std::atoi(finding.found.c_str()) < kMinDriver) {
    finding.state = FindingState::kWarning;
    finding.remedy =
        fmt::format("wide expert parallelism over NVLink needs driver {} or newer", kMinDriver);
  }
  return finding;
}

GpuLinks ParseGpuLinks(const std::string& topology) {
  GpuLinks links;
  std::vector<std::vector<std::string>> rows;
  std::istringstream stream(topology);
  for (std::string line; std::getline(stream, line);) {
    // A row begins with its own name; the heading is indented.
    if (line.compare(0, 3, "GPU") == 0) rows.push_back(WordsOf(line));
  }
  links.num_gpus = static_cast<int>(rows.size());
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t column = row + 1; column < rows.size() && column + 1 < rows[row].size(); ++column) {
      const std::string& link = rows[row][column + 1];
      ++links.num_pairs;
      if (link.compare(0, 2, "NV") == 0) {
        ++links.num_nvlink_pairs;
      } else {
        links.slowest = link;
      }
    }
  }
  return links;
}

Finding CheckNvlink(const std::string& topology) {
  const GpuLinks links = ParseGpuLinks(topology);
  if (links.num_gpus == 0) {
    return {
        "nvlink", FindingState::kWarning, "nvidia-smi gives no topology",
        "install the driver's nvidia-smi; in a container: --gpus all with the utility capability"};
  }
  if (links.num_gpus == 1) return NotApplicable("nvlink", "one GPU");
  Finding finding = {"nvlink", FindingState::kOk,
                     fmt::format("{} of {} pairs of {} GPUs", links.num_nvlink_pairs,
                                 links.num_pairs, links.num_gpus),
                     ""};
  if (links.num_nvlink_pairs < links.num_pairs) {
    finding.state = FindingState::kWarning;
    finding.remedy = fmt::format(
        "the other pairs exchange over {} and are many times slower: keep the ranks of one expert "
        "group on GPUs that "
        "share NVLink (CUDA_VISIBLE_DEVICES)",
        links.slowest);
  }
  return finding;
}

Finding CheckFabric(const std::string& query) {
  // Each GPU has a section "Fabric" with a line "State : Completed"; without NVSwitch it says N/A.
  std::istringstream stream(query);
  bool in_fabric = false;
  int num_completed = 0;
  int num_gpus = 0;
  std::string other;
  for (std::string line; std::getline(stream, line);) {
    const std::string trimmed = Trimmed(line);
    if (trimmed == "Fabric") {
      in_fabric = true;
    } else if (in_fabric && trimmed.compare(0, 5, "State") == 0) {
      const std::string state = Field(trimmed, "State");
      in_fabric = false;
      if (state == "N/A") continue;
      ++num_gpus;
      if (state == "Completed") {
        ++num_completed;
      } else {
        other = state;
      }
    }
  }
  if (num_gpus == 0) return NotApplicable("nvlink fabric", "no NVSwitch");
  Finding finding = {"nvlink fabric", FindingState::kOk,
                     fmt::format("completed on {} of {} GPUs", num_completed, num_gpus), ""};
  if (num_completed < num_gpus) {
    finding.state = FindingState::kWarning;
    finding.found += fmt::format("; another says '{}'", other);
    finding.remedy =
        "GPUs behind NVSwitch need their manager: systemctl start nvidia-fabricmanager";
  }
  return finding;
}

bool IsCoherent(const std::vector<std::string>& gpu_names) {
  return std::any_of(gpu_names.begin(), gpu_names.end(), [](const std::string& name) {
    for (const char* chip : {"GH200", "GB200", "GB300"}) {
      if (name.find(chip) != std::string::npos) return true;
    }
    return false;
  });
}

Finding CheckImex(bool coherent, bool has_channel) {
  if (has_channel) return {"imex channel", FindingState::kOk, "/dev/nvidia-caps-imex-channels", ""};
  if (!coherent)
    return NotApplicable("imex channel", "only for NVLink across hosts (GB200, GB300)");
  return {"imex channel", FindingState::kWarning, "no /dev/nvidia-caps-imex-channels/channel0",
          "NVLink between hosts needs one: load the driver with NVreg_CreateImexChannel0=1 and "
          "start nvidia-imex; in a "
          "container: --device /dev/nvidia-caps-imex-channels/channel0"};
}

Finding CheckGdrCopy(bool has_device, bool coherent, bool cdmm) {
  if (has_device) return {"gdrcopy", FindingState::kOk, "/dev/gdrdrv", ""};
  if (coherent && cdmm) {
    return {"gdrcopy", FindingState::kWarning, "no /dev/gdrdrv",
            "with CDMM the host reaches GPU memory only through it: install gdrcopy and load "
            "gdrdrv; in a container: "
            "--device /dev/gdrdrv"};
  }
  return NotApplicable("gdrcopy", "no /dev/gdrdrv; weights move between GPUs without it");
}

bool IsCdmm(const std::string& params, int gpu_memory_nodes) {
  const std::string mode = Field(params, "CoherentGPUMemoryMode");
  if (mode == "\"driver\"") return true;
  if (mode == "\"numa\"") return false;
  return gpu_memory_nodes == 0;  // no wish was given: what the driver did shows in the nodes
}

Finding CheckCdmm(bool coherent, bool cdmm, bool has_gdrcopy) {
  if (!coherent)
    return NotApplicable("cdmm", "only where CPU and GPU share memory (GH200, GB200, GB300)");
  if (!cdmm) return {"cdmm", FindingState::kOk, "off: GPU memory is in NUMA nodes", ""};
  Finding finding = {"cdmm", FindingState::kOk, "on: the driver keeps GPU memory to itself", ""};
  if (!has_gdrcopy) {
    finding.state = FindingState::kWarning;
    finding.remedy =
        "host threads cannot write GPU memory now: load gdrdrv, or "
        "NVreg_CoherentGPUMemoryMode=numa";
  }
  return finding;
}

std::vector<Finding> CheckGpus(const DoctorOptions& options) {
  const std::string version = ReadText(options.root + "/proc/driver/nvidia/version");
  Finding driver = CheckDriver(version);
  if (version.empty()) return {driver};  // nothing below means anything without one
  const std::vector<std::string> names = GpuNames(options.root);
  const std::string params = ReadText(options.root + "/proc/driver/nvidia/params");
  const bool coherent = IsCoherent(names);
  const bool cdmm = coherent && IsCdmm(params, CountMemoryOnlyNodes(options.root));
  const bool has_gdrcopy = Exists(options.root + "/dev/gdrdrv");

  Finding gpus = {"gpus", FindingState::kOk, fmt::format("{}", names.size()), ""};
  if (names.empty()) {
    gpus.state = FindingState::kWarning;
    gpus.remedy = "the driver sees none; in a container: --gpus all";
  } else {
    gpus.found += " x " + names.front();
  }
  return {gpus,
          driver,
          CheckNvlink(options.run ? options.run("nvidia-smi topo -m") : ""),
          CheckFabric(options.run ? options.run("nvidia-smi -q") : ""),
          CheckImex(coherent, HasImexChannel(options.root)),
          CheckGdrCopy(has_gdrcopy, coherent, cdmm),
          CheckCdmm(coherent, cdmm, has_gdrcopy)};
}

}  // namespace moebius::app
