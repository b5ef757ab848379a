#include "kernels/backend.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "base/check.h"

namespace moebius::kernels {

std::span<const Backend* const> AvailableBackends() {
  static const std::vector<const Backend*> backends = [] {
    std::vector<const Backend*> all;
    for (const Backend* backend : {Avx512Backend(), Avx2Backend(), &RefBackend()}) {
      if (backend != nullptr) all.push_back(backend);
    }
    return all;
  }();
  return backends;
}

Result<const Backend*> ChooseBackend() {
  const std::span<const Backend* const> backends = AvailableBackends();
  const char* wanted = std::getenv("MOEBIUS_ISA");
  if (wanted == nullptr || *wanted == '\0') return backends.front();
  std::string names;
  for (const Backend* backend : backends) {
    if (backend->name == wanted) return backend;
    names += names.empty() ? "" : ", ";
    names += backend->name;
  }
  return MakeError(ErrorCode::kInvalidArgument, "MOEBIUS_ISA is '{}'; this machine has: {}", wanted,
                   names);
}

std::vector<std::string_view> MissingOps(const Backend& backend) {
  std::vector<std::string_view> missing;
  const auto check = [&](std::string_view name, auto* function) {
    if (function == nullptr) missing.push_back(name);
  };
  check("embed", backend.embed);
  check("rms_norm", backend.rms_norm);
  check("add", backend.add);
  check("rope", backend.rope);
  check("gemm", backend.gemm);
  check("head_gemm", backend.head_gemm);
  check("swiglu", backend.swiglu);
  check("route_topk", backend.route_topk);
  check("choose_slots", backend.choose_slots);
  check("group_by_slot", backend.group_by_slot);
  check("grouped_swiglu", backend.grouped_swiglu);
  check("grouped_gemm", backend.grouped_gemm);
  check("weighted_reduce", backend.weighted_reduce);
  check("kv_write", backend.kv_write);
  check("attention", backend.attention);
  check("mla_attention", backend.mla_attention);
  check("sample", backend.sample);
  return missing;
}

}  // namespace moebius::kernels
