#include "app/parse.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "app/config_file.h"
#include "app/dotted_flags.h"
#include "app/eplb.h"
#include "app/flag_tree.h"
#include "app/flags.h"
#include "app/parallel_flags.h"
#include "app/trtllm_blocks.h"
#include "app/vllm_env.h"
#include "app/vllm_flags.h"
#include "base/suggest.h"

namespace moebius::app {
namespace {

constexpr const char* kVersion = "moebius " MOEBIUS_VERSION;

std::string DashesForUnderscores(std::string flag) {
  const size_t end = std::min(flag.find_first_of("=."), flag.size());
  std::replace(flag.begin(), flag.begin() + static_cast<ptrdiff_t>(end), '_', '-');
  return flag;
}

// A command of two words: "bench latency".
bool HasSubcommands(const std::string& command) { return command == "bench" || command == "eplb"; }

// The command line in spellings that CLI11 knows.
struct Words {
  size_t num_command = 0;         // of args: the words of the subcommand ("bench latency")
  std::vector<std::string> args;  // without --config
  std::vector<std::string> config_files;
};

Result<Words> Normalise(const std::vector<std::string>& args) {
  Words words;
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string arg = args[i].rfind("--", 0) == 0 ? DashesForUnderscores(args[i]) : args[i];
    if (arg.rfind("--config=", 0) == 0) {
      words.config_files.push_back(arg.substr(arg.find('=') + 1));
    } else if (arg == "--config") {
      if (i + 1 == args.size())
        return MakeError(ErrorCode::kInvalidArgument, "--config needs a file");
      words.config_files.push_back(args[++i]);
    } else {
      out.push_back(LongName(arg));
    }
  }
  std::vector<std::string> joined;
  for (size_t i = 0; i < out.size(); ++i) joined.push_back(JoinNumbers(out, i));
  out = std::move(joined);
  size_t& count = words.num_command;
  while (count < out.size() && out[count].rfind('-', 0) != 0 &&
         (count == 0 || HasSubcommands(out[0])) && count < 2) {
    ++count;
  }
  words.args = std::move(out);
  return words;
}

// What is wrong with the engine's flags or with those of sampling whatever the model.
Status CheckRanges(const frontend::OpenOptions& open,
                   const frontend::SamplingFields& sampling = {}) {
  MOEBIUS_TRY(engine::Validate(open.engine));
  frontend::GenerateRequest request;
  sampling.Apply(request);
  return engine::Validate(request.sampling, std::numeric_limits<TokenId>::max());
}

// Text with a blank in it where a model should stand is a question.
Status CheckBareText(const RunOptions& options) {
  const std::string& model = options.open.model;
  const bool has_prompt = options.prompt || options.prompt_ids || !options.prompts_file.empty() ||
                          !options.input_file.empty();
  std::error_code error;
  if (has_prompt || model.find_first_of(" \t\n") == std::string::npos ||
      std::filesystem::exists(model, error)) {
    return {};
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "MODEL is '{}': a question is asked with -p, as in moebius run MODEL -p TEXT",
                   model);
}

Status CheckRun(const RunOptions& options) {
  MOEBIUS_TRY(CheckBareText(options));
  const int num_prompts = (options.prompt ? 1 : 0) + (options.prompt_ids ? 1 : 0) +
                          (options.prompts_file.empty() ? 0 : 1) +
                          (options.input_file.empty() ? 0 : 1);
  if (num_prompts != 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} of --prompt (-p), --prompt-ids, --prompts-file, --input-file: expected "
                     "one; -p - reads standard input",
                     num_prompts == 0 ? "none" : "more than one");
  }
  if (options.prompt && options.prompt->empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "--prompt is empty, expected text");
  }
  if (!options.remote.url.empty() &&
      (!options.input_file.empty() || options.print_ids || options.sampling.logprobs.has_value())) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--url goes with --prompt, --prompt-ids and --prompts-file, not with "
                     "--input-file, --print-ids or --logprobs");
  }
  if (!options.output_file.empty() && options.input_file.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "--output-file belongs to --input-file");
  }
  return {};
}

Status CheckModel(const std::string& model) {
  if (!model.empty()) return {};
  return MakeError(ErrorCode::kInvalidArgument, "MODEL is missing: the folder of a model");
}

// A server has its own model and engine, and its own mind about sampling.
Status CheckGenerate(const CLI::App& app, GenerateOptions& options,
                     std::vector<std::string>& notes) {
  if (!options.remote.url.empty()) return CheckRemoteFlags(app);
  if (!options.remote.api_key.empty()) {
    notes.emplace_back("--api-key is ignored: it belongs to a server (--url)");
  }
  MOEBIUS_TRY(CheckModel(options.open.model));
  MOEBIUS_TRY(CheckRanges(options.open, options.sampling));
  MOEBIUS_TRY(SettleSizes(options.parallel));
  return SettleParallel(options.parallel, options.open, notes);
}

// Everything that the flags can fill, and the CLI11 tree that fills it.
struct Parser {
  CLI::App main{"Moebius serves large Mixture-of-Experts language models.", "moebius"};
  RunOptions run;
  ChatOptions chat;
  InspectOptions inspect;
  BenchOptions latency;
  BenchOptions throughput;
  PlanOptions plan;
  ServeOptions serve;
  BenchServeOptions bench_serve;
  BenchSweepOptions bench_sweep;
  BenchKernelsOptions bench_kernels;
  BenchExchangeOptions bench_exchange;
  std::map<std::string, std::shared_ptr<EplbVerb>> eplb;
  LogLevel log_level = LogLevel::kWarning;
  std::vector<std::string> notes;

  // command: the words of the one that is asked for; the others have no flags then. There are
  // hundreds a command, of which CLI11 compares each with all.
  explicit Parser(std::optional<std::vector<std::string>> command = std::nullopt)
      : command_(std::move(command)) {
    main.set_version_flag("--version", kVersion);
    main.require_subcommand(0, 1);
    main.footer(
        "moebius COMMAND --help lists the flags of a command. --config FILE.yaml takes the same "
        "keys.");
    if (auto* sub = Sub(&main, "run", "Answer one prompt, or a file of them")) {
      AddRunFlags(sub, run, notes);
      AddVllmFlags(sub, notes);
    }
    if (auto* sub = Sub(&main, "chat", "A conversation on the terminal")) {
      AddChatFlags(sub, chat, notes);
      AddVllmFlags(sub, notes);
    }
    if (auto* sub = Sub(&main, "serve", "A server that speaks OpenAI's API, with a page")) {
      AddServeFlags(sub, serve, notes);
      AddVllmFlags(sub, notes, /*serves=*/true);
    }
    if (auto* sub = Sub(&main, "inspect", "Configuration, parameters and bytes of a model")) {
      AddInspectFlags(sub, inspect, notes);
      AddVllmFlags(sub, notes);
    }
    AddBench(Named(&main, "bench", "Measure this machine, with a model or in parts"));
    if (auto* sub =
            Sub(&main, "plan",
                "Which parallel layouts a model can take on given GPUs, and which to use")) {
      AddPlanFlags(sub, plan);
    }
    AddEplb(Named(&main, "eplb", "Placements of experts from recorded loads"));
    Sub(&main, "doctor", "What this machine has, and what to fix");
  }

  Result<CommandLine> Chosen();

 private:
  void AddBench(CLI::App* bench) {
    throughput.throughput = true;
    if (auto* sub =
            Sub(bench, "latency", "Time to the first token and between tokens of one batch")) {
      AddBenchFlags(sub, latency, notes);
      AddVllmFlags(sub, notes);
    }
    if (auto* sub = Sub(bench, "throughput", "Tokens a second over many requests")) {
      AddBenchFlags(sub, throughput, notes);
      AddVllmFlags(sub, notes);
    }
    if (auto* sub = Sub(bench, "serve", "Any server of OpenAI's API under load")) {
      AddBenchServeFlags(sub, bench_serve, notes);
    }
    if (auto* sub = Sub(bench, "sweep", "A plan of servers and loads, cell by cell")) {
      AddBenchSweepFlags(sub, bench_sweep);
    }
    if (auto* sub = Sub(bench, "kernels", "Operations alone, beside what the memory could give")) {
      AddBenchKernelsFlags(sub, bench_kernels);
    }
    if (auto* sub = Sub(bench, "exchange", "What ranks move together, beside plain copies")) {
      AddBenchExchangeFlags(sub, bench_exchange);
    }
  }

  void AddEplb(CLI::App* parent) {
    for (const EplbEntry& entry : EplbTable()) {
      if (auto* sub = Sub(parent, entry.name, entry.help)) {
        (eplb[entry.name] = entry.make())->AddFlags(sub);
      }
    }
  }

  // Null: another one is asked for.
  CLI::App* Sub(CLI::App* parent, const char* name, const char* help) {
    CLI::App* app = Named(parent, name, help);
    std::vector<std::string> words = {name};
    if (parent != &main) words.insert(words.begin(), parent->get_name());
    return !command_ || *command_ == words ? app : nullptr;
  }

  CLI::App* Named(CLI::App* parent, const char* name, const char* help) {
    CLI::App* app = parent->add_subcommand(name, help);
    AddLogLevel(app, log_level);
    // Normalise has taken it out; here it is for the help.
    app->add_option("--config", "The flags as keys of a YAML file: max-tokens: 5")
        ->option_text("FILE");
    app->allow_extras();  // CheckLeftOver has better words for them
    return app;
  }

  const std::optional<std::vector<std::string>> command_;
};

Result<CommandLine> Parser::Chosen() {
  if (main.get_subcommands().empty()) {
    MOEBIUS_TRY(CheckLeftOver(main));
    return CommandLine{Help{main.help()}, {}, {}, {}};
  }
  const CLI::App* app = main.get_subcommands().front();
  if (HasSubcommands(app->get_name())) {
    if (app->get_subcommands().empty()) {
      MOEBIUS_TRY(CheckLeftOver(*app));
      return CommandLine{Help{app->help("moebius")}, {}, {}, {}};
    }
    app = app->get_subcommands().front();
  }
  MOEBIUS_TRY(CheckLeftOver(*app));
  const std::string name = app->get_name();
  if (app->get_parent()->get_name() == "eplb") {
    MOEBIUS_TRY(eplb.at(name)->Check());
    return CommandLine{eplb.at(name), log_level, notes, {}};
  }
  if (name == "kernels") return CommandLine{bench_kernels, log_level, notes, {}};
  if (name == "exchange") return CommandLine{bench_exchange, log_level, notes, {}};
  if (name == "sweep") return CommandLine{bench_sweep, log_level, notes, {}};
  if (name == "serve" && app->get_parent() != &main) {
    MOEBIUS_TRY(CheckBenchServe(bench_serve));
    return CommandLine{bench_serve, log_level, notes, {}};
  }
  if (name == "doctor") return CommandLine{DoctorCommand{}, log_level, notes, {}};
  if (name == "plan") {
    MOEBIUS_TRY(CheckPlanOptions(plan));
    return CommandLine{plan, log_level, notes, {}};
  }
  if (name == "serve") {
    MOEBIUS_TRY(CheckModel(serve.open.model));
    MOEBIUS_TRY(CheckRanges(serve.open, serve.sampling));
    MOEBIUS_TRY(CheckServeOptions(serve, notes));
    return CommandLine{serve, log_level, notes, {}};
  }
  if (name == "inspect") {
    MOEBIUS_TRY(CheckModel(inspect.open.model));
    return CommandLine{inspect, log_level, notes, {}};
  }
  if (name == "chat") {
    MOEBIUS_TRY(CheckGenerate(*app, chat, notes));
    return CommandLine{chat, log_level, notes, {}};
  }
  if (name == "run") {
    if (run.remote.url.empty()) MOEBIUS_TRY(CheckModel(run.open.model));
    MOEBIUS_TRY(CheckRun(run));
    MOEBIUS_TRY(CheckGenerate(*app, run, notes));
    return CommandLine{run, log_level, notes, {}};
  }
  BenchOptions& bench = name == "latency" ? latency : throughput;
  MOEBIUS_TRY(CheckModel(bench.open.model));
  MOEBIUS_TRY(CheckRanges(bench.open));
  MOEBIUS_TRY(SettleSizes(bench.parallel));
  MOEBIUS_TRY(SettleParallel(bench.parallel, bench.open, notes));
  return CommandLine{bench, log_level, notes, {}};
}

// A flag of several values leaves the last word to MODEL, unless that is said otherwise.
void ReserveModel(CLI::App* serve, const std::vector<std::string>& args) {
  const bool is_named = std::any_of(args.begin(), args.end(), [](const std::string& arg) {
    return arg == "--model" || arg.rfind("--model=", 0) == 0 || arg == "--help" || arg == "-h";
  });
  if (!is_named) serve->get_option("MODEL")->required();
}

// MODEL and --model of one command line (`given`: its flags) that differ.
Status CheckOneModel(const CLI::App& app, const std::set<std::string>& given) {
  const CLI::Option* positional = app.get_option_no_throw("MODEL");
  if (positional == nullptr || positional->count() == 0 || !given.contains("--model")) return {};
  const std::string model = positional->results().back();
  const std::string flag = app.get_option("--model")->results().back();
  if (model == flag) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "MODEL is '{}' and --model is '{}': expected one model", model, flag);
}

Result<CommandLine> ParseWords(Parser& parser, const std::vector<std::string>& command,
                               const std::set<std::string>& given, std::vector<std::string> args) {
  try {
    args = JoinDottedFlags(args);
    if (!args.empty() && args[0] == "serve") {
      ReserveModel(parser.main.get_subcommand("serve"), args);
    }
    std::reverse(args.begin(), args.end());
    parser.main.parse(std::move(args));
  } catch (const CLI::CallForVersion&) {
    return CommandLine{Help{std::string(kVersion) + "\n"}, {}, {}, {}};
  } catch (const CLI::CallForHelp&) {
    return CommandLine{Help{parser.main.help()}, {}, {}, {}};
  } catch (const CLI::RequiredError&) {
    MOEBIUS_TRY(CheckLeftOver(*parser.main.get_subcommand("serve")));
    MOEBIUS_TRY(CheckModel(std::string()));
  } catch (const CLI::ParseError& error) {
    return MakeError(ErrorCode::kInvalidArgument, "{}", error.what());
  }
  MOEBIUS_TRY(CheckOneModel(*FindCommand(parser.main, command), given));
  return parser.Chosen();
}

// The line of the innermost key that an error of the entry's value begins with, as in
// "moe_config.load_balancer: initial_global_assignments: layer 3 lists 5 slots".
std::string WhereOf(const ConfigEntry& entry, std::string message) {
  std::string flag = entry.flag.substr(2);
  std::replace(flag.begin(), flag.end(), '-', '_');
  for (const std::string_view between : {": layer ", ": "}) {
    for (size_t at = 0; (at = message.find(between, at)) != std::string::npos;) {
      message.replace(at, between.size(), ".");
    }
  }
  std::string where = entry.where;
  size_t longest = 0;
  for (const ConfigKey& key : entry.keys) {
    const std::string name = flag + "." + key.name;
    const bool is_named = message.starts_with(name) && name.size() < message.size() &&
                          (message[name.size()] == ' ' || message[name.size()] == '.');
    if (!is_named || name.size() <= longest) continue;
    longest = name.size();
    where = key.where;
  }
  return where;
}

// What a file says to the command, as arguments, but for what the command line (`given`) says, too:
// that replaces it, lists as well. Each key is tried alone, so that an error can name its line;
// `skipped` gets those that other commands know.
Status AddConfig(const std::string& path, const std::vector<std::string>& command,
                 const std::set<std::string>& given, std::vector<std::string>& args,
                 std::vector<std::string>& skipped) {
  MOEBIUS_ASSIGN(const std::vector<ConfigEntry> entries, ReadConfigFile(path));
  const Parser all;
  for (const ConfigEntry& entry : entries) {
    Parser parser(command);
    const CLI::App& app = *FindCommand(parser.main, command);
    const std::string flag = entry.flag.substr(0, entry.flag.find('.'));
    if (flag == "--config" || flag == "--help" || flag == "--version" || !HasFlag(all.main, flag)) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: unknown key {}{}", entry.where,
                       entry.flag.substr(2), DidYouMean(flag, FlagNames(app)));
    }
    for (const ConfigKey& key : entry.keys) {
      const Status known = CheckBlockKey(flag, key.name);
      if (!known) return tl::unexpected(known.error().WithContext(key.where));
    }
    if (app.get_option_no_throw(flag) == nullptr) {
      skipped.push_back(entry.flag.substr(2));
      continue;
    }
    std::vector<std::string> words = command;
    words.insert(words.end(), entry.args.begin(), entry.args.end());
    words = JoinDottedFlags(words);
    std::reverse(words.begin(), words.end());
    try {
      parser.main.parse(std::move(words));
    } catch (const CLI::ParseError& error) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: {}", WhereOf(entry, error.what()),
                       error.what());
    }
    if (given.contains(entry.flag)) continue;
    args.insert(args.end(), entry.args.begin(), entry.args.end());
    // A list would go on with the command line's first words, MODEL among them.
    if (app.get_option(flag)->get_items_expected_max() > 1) args.emplace_back("--");
  }
  return {};
}

// What the environment says to a command that has been parsed: keys, where no flag has any.
void AddKeys(const VllmEnvironment& environment, CommandLine& line) {
  if (environment.api_keys.empty()) return;
  if (auto* serve = std::get_if<ServeOptions>(&line.command);
      serve != nullptr && serve->api_keys.empty()) {
    serve->api_keys = environment.api_keys;
  }
  const auto add = [&](GenerateOptions* options) {
    if (options != nullptr && options->remote.api_key.empty()) {
      options->remote.api_key = environment.api_keys.front();
    }
  };
  add(std::get_if<RunOptions>(&line.command));
  add(std::get_if<ChatOptions>(&line.command));
}

}  // namespace

Result<CommandLine> ParseCommandLine(const std::vector<std::string>& raw_args,
                                     const std::vector<std::string>& raw_environment) {
  MOEBIUS_ASSIGN(Words words, Normalise(raw_args));
  const auto end = words.args.begin() + static_cast<ptrdiff_t>(words.num_command);
  const std::vector<std::string> command(words.args.begin(), end);
  Parser parser(command);
  MOEBIUS_TRY(CheckCommandWord(parser.main, words.args, 0));
  if (!words.args.empty() && HasSubcommands(words.args[0])) {
    MOEBIUS_TRY(CheckCommandWord(*parser.main.get_subcommand(words.args[0]), words.args, 1));
  }
  // What stands on the command line comes after the files', and the last of two wins.
  std::vector<std::string> args = command;
  const VllmEnvironment environment = ReadVllmEnvironment(raw_environment);
  const bool serves = !command.empty() && command[0] == "serve";
  std::set<std::string> given;
  for (auto arg = end; arg != words.args.end(); ++arg) given.insert(arg->substr(0, arg->find('=')));
  const bool has_ranks =
      FindCommand(parser.main, command)->get_option_no_throw("--all2all-backend") != nullptr;
  if (has_ranks && !given.contains("--url")) {
    args.insert(args.end(), environment.args.begin(), environment.args.end());
  }
  MOEBIUS_TRY(CheckValues(*FindCommand(parser.main, command), {end, words.args.end()}));
  std::vector<std::string> debug_notes;
  for (const std::string& path : words.config_files) {
    std::vector<std::string> skipped;
    MOEBIUS_TRY(AddConfig(path, command, given, args, skipped));
    if (skipped.empty()) continue;
    debug_notes.push_back(
        fmt::format("{}: of other commands: {}", path, CLI::detail::join(skipped, ", ")));
  }
  args.insert(args.end(), end, words.args.end());
  auto line = ParseWords(parser, command, given, std::move(args));
  if (!line) return line;
  line->debug_notes = std::move(debug_notes);
  AddKeys(environment, *line);
  if (serves) {
    line->notes.insert(line->notes.begin(), environment.notes.begin(), environment.notes.end());
  }
  return line;
}

}  // namespace moebius::app
