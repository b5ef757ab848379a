#include "kernels/cuda/gemm/grouped_gemm.h"

#include "kernels/cuda/gemm/launch_table.h"
#include "kernels/cuda/ptx/tensor_map.h"

namespace moebius::cuda {
namespace {

using tuning::GemmFormat;

const char* CheckArgs(const GroupedGemmArgs& args, const tuning::GroupedGemmConfig& config) {
  if (args.n <= 0 || args.n % 128 != 0 || args.k <= 0 || args.k % 128 != 0) {
    return "grouped gemm: n and k must be positive multiples of 128";
  }
  if (args.num_groups <= 0 || args.num_slots <= 0 || args.capacity <= 0) {
    return "grouped gemm: groups, slots and capacity must be positive";
  }
  if (args.offsets == nullptr && args.num_groups != 1) {
    return "grouped gemm: without offsets there is one group, of all rows";
  }
  if (args.slots == nullptr && args.num_groups > args.num_slots) {
    return "grouped gemm: more groups than slots, and no slot table";
  }
  if (args.format == GemmFormat::kFp8Block &&
      (args.row_scales == nullptr || args.weight_scales == nullptr ||
       args.scale_stride < args.capacity || args.scale_stride % 4 != 0)) {
    return "grouped gemm: fp8 needs both scales, and scale_stride >= capacity, a multiple of 4";
  }
  const tuning::GroupedGemmShape shape = {.format = args.format,
                                          .n = args.n,
                                          .k = args.k,
                                          .num_groups = args.num_groups,
                                          .expected_rows = static_cast<int>(args.capacity),
                                          .num_sms = config.num_blocks,
                                          .lone = args.offsets == nullptr};
  if (config.tile_idx < 0 || config.tile_idx >= tuning::NumTiles(args.format) ||
      !tuning::TileFits(shape, config.tile_idx)) {
    return "grouped gemm: the configuration's tile does not fit the shape";
  }
  const tuning::GroupedGemmTile& tile = tuning::TileAt(args.format, config.tile_idx);
  if (config.num_blocks <= 0 || config.num_blocks % tile.cluster != 0 || config.width <= 0) {
    return "grouped gemm: blocks must be a positive multiple of the cluster, width positive";
  }
  if (tile.parts > 1 && (args.partials == nullptr || args.arrivals == nullptr)) {
    return "grouped gemm: a tile in parts needs room for their sums, and counters";
  }
  return nullptr;
}

const char* EncodeMaps(const GroupedGemmArgs& args, const tuning::GroupedGemmTile& tile,
                       GroupedGemmParams* params) {
  const bool fp8 = args.format == GemmFormat::kFp8Block;
  const int element = fp8 ? 1 : 2;
  ptx::TensorMapSpec spec = {};
  spec.type = fp8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  spec.columns = args.k;
  spec.row_bytes = static_cast<uint64_t>(args.k) * element;
  spec.box_columns = tuning::kStageBytesOfK / element;
  spec.swizzle_128b = true;

  spec.base = args.weights;
  spec.rows = static_cast<uint64_t>(args.num_slots) * args.n;
  spec.box_rows = tile.weight_rows;
  if (const char* error = ptx::EncodeTensorMap(spec, &params->weights)) {
    return error;
  }
  spec.base = args.rows;
  spec.rows = args.capacity;
  spec.box_rows = tile.token_rows / tile.cluster;
  if (const char* error = ptx::EncodeTensorMap(spec, &params->rows)) {
    return error;
  }
  if (!fp8) {
    return nullptr;
  }
  spec.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  spec.base = args.row_scales;
  spec.columns = args.capacity;
  spec.rows = args.k / 128;
  spec.row_bytes = args.scale_stride * 4;
  spec.box_columns = tuning::ScaleBoxRows(tile);
  spec.box_rows = 1;
  spec.swizzle_128b = false;
  return ptx::EncodeTensorMap(spec, &params->row_scales);
}

}  // namespace

const char* LaunchGroupedGemm(const GroupedGemmArgs& args, const tuning::GroupedGemmConfig& config,
                              CUstream_st* stream) {
  if (const char* error = CheckArgs(args, config)) {
    return error;
  }
  GroupedGemmParams params = {};
  if (const char* error = EncodeMaps(args, tuning::TileAt(args.format, config.tile_idx), &params)) {
    return error;
  }
  params.offsets = args.offsets;
  params.num_rows = static_cast<int>(args.capacity);
  params.slots = args.slots;
  params.weight_scales = args.weight_scales;
  params.out = static_cast<__nv_bfloat16*>(args.out);
  params.num_groups = args.num_groups;
  params.num_slots = args.num_slots;
  params.n = args.n;
  params.k = args.k;
  params.partials = reinterpret_cast<float4*>(args.partials);
  params.arrivals = args.arrivals;
  params.width = config.width;
  params.stream = config.stream;
  params.wide = config.wide;
  params.next = args.next;
  return args.format == GemmFormat::kFp8Block
             ? LaunchFp8GroupedGemm(config.tile_idx, params, config.num_blocks, stream)
             : LaunchBf16GroupedGemm(config.tile_idx, params, config.num_blocks, stream);
}

}  // namespace moebius::cuda
