// A device from a YAML file. yaml-cpp stays inside device_file.cc. Any thread.
#pragma once

#include <string>

#include "plan/device.h"

namespace moebius::plan {

// An existing file, or a name that can only be meant as one (a slash, .yaml, .yml).
bool LooksLikeDeviceFile(const std::string& name);

// See LoadDevice.
Result<Device> ReadDeviceFile(const std::string& path);

}  // namespace moebius::plan
