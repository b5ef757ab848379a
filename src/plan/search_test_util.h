// A model and a device for tests of the planner, independent of the built-in ones: DeepSeek-R1's
// shape, and an H200-like GPU with round figures.
#pragma once

#include "plan/search.h"

namespace moebius::plan {

inline ModelShape TestModel() {
  ModelShape model;
  model.name = model.numbers.name = "test-moe";
  layout::ModelNumbers& numbers = model.numbers;
  numbers.mla = true;
  numbers.num_layers = 61;
  numbers.hidden_size = 7168;
  numbers.num_heads = numbers.num_kv_heads = 128;
  numbers.vocab_size = 129280;
  numbers.dense_intermediate_size = 18432;
  numbers.num_experts = 256;
  numbers.top_k = 8;
  numbers.expert_intermediate_size = 2048;
  numbers.shared_intermediate_size = 2048;
  numbers.fp8_block = 128;
  model.num_moe_layers = 58;
  model.num_dense_layers = 3;
  model.moe_layers.assign(61, true);
  for (size_t layer = 0; layer < 3; ++layer) model.moe_layers[layer] = false;
  model.windowed_layers.assign(61, false);
  model.q_lora_rank = 1536;
  model.kv_lora_rank = 512;
  model.qk_nope_head_dim = 128;
  model.qk_rope_head_dim = 64;
  model.head_dim = 192;
  model.v_head_dim = 128;
  model.weight_bytes = 1;
  model.expert_weight_bytes = 1;
  model.other_bytes = 2;
  return model;
}

inline Device TestDevice() {
  Device device;
  device.name = "test-gpu";
  device.title = "A GPU of round figures";
  device.hbm_bytes = 141e9;
  device.hbm_bandwidth = 4.8e12;
  device.bf16_flops = 1e15;
  device.fp8_flops = 2e15;
  device.link_bandwidth = 450e9;
  device.node_bandwidth = 50e9;
  device.link_latency_us = 10;
  device.node_latency_us = 25;
  device.gpus_per_node = 8;
  device.launch_us = 2;
  return device;
}

inline PlanInput TestInput() {
  PlanInput input;
  input.model_argument = "test/moe";
  input.model = TestModel();
  input.device = TestDevice();
  input.parallel.gpus_per_node = input.device.gpus_per_node;
  return input;
}

inline layout::ParallelConfig TestConfig(int tp, int dp, int pp, bool ep) {
  layout::ParallelConfig config;
  config.tensor_parallel_size = tp;
  config.data_parallel_size = dp;
  config.pipeline_parallel_size = pp;
  config.enable_expert_parallel = ep;
  return config;
}

}  // namespace moebius::plan
