// For tests: an engine over one of the small real models of tests/golden.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/inproc_engine_client.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "model/load.h"

namespace moebius::engine::testing {

constexpr std::chrono::milliseconds kGoldenTimeout{120000};

inline std::string GoldenFolder(const std::string& name) {
  return std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/" + name;
}

inline Result<std::unique_ptr<InprocEngineClient>> TryStartGolden(const std::string& name,
                                                                  model::DTypeChoice dtype,
                                                                  const kernels::Backend* backend,
                                                                  const EngineOptions& options) {
  // Small models, and a machine that may be busy: one thread is faster than two that wait for each
  // other. One case takes all, as rows must not depend on how work is split either.
  std::vector<int> cpus = platform::AllowedCpus();
  if (dtype == model::DTypeChoice::kBFloat16) cpus.resize(1);
  auto pool = platform::ThreadPool::Create(cpus);
  model::LoadOptions load;
  load.folder = GoldenFolder(name);
  load.dtype = dtype;
  auto model = model::LoadModel(load, *pool);
  if (!model) CheckFailed(__FILE__, __LINE__, model.error().message());
  return InprocEngineClient::Create(std::move(*model), backend, std::move(pool), options);
}

inline std::unique_ptr<InprocEngineClient> StartGolden(const std::string& name,
                                                       model::DTypeChoice dtype,
                                                       const kernels::Backend* backend,
                                                       const EngineOptions& options) {
  auto client = TryStartGolden(name, dtype, backend, options);
  if (!client) CheckFailed(__FILE__, __LINE__, client.error().message());
  return std::move(*client);
}

inline EngineOptions GoldenOptions() {
  EngineOptions options;
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 120;
  options.block_size = 8;
  options.num_kv_blocks = 400;
  options.seed = 1;
  return options;
}

inline std::vector<TokenChunk> RunAll(EngineClient& client, const std::vector<RequestInput>& inputs,
                                      bool at_once) {
  std::vector<TokenStream> streams(inputs.size());
  std::vector<TokenChunk> chunks;
  const auto collect = [&](size_t i) {
    auto chunk = streams[i].Collect(kGoldenTimeout);
    if (!chunk) CheckFailed(__FILE__, __LINE__, chunk.error().message());
    chunks.push_back(std::move(*chunk));
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(client.Submit(inputs[i], streams[i].Sink()).has_value());
    if (!at_once) collect(i);
  }
  for (size_t i = chunks.size(); i < inputs.size(); ++i) collect(i);
  return chunks;
}

}  // namespace moebius::engine::testing
