// A folder that has been opened and checked but not loaded: what LoadModel and InspectModel share.
#pragma once

#include <memory>

#include "model/checkpoint.h"
#include "model/families.h"
#include "model/load.h"

namespace moebius::model {

struct OpenModel {
  // Opens the folder, builds the model and checks every tensor that it declares.
  static Result<OpenModel> Open(const LoadOptions& options);

  // In order of dependency: each refers to those before it.
  std::unique_ptr<Checkpoint> checkpoint;  // null for random weights
  std::unique_ptr<TensorSource> source;
  std::unique_ptr<WeightPlan> plan;
  std::unique_ptr<DecoderModel> model;  // not filled
};

}  // namespace moebius::model
