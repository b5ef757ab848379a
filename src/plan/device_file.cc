#include "plan/device_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <filesystem>

#include "base/suggest.h"

namespace moebius::plan {
namespace {

// A key that holds a number, and what it may be. Shares lie in (0, 1].
struct NumberKey {
  const char* key;
  double Device::* field;
  bool share;
  bool required;  // of a file without `base`
};
constexpr NumberKey kNumbers[] = {
    {"hbm_bytes", &Device::hbm_bytes, false, true},
    {"hbm_bandwidth", &Device::hbm_bandwidth, false, true},
    {"bf16_flops", &Device::bf16_flops, false, true},
    {"fp8_flops", &Device::fp8_flops, false, false},
    {"fp4_flops", &Device::fp4_flops, false, false},
    {"link_bandwidth", &Device::link_bandwidth, false, true},
    {"node_bandwidth", &Device::node_bandwidth, false, false},
    {"link_latency_us", &Device::link_latency_us, false, false},
    {"node_latency_us", &Device::node_latency_us, false, false},
    {"launch_us", &Device::launch_us, false, false},
    {"memory_efficiency", &Device::memory_efficiency, true, false},
    {"gemm_efficiency", &Device::gemm_efficiency, true, false},
    {"attention_efficiency", &Device::attention_efficiency, true, false},
    {"link_efficiency", &Device::link_efficiency, true, false},
    {"node_efficiency", &Device::node_efficiency, true, false},
};
constexpr const char* kTexts[] = {"base", "name", "title", "basis", "measured_as"};

std::vector<std::string> KnownKeys() {
  std::vector<std::string> keys = {"gpus_per_node"};
  for (const char* key : kTexts) keys.emplace_back(key);
  for (const NumberKey& number : kNumbers) keys.emplace_back(number.key);
  return keys;
}

Status SetBasis(const std::string& where, const std::string& value, Device& device) {
  for (Basis basis : {Basis::kMeasured, Basis::kInterpolated, Basis::kRoofline}) {
    if (value != BasisName(basis)) continue;
    device.basis = basis;
    return {};
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "{}: basis is '{}', expected measured, interpolated or roofline", where, value);
}

Status SetText(const std::string& where, const std::string& key, const std::string& value,
               Device& device) {
  if (key == "name") device.name = value;
  if (key == "title") device.title = value;
  if (key == "basis") return SetBasis(where, value, device);
  if (key == "measured_as") {
    if (!value.empty() && value != "h200" && value != "gb200") {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: measured_as is '{}', expected h200, gb200 or nothing", where, value);
    }
    device.measured_as = value;
  }
  return {};
}

Status SetNumber(const std::string& where, const NumberKey& key, const YAML::Node& node,
                 Device& device) {
  double value = 0;
  const bool read = YAML::convert<double>::decode(node, value) && std::isfinite(value);
  if (key.share && !(read && value > 0 && value <= 1)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: {} is '{}', expected a share above 0 and at most 1", where, key.key,
                     node.Scalar());
  }
  if (!read || value < 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: {} is '{}', expected a number of 0 or more (such as 4.8e12)", where,
                     key.key, node.Scalar());
  }
  device.*key.field = value;
  return {};
}

Status SetKey(const std::string& where, const std::string& key, const YAML::Node& node,
              Device& device) {
  if (!node.IsScalar()) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: {} is a list or a map, expected one value",
                     where, key);
  }
  if (key == "gpus_per_node") {
    int value = 0;
    if (!YAML::convert<int>::decode(node, value) || value < 1) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: gpus_per_node is '{}', expected a whole number of 1 or more", where,
                       node.Scalar());
    }
    device.gpus_per_node = value;
    return {};
  }
  for (const char* text : kTexts) {
    if (key == text) return SetText(where, key, node.Scalar(), device);
  }
  for (const NumberKey& number : kNumbers) {
    if (key == number.key) return SetNumber(where, number, node, device);
  }
  return MakeError(ErrorCode::kInvalidArgument, "{}: unknown key '{}'{}: expected one of {}", where,
                   key, DidYouMean(key, KnownKeys()), fmt::join(KnownKeys(), ", "));
}

Result<Device> BaseOf(const std::string& path, const YAML::Node& file) {
  const YAML::Node base = file["base"];
  Device device;
  if (!base) return device;
  const std::string name = base.IsScalar() ? base.Scalar() : "a list or a map";
  for (const std::string& known : KnownDevices()) {
    if (known == name) return LoadDevice(name);
  }
  return MakeError(ErrorCode::kInvalidArgument, "{}:{}: base is '{}'{}, expected one of {}", path,
                   base.Mark().line + 1, name, DidYouMean(name, KnownDevices()),
                   fmt::join(KnownDevices(), ", "));
}

// What a device needs and a file without base may have left out.
Status CheckWhole(const std::string& path, Device& device) {
  for (const NumberKey& number : kNumbers) {
    if (number.required && device.*number.field <= 0) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: {} is missing or 0: expected it, or `base:` with a built-in device",
                       path, number.key);
    }
  }
  if (device.fp8_flops == 0) device.fp8_flops = device.bf16_flops;
  if (device.node_bandwidth == 0) device.node_bandwidth = device.link_bandwidth;
  return {};
}

}  // namespace

bool LooksLikeDeviceFile(const std::string& name) {
  std::error_code ignored;
  return name.find('/') != std::string::npos || name.ends_with(".yaml") || name.ends_with(".yml") ||
         std::filesystem::is_regular_file(name, ignored);
}

Result<Device> ReadDeviceFile(const std::string& path) {
  try {
    const YAML::Node file = YAML::LoadFile(path);
    if (!file.IsMap()) {
      return MakeError(ErrorCode::kCorrupt, "{}: expected a map of keys, such as base: h200", path);
    }
    MOEBIUS_ASSIGN(Device device, BaseOf(path, file));
    device.name = std::filesystem::path(path).stem().string();
    device.title.clear();
    for (const auto& entry : file) {
      const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      MOEBIUS_TRY(SetKey(where, key, entry.second, device));
    }
    if (device.title.empty()) device.title = device.name;
    MOEBIUS_TRY(CheckWhole(path, device));
    return device;
  } catch (const YAML::BadFile&) {
    return MakeError(ErrorCode::kNotFound, "{}: cannot be read (a device file was expected)", path);
  } catch (const YAML::Exception& e) {
    return MakeError(ErrorCode::kCorrupt, "{}:{}: {}", path, e.mark.line + 1, e.msg);
  }
}

}  // namespace moebius::plan
