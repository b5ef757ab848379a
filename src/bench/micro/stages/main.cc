// rank_bench (cmake --build build/release --target rank_bench): whole engines of random weights on
// several ranks of this machine, each a process.
//   rank_bench pipeline            tokens a second of 1 rank, and of 2 and more pipeline stages
//   rank_bench prefill             time between tokens on one data-parallel rank while another
//                                  computes long prompts, by --prefill-interval and by
//                                  --max-num-batched-tokens
// [--requests N] [--layers N] [--trace FILE]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/trace.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "rank/process_ranks.h"
#include "rank/rank_process.h"

namespace moebius::rank {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kPatience{10};

struct Settings {
  int num_requests = 32;
  int num_layers = 8;
  std::string trace;
};

// As much work a layer as a small model has, and next to none before and behind the layers.
RankOptions OptionsOf(const Settings& settings) {
  RankOptions options;
  options.load.folder = std::string(MOEBIUS_SOURCE_DIR) + "/bench/configs/moe-3b";
  options.load.load_format = model::LoadFormat::kDummy;
  options.load.hf_overrides = fmt::format(
      R"({{"num_hidden_layers": {}, "hidden_size": 1024, "moe_intermediate_size": 512,
          "num_experts": 32, "num_experts_per_tok": 4, "num_attention_heads": 16,
          "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 1024}})",
      settings.num_layers);
  const kernels::Backend* best = kernels::Avx512Backend();
  if (best == nullptr) best = kernels::Avx2Backend();
  options.load.backend = best != nullptr ? best : &kernels::RefBackend();
  options.engine.num_kv_blocks = 2048;
  options.engine.max_model_len = 4096;
  options.engine.max_num_seqs = 64;
  options.engine.max_num_batched_tokens = 512;
  options.engine.enable_prefix_caching = false;
  options.engine.seed = 1;
  return options;
}

engine::RequestInput InputOf(int i, int prompt, int output) {
  engine::RequestInput input;
  for (int t = 0; t < prompt; ++t) input.prompt.push_back((t * 31 + i * 7) % 1000 + 1);
  input.sampling.max_tokens = output;
  input.sampling.temperature = 0;
  input.sampling.ignore_eos = true;
  return input;
}

std::unique_ptr<ProcessRanks> Start(const RankOptions& options) {
  auto ranks = ProcessRanks::Start(options);
  if (!ranks) CheckFailed(__FILE__, __LINE__, ranks.error().message());
  return std::move(*ranks);
}

struct Load {
  const char* name;
  int prompt;
  int output;
};
// Drawing reads all weights for few rows, and a micro-batch has half of them; prompts are products.
constexpr Load kLoads[] = {{"drawing", 32, 64}, {"prompts", 1024, 1}};

// Prompts and answers together.
double TokensPerSecond(const RankOptions& options, const Load& load, int num_requests) {
  const std::unique_ptr<ProcessRanks> ranks = Start(options);
  double seconds = 0;
  for (int round = 0; round < 2; ++round) {  // the first one warms up
    const Clock::time_point begin = Clock::now();
    std::vector<engine::TokenStream> streams(static_cast<size_t>(num_requests));
    for (int i = 0; i < num_requests; ++i) {
      auto& stream = streams[static_cast<size_t>(i)];
      MOEBIUS_CHECK(ranks->Submit(InputOf(i, load.prompt, load.output), stream.Sink()));
    }
    for (auto& stream : streams) MOEBIUS_CHECK(stream.Collect(kPatience));
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return num_requests * (load.prompt + load.output) / seconds;
}

void RunPipeline(const Settings& settings, const TraceTarget& trace) {
  struct Case {
    int stages;
    int threads;
  };
  for (const Load& load : kLoads) {
    fmt::print("{}: {} requests of {} + {} tokens, {} layers\n", load.name, settings.num_requests,
               load.prompt, load.output, settings.num_layers);
    double serial = 0;
    for (const Case c : {Case{1, 1}, Case{2, 1}, Case{1, 2}}) {
      RankOptions options = OptionsOf(settings);
      options.parallel.pipeline_parallel_size = c.stages;
      options.threads_per_rank = c.threads;
      if (c.stages > 1) options.engine.trace = trace;
      const double rate = TokensPerSecond(options, load, settings.num_requests);
      if (serial == 0) serial = rate;
      fmt::print("  {} stages, {} threads each: {:8.1f} tokens/s, {:.2f} of 1 stage, 1 thread\n",
                 c.stages, c.threads, rate, rate / serial);
    }
  }
}

// Times between the tokens of a request, as they come home.
class Gaps {
 public:
  void Add() {
    const Clock::time_point now = Clock::now();
    const std::lock_guard lock(mutex_);
    if (last_) gaps_.push_back(std::chrono::duration<double, std::milli>(now - *last_).count());
    last_ = now;
  }
  std::vector<double> Take() {
    const std::lock_guard lock(mutex_);
    last_.reset();
    return std::exchange(gaps_, {});
  }

 private:
  std::mutex mutex_;
  std::optional<Clock::time_point> last_;
  std::vector<double> gaps_;
};

double Percentile(std::vector<double>& values, double p) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1))];
}

struct PrefillCase {
  int64_t interval;
  int64_t chunk;  // rows of a step at most
};

// On rank 0 requests that draw all the time; on rank 1 prompts of 1024 tokens, one after the other,
// with a pause between them or none.
void RunPrefillCase(const Settings& settings, const PrefillCase& c, std::chrono::milliseconds pause,
                    const TraceTarget& trace) {
  constexpr int kDecoders = 4;
  constexpr int kPrompt = 1024;
  constexpr auto kDuration = std::chrono::seconds(8);
  RankOptions options = OptionsOf(settings);
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  options.engine.prefill_interval = c.interval;
  options.engine.max_num_batched_tokens = c.chunk;
  options.engine.trace = trace;
  std::vector<Gaps> gaps(kDecoders);  // outlives the ranks, which tell it to their end
  const std::unique_ptr<ProcessRanks> ranks = Start(options);
  std::vector<engine::RequestId> decoders;
  for (int i = 0; i < kDecoders; ++i) {
    engine::RequestInput input = InputOf(i, 16, 4000);
    input.data_parallel_rank = 0;
    const auto id = ranks->Submit(
        input, [&gap = gaps[static_cast<size_t>(i)]](const engine::TokenEvent& event) {
          if (!event.tokens.empty()) gap.Add();
        });
    MOEBIUS_CHECK(id);
    decoders.push_back(*id);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  for (Gaps& gap : gaps) gap.Take();
  std::vector<double> ttft;
  const Clock::time_point begin = Clock::now();
  for (int i = 0; Clock::now() - begin < kDuration; ++i) {
    engine::RequestInput input = InputOf(100 + i, kPrompt, 1);
    input.data_parallel_rank = 1;
    const Clock::time_point sent = Clock::now();
    engine::TokenStream stream;
    MOEBIUS_CHECK(ranks->Submit(input, stream.Sink()));
    MOEBIUS_CHECK(stream.Collect(kPatience));
    ttft.push_back(std::chrono::duration<double, std::milli>(Clock::now() - sent).count());
    std::this_thread::sleep_for(pause);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::vector<double> all;
  for (Gaps& gap : gaps) {
    const std::vector<double> more = gap.Take();
    all.insert(all.end(), more.begin(), more.end());
  }
  for (const engine::RequestId id : decoders) ranks->Cancel(id);
  fmt::print("{:8} {:6} {:6} {:9.1f} {:7.1f} {:7.1f} {:7.1f} {:7.1f} {:11.1f} {:9.2f} {:9.0f}\n",
             c.interval, c.chunk, pause.count(), static_cast<double>(all.size()) / seconds,
             Percentile(all, 0.5), Percentile(all, 0.9), Percentile(all, 0.99), Percentile(all, 1),
             static_cast<double>(ttft.size() * kPrompt) / seconds,
             static_cast<double>(ttft.size()) / seconds, Percentile(ttft, 0.5));
  std::fflush(stdout);
}

void RunPrefill(const Settings& settings, const TraceTarget& trace) {
  fmt::print("{:>8} {:>6} {:>6} {:>9} {:>7} {:>7} {:>7} {:>7} {:>11} {:>9} {:>9}\n", "interval",
             "chunk", "pause", "tokens/s", "p50", "p90", "p99", "max", "prefill/s", "prompts/s",
             "TTFT p50");
  for (const auto pause : {std::chrono::milliseconds(0), std::chrono::milliseconds(1000)}) {
    for (const PrefillCase& c :
         {PrefillCase{1, 512}, {4, 512}, {16, 512}, {1, 64}, {4, 64}, {16, 64}}) {
      RunPrefillCase(settings, c, pause, trace);
    }
  }
}

int Main(const std::vector<std::string>& words) {
  Settings settings;
  std::string what;
  for (size_t i = 1; i < words.size(); ++i) {
    const bool has_value = i + 1 < words.size();
    if (words[i] == "--requests" && has_value) {
      settings.num_requests = std::atoi(words[++i].c_str());
    } else if (words[i] == "--layers" && has_value) {
      settings.num_layers = std::atoi(words[++i].c_str());
    } else if (words[i] == "--trace" && has_value) {
      settings.trace = words[++i];
    } else if (what.empty() && (words[i] == "pipeline" || words[i] == "prefill")) {
      what = words[i];
    } else {
      what.clear();
      break;
    }
  }
  if (what.empty()) {
    fmt::print(stderr,
               "usage: rank_bench pipeline|prefill [--requests N] [--layers N] "
               "[--trace FILE]\n");
    return 2;
  }
  std::optional<TraceFile> file;
  if (!settings.trace.empty()) {
    auto created = TraceFile::Create(settings.trace);
    if (!created) CheckFailed(__FILE__, __LINE__, created.error().message());
    file.emplace(std::move(*created));
  }
  const TraceTarget trace{file ? file->descriptor() : -1, 0};
  what == "pipeline" ? RunPipeline(settings, trace) : RunPrefill(settings, trace);
  return 0;
}

}  // namespace
}  // namespace moebius::rank

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv, argv + argc);
  if (words.size() > 1 && words[1] == moebius::rank::kRankProcessCommand) {
    return moebius::rank::RankProcessMain({words.begin() + 1, words.end()});
  }
  return moebius::rank::Main(words);
}
