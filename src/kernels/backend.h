// A back end is a table of functions, filled once at start-up and const from then on. `ref` is the
// scalar truth and has every entry; the others point at their own kernels and, where they have
// nothing better, at a shared or scalar one. The GPU's is one more table: code above the kernels
// differs by what a table says, never by which it is.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"
#include "platform/memory_space.h"

namespace moebius::kernels {

struct CpuKernels;  // kernels/cpu/kernels.h

struct Backend {
  std::string_view name;            // "ref", "avx2", "avx512", "cuda"
  const CpuKernels* cpu = nullptr;  // the inner kernels that the CPU operations below run on
  void (*embed)(ExecContext&, const EmbedArgs&) = nullptr;
  void (*rms_norm)(ExecContext&, const RmsNormArgs&) = nullptr;
  void (*add)(ExecContext&, const AddArgs&) = nullptr;
  void (*rope)(ExecContext&, const RopeArgs&) = nullptr;
  void (*gemm)(ExecContext&, const GemmArgs&) = nullptr;
  void (*head_gemm)(ExecContext&, const HeadGemmArgs&) = nullptr;
  void (*swiglu)(ExecContext&, const SwiGluArgs&) = nullptr;
  void (*route_topk)(ExecContext&, const RouteTopKArgs&) = nullptr;
  void (*choose_slots)(ExecContext&, const ChooseSlotsArgs&) = nullptr;
  void (*group_by_slot)(ExecContext&, const GroupBySlotArgs&) = nullptr;
  void (*grouped_swiglu)(ExecContext&, const GroupedSwiGluArgs&) = nullptr;
  void (*grouped_gemm)(ExecContext&, const GroupedGemmArgs&) = nullptr;
  void (*weighted_reduce)(ExecContext&, const WeightedReduceArgs&) = nullptr;
  void (*kv_write)(ExecContext&, const KvWriteArgs&) = nullptr;
  void (*attention)(ExecContext&, const AttentionArgs&) = nullptr;
  void (*mla_attention)(ExecContext&, const MlaAttentionArgs&) = nullptr;
  void (*mla_prefill)(ExecContext&, const MlaPrefillArgs&) = nullptr;  // null: none has to
  void (*sample)(ExecContext&, const SampleArgs&) = nullptr;
  void (*copy_rows)(ExecContext&, const CopyRowsArgs&) = CopyRowsOnHost;
  void (*draw_logits)(ExecContext&, const DrawLogitsArgs&) = DrawLogitsOnHost;
  // One launch where a launch costs more than its work.
  void (*prepare_heads)(ExecContext&, const PrepareHeadsArgs&) = PrepareHeadsInSteps;
  void (*prepare_latents)(ExecContext&, const PrepareLatentsArgs&) = PrepareLatentsInSteps;
  void (*route_to_slots)(ExecContext&, const RouteToSlotsArgs&) = RouteToSlotsInSteps;
  void (*route_to_places)(ExecContext&, const RouteToPlacesArgs&) = RouteToPlacesInSteps;
  void (*mlp)(ExecContext&, const MlpArgs&) = MlpInSteps;
  void (*grouped_mlp)(ExecContext&, const GroupedMlpArgs&) = GroupedMlpInSteps;
  void (*reduce_and_norm)(ExecContext&, const ReduceAndNormArgs&) = ReduceAndNormInSteps;

  // Those that have contexts beside others; null: this one has none.
  void (*begin_beside)(ExecContext&) = nullptr;
  void (*end_beside)(ExecContext&) = nullptr;

  // Where its operands live, and how its weights lie there.
  platform::MemorySpace* memory = &platform::HostMemory();
  bool on_host = true;  // memory->on_host(), for the checks of every operation
  WeightLayout weight_layout = WeightLayout::kPanels;
  // Of one operation, within the limits.
  size_t (*workspace_bytes)(const OpLimits&) = OpWorkspaceBytes;
};

// Every back end that this machine can run, best first; `ref` is always the last.
std::span<const Backend* const> AvailableBackends();

// The best one, or the one that MOEBIUS_ISA names. An unknown or unavailable name: kInvalidArgument
// that lists the names.
Result<const Backend*> ChooseBackend();

// Names of operations that the table lacks (empty for ref). A model that needs one refuses to
// start, naming both.
std::vector<std::string_view> MissingOps(const Backend& backend);

// The room's registrations; each fills its table once.
const Backend& RefBackend();
const Backend* Avx2Backend();    // null where the CPU lacks it
const Backend* Avx512Backend();  // AVX-512 F, BW, VL, DQ and BF16

// The GPU's, which AvailableBackends does not list: a GPU is asked for. kUnsupported without CUDA
// in this build, kUnavailable without a device that it can use.
Result<const Backend*> CudaBackend();

}  // namespace moebius::kernels
