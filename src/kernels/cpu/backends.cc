// The tables of the CPU back ends. This file is compiled for any x86-64: it asks the machine before
// it calls into a folder that is not.
#include "kernels/backend.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/tables.h"
#include "kernels/ref/ref.h"
#include "platform/cpu_features.h"

namespace moebius::kernels {
namespace {

Backend MakeBackend(std::string_view name, const CpuKernels* kernels) {
  return {
      .name = name,
      .cpu = kernels,
      .embed = cpu::Embed,
      .rms_norm = cpu::RmsNorm,
      .add = cpu::Add,
      .rope = cpu::Rope,
      .gemm = cpu::Gemm,
      .head_gemm = cpu::HeadGemm,
      .swiglu = cpu::SwiGlu,
      .route_topk = cpu::RouteTopK,
      .choose_slots = ref::ChooseSlots,
      .group_by_slot = cpu::GroupBySlot,
      .grouped_swiglu = cpu::GroupedSwiGlu,
      .grouped_gemm = cpu::GroupedGemm,
      .weighted_reduce = cpu::WeightedReduce,
      .kv_write = cpu::KvWrite,
      .attention = cpu::Attention,
      .mla_attention = cpu::MlaAttention,
      .sample = cpu::Sample,
  };
}

}  // namespace

const Backend* Avx2Backend() {
  if (platform::BestIsa(platform::DetectCpu()) < platform::Isa::kAvx2) return nullptr;
  static const CpuKernels kernels = [] {
    CpuKernels table;
    FillAvx2Gemm(table);
    FillAvx2Rows(table);
    FillAvx2Attention(table);
    return table;
  }();
  static const Backend backend = MakeBackend("avx2", &kernels);
  return &backend;
}

const Backend* Avx512Backend() {
  if (platform::BestIsa(platform::DetectCpu()) < platform::Isa::kAvx512) return nullptr;
  static const CpuKernels kernels = [] {
    CpuKernels table;
    FillAvx512Gemm(table);
    FillAvx512Rows(table);
    FillAvx512Attention(table);
    return table;
  }();
  static const Backend backend = MakeBackend("avx512", &kernels);
  return &backend;
}

}  // namespace moebius::kernels
