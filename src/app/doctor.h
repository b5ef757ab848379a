// `moebius doctor`: what this machine has, which kernels will run, what to fix. Each check is a
// function from what the system says to one Finding, so that a test can hand it another machine;
// nothing here changes the machine.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/bandwidth.h"
#include "platform/cpu_features.h"
#include "platform/memory.h"
#include "platform/topology.h"

namespace moebius::app {

enum class FindingState {
  kOk,
  kWarning,        // works, but not as it should: `remedy` says what to do
  kNotApplicable,  // this machine has no use for it
};

struct Finding {
  std::string subject;  // "transparent huge pages"
  FindingState state = FindingState::kOk;
  std::string found;   // "madvise"
  std::string remedy;  // a command or a sentence; empty if there is nothing to do
};

struct DoctorOptions {
  std::string root;  // before /proc, /sys and /dev; empty: the real ones
  // Runs a command and returns what it prints; empty output if it is not there or fails. Empty:
  // through the shell, with a bound of 10 s.
  std::function<std::string(const std::string& command)> run;
  bool measure_bandwidth = true;  // takes about a second
};

// All checks of this machine, in the order of printing.
std::vector<Finding> Diagnose(const DoctorOptions& options);

// The text of a file of the system; empty: none that can be read.
std::string ReadText(const std::string& path);

// "ok    memory            23.0 GiB of 23.5 GiB available", the remedy on a line of its own, and a
// closing count.
void PrintFindings(const std::vector<Finding>& findings, std::FILE* out);

// Diagnose and print; what `moebius doctor` does. Warnings are no error.
Status RunDoctor(std::FILE* out, const DoctorOptions& options = {});

// The host's checks.
Finding CheckCpu(const platform::CpuFeatures& features, const Result<platform::Topology>& topology);
Finding CheckCpuFeatures(const platform::CpuFeatures& features);
// chosen: the back end's name or why there is none; missing: operations that it lacks, by name.
Finding CheckKernels(const Result<std::string>& chosen, const std::vector<std::string>& available,
                     const std::vector<std::string>& missing);
Finding CheckAmx(const platform::CpuFeatures& features, const Status& request);
Finding CheckBandwidth(const Result<platform::Bandwidth>& bandwidth, int num_threads);
Finding CheckMemory(const Result<platform::SystemMemory>& memory);
Finding CheckHugePages(const std::string& enabled);  // the file's content; empty: no file
Finding CheckNuma(const Result<platform::Topology>& topology);

}  // namespace moebius::app
