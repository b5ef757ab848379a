// The JSON of recorded loads, any bytes: the meta of a statistics folder, a load file.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "plan/balance/load_file.h"
#include "plan/balance/statistics_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto meta = moebius::plan::ParseStatisticsMeta(text, "fuzz");
  if (meta && (meta->num_experts < 1 || meta->num_experts_per_token > meta->num_experts)) abort();
  const auto loads = moebius::plan::ParseLoads(text, "fuzz");
  if (!loads) return 0;
  for (const auto& layer : *loads) {
    if (layer.empty() || layer.size() != loads->front().size()) abort();
  }
  return 0;
}
