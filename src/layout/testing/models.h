// Numbers of models for the tests of layout/.
#pragma once

#include "layout/parallel_layout.h"

namespace moebius::layout {

inline ModelNumbers DeepseekV3() {
  ModelNumbers m;
  m.name = "deepseek-ai/DeepSeek-V3";
  m.mla = true;
  m.num_layers = 61;
  m.hidden_size = 7168;
  m.num_heads = 128;
  m.num_kv_heads = 1;
  m.vocab_size = 129280;
  m.dense_intermediate_size = 18432;
  m.num_experts = 256;
  m.top_k = 8;
  m.expert_intermediate_size = 2048;
  m.shared_intermediate_size = 2048;
  m.fp8_block = 128;
  return m;
}

inline ModelNumbers Qwen235B() {
  ModelNumbers m;
  m.name = "Qwen/Qwen3-235B-A22B";
  m.num_layers = 94;
  m.hidden_size = 4096;
  m.num_heads = 64;
  m.num_kv_heads = 4;
  m.vocab_size = 151936;
  m.num_experts = 128;
  m.top_k = 8;
  m.expert_intermediate_size = 1536;
  return m;
}

inline ModelNumbers QwenCoderFp8() {
  ModelNumbers m = Qwen235B();
  m.name = "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8";
  m.num_layers = 62;
  m.hidden_size = 6144;
  m.num_heads = 96;
  m.num_kv_heads = 8;
  m.num_experts = 160;
  m.expert_intermediate_size = 2560;
  m.fp8_block = 128;
  return m;
}

inline ModelNumbers MinimaxM2() {
  ModelNumbers m = QwenCoderFp8();
  m.name = "MiniMaxAI/MiniMax-M2";
  m.hidden_size = 3072;
  m.num_heads = 48;
  m.vocab_size = 200064;
  m.num_experts = 256;
  m.expert_intermediate_size = 1536;
  return m;
}

// Like Llama-3-70B.
inline ModelNumbers Dense() {
  ModelNumbers m;
  m.name = "dense";
  m.num_layers = 80;
  m.hidden_size = 8192;
  m.num_heads = 64;
  m.num_kv_heads = 8;
  m.vocab_size = 128256;
  m.dense_intermediate_size = 28672;
  return m;
}

inline ParallelConfig Sizes(int tp, int dp, int pp, bool ep) {
  ParallelConfig config;
  config.tensor_parallel_size = tp;
  config.data_parallel_size = dp;
  config.pipeline_parallel_size = pp;
  config.enable_expert_parallel = ep;
  return config;
}

}  // namespace moebius::layout
