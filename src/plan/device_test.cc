#include "plan/device.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace moebius::plan {
namespace {

class DeviceFile : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const auto path = std::filesystem::path(testing::TempDir()) / "card.yaml";
    std::ofstream(path) << text;
    return path.string();
  }
  std::string ErrorOf(const std::string& text) {
    const Result<Device> device = LoadDevice(Write(text));
    return device ? "no error" : device.error().message();
  }
};

TEST(Device, BuiltInOnesAreWhole) {
  for (const std::string& name : KnownDevices()) {
    const Result<Device> device = LoadDevice(name);
    ASSERT_TRUE(device) << name;
    EXPECT_EQ(device->name, name);
    EXPECT_GT(device->hbm_bytes, 50e9) << name;
    EXPECT_GT(device->hbm_bandwidth, 1e12) << name;
    EXPECT_GE(device->fp8_flops, device->bf16_flops) << name;
    EXPECT_GT(device->link_bandwidth, device->node_bandwidth) << name;
    for (double share : {device->memory_efficiency, device->gemm_efficiency,
                         device->attention_efficiency, device->link_efficiency}) {
      EXPECT_GT(share, 0) << name;
      EXPECT_LE(share, 1) << name;
    }
  }
}

TEST(Device, UnknownNameGetsTheNearest) {
  const Result<Device> device = LoadDevice("h20o");
  ASSERT_FALSE(device);
  EXPECT_NE(device.error().message().find("did you mean"), std::string::npos);
  EXPECT_NE(device.error().message().find("mi300x"), std::string::npos);
}

TEST_F(DeviceFile, StartsFromABase) {
  const Result<Device> device =
      LoadDevice(Write("base: h200\nname: mine\nhbm_bandwidth: 4.0e12\ngpus_per_node: 4\n"));
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(device->name, "mine");
  EXPECT_EQ(device->hbm_bandwidth, 4.0e12);
  EXPECT_EQ(device->gpus_per_node, 4);
  EXPECT_EQ(device->bf16_flops, LoadDevice("h200")->bf16_flops);
}

TEST_F(DeviceFile, IsNamedAfterItsFile) {
  EXPECT_EQ(LoadDevice(Write("base: b200\n"))->name, "card");
}

TEST_F(DeviceFile, ErrorsNameLineKeyValueAndWhatWasExpected) {
  const std::string key = ErrorOf("base: h200\nhbm_bandwith: 1\n");
  EXPECT_NE(key.find("card.yaml:2: unknown key 'hbm_bandwith' (did you mean hbm_bandwidth?)"),
            std::string::npos)
      << key;
  const std::string share = ErrorOf("base: h200\ngemm_efficiency: 70\n");
  EXPECT_NE(share.find("gemm_efficiency is '70', expected a share"), std::string::npos) << share;
  const std::string number = ErrorOf("base: h200\nbf16_flops: fast\n");
  EXPECT_NE(number.find("bf16_flops is 'fast', expected a number"), std::string::npos) << number;
  const std::string base = ErrorOf("base: h210\n");
  EXPECT_NE(base.find("card.yaml:1: base is 'h210' (did you mean"), std::string::npos) << base;
  const std::string missing = ErrorOf("hbm_bytes: 1e10\n");
  EXPECT_NE(missing.find("hbm_bandwidth is missing"), std::string::npos) << missing;
  EXPECT_NE(ErrorOf("- 1\n").find("expected a map"), std::string::npos);
  EXPECT_NE(ErrorOf("base: [h200]\n").find("base is 'a list or a map'"), std::string::npos);
  EXPECT_NE(ErrorOf("base: h200\ntitle: {a: 1}\n").find("title is a list or a map"),
            std::string::npos);
  EXPECT_NE(LoadDevice("/nowhere/x.yaml").error().message().find("cannot be read"),
            std::string::npos);
}

TEST_F(DeviceFile, ABareOneNeedsOnlyTheEssentials) {
  const Result<Device> device = LoadDevice(
      Write("hbm_bytes: 64e9\nhbm_bandwidth: 1.6e12\nbf16_flops: 3.5e14\nlink_bandwidth: 1e11\n"));
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(device->fp8_flops, device->bf16_flops);
  EXPECT_EQ(device->node_bandwidth, device->link_bandwidth);
  EXPECT_EQ(device->basis, Basis::kRoofline);
}

}  // namespace
}  // namespace moebius::plan
