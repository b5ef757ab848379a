// The expert that every row of a MoE layer goes through. It needs nothing of the routing: where the
// back end has a context beside the step's and rows are few, so that all of this is reading weights
// and waiting, it runs beside routing, dispatch and the other experts, else just before its results
// are taken.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/layers.h"

namespace moebius::model {

class SharedExpert {
 public:
  // Of a chunk's rows; `columns` of the results are this rank's. Room for them comes from the
  // step's arena, and stays the caller's.
  SharedExpert(Step& step, const MoeShared& shared, const MoeLayer& layer, Mat rows,
               int64_t columns);
  SharedExpert(const SharedExpert&) = delete;
  SharedExpert& operator=(const SharedExpert&) = delete;

  // The results, for what the step's context is given next; data null: this layer has none. Once.
  Mat Take();

 private:
  Step& step_;
  const Mlp* mlp_ = nullptr;
  Mat rows_;
  Mat out_;
  bool is_slice_;  // others of the group have the other columns, or other parts of the sums
  bool is_beside_ = false;
};

// Of the context beside a step's: its workspace. 0: nothing runs there.
size_t BesideBytes(const MoeShared& shared, const kernels::Backend& backend, DType act,
                   int64_t hidden_size);

}  // namespace moebius::model
