// An EPLB configuration of any bytes: an error, or a placement that reads back from what is
// written of it.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "plan/balance/placement_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto placement = moebius::plan::ParsePlacement(text, "fuzz");
  if (!placement) return 0;
  for (const auto& [layer, slots] : placement->assignments) {
    if (slots.size() != static_cast<size_t>(placement->num_slots)) abort();
  }
  const std::string written = moebius::plan::PlacementYaml(*placement);
  const auto again = moebius::plan::ParsePlacement(written, "again");
  if (!again || moebius::plan::PlacementYaml(*again) != written) abort();
  return 0;
}
