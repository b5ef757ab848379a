// The GPU's table of operations. no_cuda.cc is its twin in a build without CUDA.
#include "kernels/backend.h"

#include "kernels/cuda/ops/cuda_ops.h"
#include "platform/cuda/device.h"
#include "platform/cuda/device_memory_space.h"

namespace moebius::kernels {
namespace {

Backend MakeBackend() {
  Backend backend;
  backend.name = "cuda";
  backend.embed = cuda::Embed;
  backend.rms_norm = cuda::RmsNorm;
  backend.add = cuda::Add;
  backend.copy_rows = cuda::CopyRows;
  backend.rope = cuda::Rope;
  backend.gemm = cuda::Gemm;
  backend.head_gemm = cuda::HeadGemm;
  backend.swiglu = cuda::SwiGlu;
  backend.draw_logits = cuda::DrawLogits;
  backend.route_topk = cuda::RouteTopK;
  backend.choose_slots = cuda::ChooseSlots;
  backend.group_by_slot = cuda::GroupBySlot;
  backend.grouped_swiglu = cuda::GroupedSwiGlu;
  backend.grouped_gemm = cuda::GroupedGemm;
  backend.weighted_reduce = cuda::WeightedReduce;
  backend.kv_write = cuda::KvWrite;
  backend.prepare_heads = cuda::PrepareHeads;
  backend.prepare_latents = cuda::PrepareLatents;
  backend.route_to_slots = cuda::RouteToSlots;
  backend.route_to_places = cuda::RouteToPlaces;
  backend.mlp = cuda::Mlp;
  backend.grouped_mlp = cuda::GroupedMlp;
  backend.reduce_and_norm = cuda::ReduceAndNorm;
  backend.begin_beside = [](ExecContext& ctx) { ctx.beside->device->ComeAfter(*ctx.device); };
  backend.end_beside = [](ExecContext& ctx) { ctx.device->ComeAfter(*ctx.beside->device); };
  backend.attention = cuda::Attention;
  backend.mla_attention = cuda::MlaAttention;
  backend.mla_prefill = cuda::MlaPrefill;
  backend.sample = cuda::Sample;
  backend.memory = &platform::cuda::DeviceMemorySpace();
  backend.on_host = false;
  backend.weight_layout = WeightLayout::kRows;
  backend.workspace_bytes = cuda::WorkspaceBytes;
  return backend;
}

}  // namespace

Result<const Backend*> CudaBackend() {
  MOEBIUS_ASSIGN(const int num_devices, platform::cuda::DeviceCount());
  if (num_devices == 0) {
    return MakeError(
        ErrorCode::kUnavailable,
        "--device is 'cuda', but the driver shows no device: `moebius doctor` says more");
  }
  MOEBIUS_ASSIGN(const platform::cuda::DeviceInfo info, platform::cuda::DescribeDevice(0));
  if (info.major != 9 || info.minor != 0) {
    return MakeError(ErrorCode::kUnsupported,
                     "the device is {} with compute capability {}.{}, expected 9.0 (H100, H200)",
                     info.name, info.major, info.minor);
  }
  static const Backend backend = MakeBackend();
  return &backend;
}

}  // namespace moebius::kernels
