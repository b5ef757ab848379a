// The model families, one file each. Each function declares the family's weights in `plan` (whose
// status says whether the checkpoint has them all) and returns a model that DecoderModel::Load then
// fills.
#pragma once

#include <memory>

#include "model/decoder_model.h"

namespace moebius::model {

std::unique_ptr<DecoderModel> MakeDeepseek(const ModelConfig& config, const DecoderOptions& options,
                                           WeightPlan& plan);
std::unique_ptr<DecoderModel> MakeQwen(const ModelConfig& config, const DecoderOptions& options,
                                       WeightPlan& plan);
std::unique_ptr<DecoderModel> MakeMixtral(const ModelConfig& config, const DecoderOptions& options,
                                          WeightPlan& plan);
std::unique_ptr<DecoderModel> MakeLlama(const ModelConfig& config, const DecoderOptions& options,
                                        WeightPlan& plan);
std::unique_ptr<DecoderModel> MakeLlama4(const ModelConfig& config, const DecoderOptions& options,
                                         WeightPlan& plan);

// The one that config.family names.
std::unique_ptr<DecoderModel> MakeModel(const ModelConfig& config, const DecoderOptions& options,
                                        WeightPlan& plan);

}  // namespace moebius::model
