#include "app/doctor_gpu.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace moebius::app {
namespace {

constexpr char kClosedModule[] =
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
constexpr char kOpenModule[] =
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build  "
    "(dvs-builder)\n"
    "GCC version:  gcc version 13.3.0\n";

constexpr char kTwoGpus[] =
    "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tNODE\t0-47\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tSYS\t0-47\t0\t\tN/A\n"
    "NIC0\tNODE\tSYS\t X \t\t\t\t\n"
    "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n";
constexpr char kThreeGpusTwoLinked[] =
    "\tGPU0\tGPU1\tGPU2\tCPU Affinity\n"
    "GPU0\t X \tNV4\tSYS\t0-15\n"
    "GPU1\tNV4\t X \tSYS\t0-15\n"
    "GPU2\tSYS\tSYS\t X \t16-31\n";

TEST(DoctorGpu, ReadsTheDriversVersion) {
  EXPECT_EQ(DriverVersion(kClosedModule), "550.90.07");
  EXPECT_EQ(DriverVersion(kOpenModule), "580.65.06");
  EXPECT_EQ(DriverVersion("NVRM version: something else\n"), "");
  EXPECT_EQ(CheckDriver("").state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckDriver("unreadable").state, FindingState::kWarning);
  EXPECT_EQ(CheckDriver(kClosedModule).state, FindingState::kWarning);
  EXPECT_NE(CheckDriver(kClosedModule).remedy.find("575"), std::string::npos);
  EXPECT_EQ(CheckDriver(kOpenModule).state, FindingState::kOk);
}

TEST(DoctorGpu, CountsPairsWithNvlink) {
  const GpuLinks two = ParseGpuLinks(kTwoGpus);
  EXPECT_EQ(two.num_gpus, 2);
  EXPECT_EQ(two.num_pairs, 1);
  EXPECT_EQ(two.num_nvlink_pairs, 1);
  EXPECT_EQ(CheckNvlink(kTwoGpus).state, FindingState::kOk);

  const GpuLinks three = ParseGpuLinks(kThreeGpusTwoLinked);
  EXPECT_EQ(three.num_pairs, 3);
  EXPECT_EQ(three.num_nvlink_pairs, 1);
  const Finding finding = CheckNvlink(kThreeGpusTwoLinked);
  EXPECT_EQ(finding.state, FindingState::kWarning);
  EXPECT_EQ(finding.found, "1 of 3 pairs of 3 GPUs");
  EXPECT_NE(finding.remedy.find("over SYS"), std::string::npos);

  EXPECT_EQ(CheckNvlink("\tGPU0\tCPU Affinity\nGPU0\t X \t0-15\n").state,
            FindingState::kNotApplicable);
  EXPECT_EQ(CheckNvlink("").state, FindingState::kWarning);
}

TEST(DoctorGpu, AFabricThatIsNotReadyNeedsItsManager) {
  const std::string ready = "    Fabric\n        State                             : Completed\n";
  const std::string waiting =
      "    Fabric\n        State                             : In Progress\n";
  const std::string none = "    Fabric\n        State                             : N/A\n";
  EXPECT_EQ(CheckFabric(ready + ready).state, FindingState::kOk);
  EXPECT_EQ(CheckFabric(ready + waiting).state, FindingState::kWarning);
  EXPECT_NE(CheckFabric(ready + waiting).found.find("1 of 2"), std::string::npos);
  EXPECT_EQ(CheckFabric(none).state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckFabric("").state, FindingState::kNotApplicable);
}

TEST(DoctorGpu, CoherentMachinesNeedMore) {
  EXPECT_TRUE(IsCoherent({"NVIDIA GB200"}));
  EXPECT_TRUE(IsCoherent({"NVIDIA GH200 480GB"}));
  EXPECT_FALSE(IsCoherent({"NVIDIA H200"}));

  EXPECT_EQ(CheckImex(false, false).state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckImex(true, false).state, FindingState::kWarning);
  EXPECT_EQ(CheckImex(true, true).state, FindingState::kOk);

  EXPECT_EQ(CheckGdrCopy(false, false, false).state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckGdrCopy(false, true, true).state, FindingState::kWarning);
  EXPECT_EQ(CheckGdrCopy(true, true, true).state, FindingState::kOk);

  EXPECT_EQ(CheckCdmm(false, true, false).state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckCdmm(true, false, false).state, FindingState::kOk);
  EXPECT_EQ(CheckCdmm(true, true, true).state, FindingState::kOk);
  EXPECT_EQ(CheckCdmm(true, true, false).state, FindingState::kWarning);
}

TEST(DoctorGpu, CdmmIsTheParameterOrWhatTheNodesShow) {
  EXPECT_TRUE(IsCdmm("CoherentGPUMemoryMode: \"driver\"\nEnableMSI: 1\n", 1));
  EXPECT_FALSE(IsCdmm("CoherentGPUMemoryMode: \"numa\"\n", 0));
  EXPECT_TRUE(IsCdmm("CoherentGPUMemoryMode: \"\"\n", 0));
  EXPECT_FALSE(IsCdmm("EnableMSI: 1\n", 4));
}

class DoctorGpuTree : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "doctor_gpu_XXXXXX";
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
    options_.root = root_;
    options_.run = [](const std::string& command) {
      return command == "nvidia-smi topo -m" ? std::string(kTwoGpus) : std::string();
    };
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& content) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }
  Finding Find(const std::string& subject) const {
    for (Finding& finding : CheckGpus(options_)) {
      if (finding.subject == subject) return finding;
    }
    ADD_FAILURE() << "no finding about " << subject;
    return {};
  }

  std::string root_;
  DoctorOptions options_;
};

TEST_F(DoctorGpuTree, WithoutADriverThereIsOneLine) {
  const std::vector<Finding> findings = CheckGpus(options_);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].state, FindingState::kNotApplicable);
}

TEST_F(DoctorGpuTree, AGraceBlackwellHostInCdmmMode) {
  Write("/proc/driver/nvidia/version", kOpenModule);
  Write("/proc/driver/nvidia/params", "CoherentGPUMemoryMode: \"driver\"\n");
  Write("/proc/driver/nvidia/gpus/0008:01:00.0/information",
        "Model: \t\t NVIDIA GB200\nIRQ:   0\n");
  Write("/proc/driver/nvidia/gpus/0009:01:00.0/information",
        "Model: \t\t NVIDIA GB200\nIRQ:   0\n");
  EXPECT_EQ(Find("gpus").found, "2 x NVIDIA GB200");
  EXPECT_EQ(Find("nvlink").found, "1 of 1 pairs of 2 GPUs");
  EXPECT_EQ(Find("imex channel").state, FindingState::kWarning);
  EXPECT_EQ(Find("gdrcopy").state, FindingState::kWarning);
  EXPECT_EQ(Find("cdmm").state, FindingState::kWarning);

  Write("/dev/nvidia-caps-imex-channels/channel0", "");
  Write("/dev/gdrdrv", "");
  EXPECT_EQ(Find("imex channel").state, FindingState::kOk);
  EXPECT_EQ(Find("gdrcopy").state, FindingState::kOk);
  EXPECT_EQ(Find("cdmm").state, FindingState::kOk);
}

TEST_F(DoctorGpuTree, ADriversMemoryNodesSayThatCdmmIsOff) {
  Write("/proc/driver/nvidia/version", kOpenModule);
  Write("/proc/driver/nvidia/params", "CoherentGPUMemoryMode: \"\"\n");
  Write("/proc/driver/nvidia/gpus/0008:01:00.0/information", "Model: NVIDIA GH200 480GB\n");
  Write("/sys/devices/system/node/node0/cpulist", "0-71\n");
  Write("/sys/devices/system/node/node1/cpulist", "\n");
  EXPECT_EQ(Find("cdmm").found, "off: GPU memory is in NUMA nodes");
}

TEST_F(DoctorGpuTree, AHopperHostNeedsNoneOfThat) {
  Write("/proc/driver/nvidia/version", kOpenModule);
  Write("/proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: NVIDIA H200\n");
  EXPECT_EQ(Find("imex channel").state, FindingState::kNotApplicable);
  EXPECT_EQ(Find("gdrcopy").state, FindingState::kNotApplicable);
  EXPECT_EQ(Find("cdmm").state, FindingState::kNotApplicable);
}

}  // namespace
}  // namespace moebius::app
