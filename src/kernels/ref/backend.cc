#include "kernels/backend.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels {

const Backend& RefBackend() {
  static const Backend backend = {
      .name = "ref",
      .embed = ref::Embed,
      .rms_norm = ref::RmsNorm,
      .add = ref::Add,
      .rope = ref::Rope,
      .gemm = ref::Gemm,
      .head_gemm = ref::HeadGemm,
      .swiglu = ref::SwiGlu,
      .route_topk = ref::RouteTopK,
      .choose_slots = ref::ChooseSlots,
      .group_by_slot = ref::GroupBySlot,
      .grouped_swiglu = ref::GroupedSwiGlu,
      .grouped_gemm = ref::GroupedGemm,
      .weighted_reduce = ref::WeightedReduce,
      .kv_write = ref::KvWrite,
      .attention = ref::Attention,
      .mla_attention = ref::MlaAttention,
      .mla_prefill = ref::MlaPrefill,
      .sample = ref::Sample,
  };
  return backend;
}

}  // namespace moebius::kernels
