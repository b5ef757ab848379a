#include "app/doctor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace moebius::app {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

tl::unexpected<Error> Failure(const char* message) {
  return MakeError(ErrorCode::kUnavailable, "{}", message);
}

TEST(Doctor, CpuNamesModelAndCaches) {
  platform::CpuFeatures features;
  features.model = "Some Xeon";
  const Finding finding =
      CheckCpu(features, platform::TopologyFromSynthetic(
                             "package:2 l3:1(size=34603008) l2:4(size=524288) core:1 pu:2"));
  EXPECT_EQ(finding.state, FindingState::kOk);
  EXPECT_EQ(finding.found,
            "Some Xeon; 2 socket(s), 8 cores, 16 threads; L2 8 x 512 KiB; L3 2 x 33 MiB");
  EXPECT_EQ(CheckCpu(features, Failure("no hwloc")).state, FindingState::kWarning);
}

TEST(Doctor, ACpuWithoutAvx2IsAWarning) {
  platform::CpuFeatures features;
  EXPECT_EQ(CheckCpuFeatures(features).state, FindingState::kWarning);
  features.avx2 = features.fma = features.f16c = true;
  EXPECT_EQ(CheckCpuFeatures(features).state, FindingState::kOk);
  EXPECT_EQ(CheckCpuFeatures(features).found, "avx2 fma f16c");
}

TEST(Doctor, KernelsSayWhatRunsAndWhyNotBetter) {
  const std::vector<std::string> all = {"avx512", "avx2", "ref"};
  EXPECT_EQ(CheckKernels(std::string("avx512"), all, {}).state, FindingState::kOk);
  EXPECT_EQ(CheckKernels(std::string("avx512"), all, {}).found,
            "avx512 (available: avx512, avx2, ref)");

  const Finding slower = CheckKernels(std::string("avx2"), all, {});
  EXPECT_EQ(slower.state, FindingState::kWarning);
  EXPECT_TRUE(Contains(slower.remedy, "avx512 would run"));

  const Finding lacking = CheckKernels(std::string("avx512"), all, {"attention", "sample"});
  EXPECT_EQ(lacking.state, FindingState::kWarning);
  EXPECT_TRUE(Contains(lacking.found, "lacks attention, sample"));

  EXPECT_EQ(CheckKernels(std::string("ref"), {"ref"}, {}).state, FindingState::kWarning);

  const Finding none = CheckKernels(Failure("MOEBIUS_ISA is 'neon'"), all, {});
  EXPECT_EQ(none.state, FindingState::kWarning);
  EXPECT_EQ(none.found, "MOEBIUS_ISA is 'neon'");
  EXPECT_TRUE(Contains(none.remedy, "avx512, avx2, ref"));
}

TEST(Doctor, ARefusedAmxIsAWarningOnlyWhereTheCpuHasIt) {
  platform::CpuFeatures features;
  EXPECT_EQ(CheckAmx(features, Failure("none")).state, FindingState::kNotApplicable);
  features.amx_tile = true;
  EXPECT_EQ(CheckAmx(features, Failure("refused")).state, FindingState::kWarning);
  EXPECT_EQ(CheckAmx(features, Status()).state, FindingState::kOk);
}

TEST(Doctor, BandwidthThatShrinksWithThreadsIsAWarning) {
  platform::Bandwidth bandwidth;
  bandwidth.one_thread = 10e9;
  bandwidth.all_threads = 24.5e9;
  bandwidth.num_bytes = 256 << 20;
  const Finding finding = CheckBandwidth(bandwidth, 4);
  EXPECT_EQ(finding.state, FindingState::kOk);
  EXPECT_EQ(finding.found, "10.0 GB/s with 1 thread, 24.5 GB/s with 4 (measured over 256 MiB)");
  bandwidth.all_threads = 5e9;
  EXPECT_EQ(CheckBandwidth(bandwidth, 4).state, FindingState::kWarning);
  EXPECT_EQ(CheckBandwidth(bandwidth, 1).state, FindingState::kOk);
  EXPECT_EQ(CheckBandwidth(Failure("no memory"), 4).state, FindingState::kWarning);
}

TEST(Doctor, ABusyMachineIsAWarning) {
  platform::Bandwidth bandwidth;
  bandwidth.num_bytes = 256 << 20;
  const auto busy = [&](double one_thread, double all_threads, int num_threads) {
    bandwidth.one_thread = one_thread;
    bandwidth.all_threads = all_threads;
    return Contains(CheckBandwidth(bandwidth, num_threads).remedy, "seems busy");
  };
  EXPECT_TRUE(busy(0.5e9, 0.5e9, 2));
  EXPECT_TRUE(busy(3.9e9, 20e9, 4));
  EXPECT_TRUE(busy(6e9, 7e9, 2));
  EXPECT_FALSE(busy(6e9, 8e9, 2));
  EXPECT_FALSE(busy(8e9, 40e9, 24)) << "a desktop's many threads share what it has";
}

TEST(Doctor, LittleMemoryIsAWarningThatKnowsTheContainer) {
  platform::SystemMemory memory;
  memory.total = 64 * kGiB;
  memory.available = 48 * kGiB;
  EXPECT_EQ(CheckMemory(memory).state, FindingState::kOk);
  EXPECT_EQ(CheckMemory(memory).found, "48.0 GiB of 64.0 GiB available");
  memory.available = kGiB;
  EXPECT_TRUE(Contains(CheckMemory(memory).remedy, "other programs"));
  memory.limit = kGiB;
  EXPECT_TRUE(Contains(CheckMemory(memory).remedy, "docker run --memory"));
  EXPECT_TRUE(Contains(CheckMemory(memory).found, "limited to 1.0 GiB"));
}

TEST(Doctor, HugePagesThatAreOffAreAWarning) {
  EXPECT_EQ(CheckHugePages("always [madvise] never\n").state, FindingState::kOk);
  EXPECT_EQ(CheckHugePages("[always] madvise never\n").found, "always");
  EXPECT_EQ(CheckHugePages("always madvise [never]\n").state, FindingState::kWarning);
  EXPECT_EQ(CheckHugePages("").state, FindingState::kNotApplicable);
  EXPECT_EQ(CheckHugePages("] [").state, FindingState::kNotApplicable);
}

TEST(Doctor, SeveralNumaNodesComeWithTheirLines) {
  const Finding one = CheckNuma(platform::TopologyFromSynthetic("core:2 pu:1"));
  EXPECT_EQ(one.remedy, "");
  const Finding two =
      CheckNuma(platform::TopologyFromSynthetic("package:2 [numa(memory=1073741824)] core:4 pu:1"));
  EXPECT_EQ(two.found, "2 (0: cpus 0-3, 1.0 GiB; 1: cpus 4-7, 1.0 GiB)");
  EXPECT_TRUE(Contains(two.remedy, "numactl --cpunodebind=1 --membind=1 build/release/moebius"));
}

TEST(Doctor, PrintsOneLineAFindingAndCountsWarnings) {
  char* buffer = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&buffer, &size);
  PrintFindings({{"memory", FindingState::kOk, "much", ""},
                 {"numa nodes", FindingState::kWarning, "2", "bind:\nnumactl 0"},
                 {"cdmm", FindingState::kNotApplicable, "no GPU", ""}},
                out);
  std::fclose(out);
  const std::string text(buffer, size);
  std::free(buffer);
  EXPECT_EQ(text,
            "ok    memory      much\n"
            "warn  numa nodes  2\n"
            "                  -> bind:\n"
            "                  -> numactl 0\n"
            "n.a.  cdmm        no GPU\n"
            "1 thing to look at (warn).\n");
}

TEST(Doctor, DiagnosesAMadeUpMachine) {
  std::string root = testing::TempDir() + "doctor_XXXXXX";
  ASSERT_NE(mkdtemp(root.data()), nullptr);
  const auto write = [&](const std::string& path, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << content;
  };
  write("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n");
  write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  DoctorOptions options;
  options.root = root;
  options.measure_bandwidth = false;
  options.run = [](const std::string&) { return ""; };
  const std::vector<Finding> findings = Diagnose(options);
  std::filesystem::remove_all(root);

  const auto state_of = [&](const std::string& subject) {
    for (const Finding& finding : findings) {
      if (finding.subject == subject) return finding.state;
    }
    ADD_FAILURE() << "no finding about " << subject;
    return FindingState::kOk;
  };
  EXPECT_EQ(state_of("memory"), FindingState::kWarning);
  EXPECT_EQ(state_of("transparent huge pages"), FindingState::kWarning);
  EXPECT_EQ(state_of("/dev/shm"), FindingState::kWarning);  // the made-up machine has none
  EXPECT_EQ(state_of("gpu driver"), FindingState::kNotApplicable);
  for (const Finding& finding : findings) {
    EXPECT_FALSE(finding.found.empty()) << finding.subject;
    if (finding.state == FindingState::kWarning) {
      EXPECT_FALSE(finding.remedy.empty()) << finding.subject;
    }
  }
}

}  // namespace
}  // namespace moebius::app
