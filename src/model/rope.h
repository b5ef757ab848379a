// Rotation tables: row p holds cos (dim / 2 values), then sin, of the angles of position p. Plain
// functions, any thread.
//
// Frequencies follow transformers: theta^(-2i / dim), scaled by the type. YaRN: Peng et al., "YaRN:
// Efficient Context Window Extension of Large Language Models", 2023. Llama 3: wavelengths beyond
// the original context are stretched, with a smooth passage between.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "tensor/view.h"

namespace moebius::model {

// The dim / 2 angles a position adds.
std::vector<float> RopeFrequencies(const RopeConfig& rope, int64_t dim);

// What cos and sin are multiplied by: YaRN's attention factor, else 1.
double RopeAttentionFactor(const RopeConfig& rope);

// Fills `table` [positions, dim] float32, rows [begin, end).
void FillRopeTable(const RopeConfig& rope, int64_t begin, int64_t end, Mat table);

// DeepSeek's softmax scale: 1 / sqrt(dim), times the square of YaRN's mscale for all dimensions.
float MlaSoftmaxScale(const RopeConfig& rope, int64_t qk_head_dim);

// Llama 4's temperature tuning as a rotation by nothing: row p is (scale(p), 0), for pairs of
// columns (dim 2).
void FillTemperatureTable(const AttentionConfig& attention, int64_t begin, int64_t end, Mat table);

}  // namespace moebius::model
