// moebius bench serve: what its flags ask for.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/load/report.h"
#include "bench/load/serve_bench.h"

namespace CLI {
class App;
}

namespace moebius::app {

struct BenchServeOptions {
  load::ServeBenchOptions bench;
  load::ReportOptions report;  // date and command are set by the command
  std::optional<std::string> base_url;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::optional<std::string> endpoint;  // none: the backend's
  std::string api_key;                  // empty: of OPENAI_API_KEY
  std::optional<bool> ignore_eos;       // none: for generated data and traces
  std::string sampling;                 // JSON members of the sampling flags: "\"top_p\": 0.9"
  bool save_result = false;
  bool append_result = false;
  std::string result_dir;
  std::string result_filename;
  std::string output_csv;
  std::string output_markdown;
  std::string output_html;
};

// bench_serve_flags.cc. Notes get what is accepted and means nothing here.
void AddBenchServeFlags(CLI::App* app, BenchServeOptions& options, std::vector<std::string>& notes);
// bench_serve.cc: what flags alone cannot say.
Status CheckBenchServe(BenchServeOptions& options);

}  // namespace moebius::app
