// Descriptors for the tensor copy engine. Host only; any thread.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace moebius::kernels::cuda {

// A bfloat16 matrix [rows, 64 * columns] with `row_bytes` between rows, seen as columns of 64
// elements: boxes of box_rows x box_columns land in shared memory column after column, swizzled
// over 128 bytes; rows beyond the end read as zeros. 0 or a cudaError_t.
int MakeColumnsMap(const void* data, int64_t rows, int64_t row_bytes, int columns, int box_rows,
                   int box_columns, CUtensorMap* map);

// The same matrix seen as groups of eight rows: a box of box_rows x box_columns lands group after
// group, and a group's columns one after the other, eight rows each. rows, box_rows: multiples of
// eight. Coordinates: element, row of the group, column, group.
int MakeGroupsMap(const void* data, int64_t rows, int64_t row_bytes, int columns, int box_rows,
                  int box_columns, CUtensorMap* map);

}  // namespace moebius::kernels::cuda
