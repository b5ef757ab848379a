#include "engine/inproc_engine_client.h"

#include <pthread.h>

#include <random>
#include <thread>
#include <utility>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/model_runner.h"
#include "model/model_config.h"
#include "platform/memory.h"

namespace moebius::engine {
namespace {

uint64_t RandomSeed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

Status Validate(const model::ModelConfig& model, const EngineOptions& options) {
  MOEBIUS_TRY(Validate(options));
  for (const TokenId token : options.eos_token_ids) {
    if (token < 0 || token >= model.vocab_size) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "eos_token_ids holds {}, expected ids from 0 to {}", token,
                       model.vocab_size - 1);
    }
  }
  return {};
}

EngineConfig MakeConfig(int64_t vocab_size, const KvMemoryPlan& plan,
                        const EngineOptions& options) {
  EngineConfig config;
  config.scheduler.vocab_size = vocab_size;
  config.scheduler.num_blocks = plan.num_blocks;
  config.scheduler.block_size = options.block_size;
  config.scheduler.max_model_len = plan.max_model_len;
  config.scheduler.max_num_seqs = options.max_num_seqs;
  config.scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
  config.scheduler.enable_prefix_caching = options.enable_prefix_caching;
  config.scheduler.seed = options.seed ? *options.seed : RandomSeed();
  config.scheduler.eos_token_ids = options.eos_token_ids;
  config.scheduler.num_micro_batches = options.num_micro_batches;
  config.max_num_waiting = options.max_num_waiting;
  config.async_scheduling = options.async_scheduling;
  config.prefill_interval = options.prefill_interval;
  config.trace = options.trace;
  config.step_timeout = options.step_timeout;
  config.on_step = options.on_step;
  return config;
}

}  // namespace

class InprocEngineClient::Impl {
 public:
  Impl(EngineLimits limits, const EngineConfig& config, std::unique_ptr<StepRunner> runner)
      : limits_(std::move(limits)),
        runner_(std::move(runner)),
        engine_(config, runner_.get()),
        thread_([this] {
          pthread_setname_np(pthread_self(), "engine");
          engine_.Run();
        }) {}

  ~Impl() {
    engine_.Stop();
    thread_.join();
    // Its thread may still read a plan of the engine's.
    runner_.reset();
  }

  const EngineLimits& limits() const { return limits_; }
  Engine& engine() { return engine_; }
  const Engine& engine() const { return engine_; }
  const StepRunner& runner() const { return *runner_; }

 private:
  const EngineLimits limits_;
  std::unique_ptr<StepRunner> runner_;
  Engine engine_;
  std::thread thread_;
};

Result<std::unique_ptr<InprocEngineClient>> InprocEngineClient::Create(
    std::unique_ptr<model::Model> model, const kernels::Backend* backend,
    std::unique_ptr<platform::ThreadPool> pool, const EngineOptions& options) {
  MOEBIUS_ASSIGN(const KvMemoryPlan plan, PlanRankMemory(*model, options, pool->num_threads()));
  LogInfo("{}", plan.Describe(options.block_size));
  return Create(std::move(model), backend, std::move(pool), options, plan, nullptr);
}

Result<std::unique_ptr<InprocEngineClient>> InprocEngineClient::Create(
    std::unique_ptr<model::Model> model, const kernels::Backend* backend,
    std::unique_ptr<platform::ThreadPool> pool, const EngineOptions& options,
    const KvMemoryPlan& plan, std::unique_ptr<StepSync> sync, const DeviceRank& rank) {
  const int64_t vocab_size = model->config().vocab_size;
  MOEBIUS_TRY(Validate(model->config(), options));
  const ModelRunnerOptions runner_options = RunnerOptionsOf(*model, options, plan);
  std::unique_ptr<StepRunner> runner;
  if (backend->on_host) {
    MOEBIUS_ASSIGN(
        std::unique_ptr<StepExecutor> executor,
        StepExecutor::Create(std::move(model), backend, std::move(pool), runner_options));
    auto on_host = std::make_unique<ModelRunner>(std::move(executor), std::move(sync));
    MOEBIUS_TRY(on_host->binding());
    runner = std::move(on_host);
  } else if (sync != nullptr) {
    MOEBIUS_ASSIGN(runner, MakeSharedDeviceRunner(std::move(model), std::move(pool), runner_options,
                                                  rank, std::move(sync)));
  } else {
    MOEBIUS_ASSIGN(runner, MakeDeviceRunner(std::move(model), std::move(pool), runner_options));
  }
  EngineLimits limits;
  limits.vocab_size = vocab_size;
  limits.max_model_len = plan.max_model_len;
  limits.max_num_seqs = options.max_num_seqs;
  limits.max_num_waiting = options.max_num_waiting;
  limits.eos_token_ids = options.eos_token_ids;
  return std::unique_ptr<InprocEngineClient>(new InprocEngineClient(std::make_unique<Impl>(
      std::move(limits), MakeConfig(vocab_size, plan, options), std::move(runner))));
}

InprocEngineClient::InprocEngineClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InprocEngineClient::~InprocEngineClient() = default;

const EngineLimits& InprocEngineClient::limits() const { return impl_->limits(); }

Result<RequestId> InprocEngineClient::Submit(RequestInput input, TokenSink sink) {
  MOEBIUS_TRY(engine::Validate(input, limits()));
  return impl_->engine().Submit(std::move(input), std::move(sink));
}

void InprocEngineClient::Cancel(RequestId request, FinishReason reason) {
  impl_->engine().Cancel(request, reason);
}

EngineStats InprocEngineClient::Stats() const { return impl_->engine().Stats(); }

moe::ExpertStats InprocEngineClient::ExpertLoad() const { return impl_->runner().ExpertLoad(); }

std::vector<RankLoad> InprocEngineClient::RankLoads() const {
  RankLoad load = impl_->runner().Load();
  load.expert_rank = 0;
  return {load};
}

Status InprocEngineClient::Health() const { return impl_->engine().Health(); }

}  // namespace moebius::engine
