#include "app/parse.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "app/config_file.h"
#include "app/flags.h"
#include "app/vllm_flags.h"
#include "base/suggest.h"

namespace moebius::app {
namespace {

constexpr const char* kVersion = "moebius " MOEBIUS_VERSION;

std::string DashesForUnderscores(std::string flag) {
  const size_t end = std::min(flag.find('='), flag.size());
  std::replace(flag.begin(), flag.begin() + static_cast<ptrdiff_t>(end), '_', '-');
  return flag;
}

// Spellings that CLI11 does not know are rewritten, and --config is replaced by what the file says.
// What stands on the command line comes after it, and the last of two wins.
Result<std::vector<std::string>> Normalise(const std::vector<std::string>& args) {
  std::vector<std::string> from_file;
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string arg = args[i].rfind("--", 0) == 0 ? DashesForUnderscores(args[i]) : args[i];
    std::string path;
    if (arg.rfind("--config=", 0) == 0) {
      path = arg.substr(arg.find('=') + 1);
    } else if (arg == "--config") {
      if (i + 1 == args.size())
        return MakeError(ErrorCode::kInvalidArgument, "--config needs a file");
      path = args[++i];
    } else {
      const char* long_name = LongName(arg);
      out.push_back(long_name == nullptr ? arg : long_name);
      continue;
    }
    MOEBIUS_ASSIGN(const std::vector<std::string> more, ReadConfigFile(path));
    from_file.insert(from_file.end(), more.begin(), more.end());
  }
  // After the words of the subcommand ("bench latency").
  auto place = out.begin();
  while (place != out.end() && place->rfind('-', 0) != 0 &&
         (place == out.begin() || out[0] == "bench") && place - out.begin() < 2) {
    ++place;
  }
  out.insert(place, from_file.begin(), from_file.end());
  return out;
}

// The flags of `app` that are not hidden.
std::vector<std::string> FlagNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

Status CheckLeftOver(const CLI::App& app) {
  std::vector<std::string> rest = app.remaining();
  if (rest.empty()) return {};
  const auto flag = std::find_if(rest.begin(), rest.end(),
                                 [](const std::string& arg) { return arg.rfind('-', 0) == 0; });
  if (flag == rest.end()) {
    return MakeError(ErrorCode::kInvalidArgument, "'{}' is one argument too many", rest.front());
  }
  const std::string name = flag->substr(0, flag->find('='));
  return MakeError(ErrorCode::kInvalidArgument, "unknown flag {}{}", name,
                   DidYouMean(name, FlagNames(app)));
}

Status CheckRun(const RunOptions& options) {
  const int num_prompts = (options.prompt ? 1 : 0) + (options.prompt_ids ? 1 : 0) +
                          (options.prompts_file.empty() ? 0 : 1) +
                          (options.input_file.empty() ? 0 : 1);
  if (num_prompts != 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} of --prompt, --prompt-ids, --prompts-file, --input-file: expected one",
                     num_prompts == 0 ? "none" : "more than one");
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

// Everything that the flags can fill, and the CLI11 tree that fills it.
struct Parser {
  CLI::App main{"Moebius serves large Mixture-of-Experts language models.", "moebius"};
  RunOptions run;
  ChatOptions chat;
  InspectOptions inspect;
  BenchOptions latency;
  BenchOptions throughput;
  PlanOptions plan;
  LogLevel log_level = LogLevel::kWarning;
  std::vector<std::string> notes;

  Parser() {
    main.set_version_flag("--version", kVersion);
    main.require_subcommand(0, 1);
    main.footer(
        "moebius COMMAND --help lists the flags of a command. --config FILE.yaml takes the same "
        "keys.");
    AddRunFlags(WithModel(&main, "run", "Answer one prompt, or a file of them"), run);
    AddChatFlags(WithModel(&main, "chat", "A conversation on the terminal"), chat);
    AddInspectFlags(WithModel(&main, "inspect", "Configuration, parameters and bytes of a model"),
                    inspect, notes);
    CLI::App* bench = Sub(&main, "bench", "Measure this machine with a model");
    throughput.throughput = true;
    AddBenchFlags(
        WithModel(bench, "latency", "Time to the first token and between tokens of one batch"),
        latency);
    AddBenchFlags(WithModel(bench, "throughput", "Tokens a second over many requests"), throughput);
    AddPlanFlags(Sub(&main, "plan",
                     "Which parallel layouts a model can take on given GPUs, and which to use"),
                 plan);
    Sub(&main, "doctor", "What this machine has, and what to fix");
  }
  CLI::App* Sub(CLI::App* parent, const char* name, const char* help) {
    CLI::App* app = parent->add_subcommand(name, help);
    AddLogLevel(app, log_level);
    app->allow_extras();  // CheckLeftOver has better words for them
    return app;
  }
  // A subcommand that takes a model takes vLLM's flags.
  CLI::App* WithModel(CLI::App* parent, const char* name, const char* help) {
    CLI::App* app = Sub(parent, name, help);
    AddVllmFlags(app, notes);
    return app;
  }

  Result<CommandLine> Chosen() const;
};

// The first word that names no subcommand, before CLI11 takes it for something else.
Status CheckCommandWord(const CLI::App& app, const std::vector<std::string>& args, size_t at) {
  if (at >= args.size() || args[at].rfind('-', 0) == 0) return {};
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  if (std::find(names.begin(), names.end(), args[at]) == names.end()) {
    return MakeError(ErrorCode::kInvalidArgument, "unknown command {}{}; there are: {}", args[at],
                     DidYouMean(args[at], names), CLI::detail::join(names, ", "));
  }
  return {};
}

Result<CommandLine> Parser::Chosen() const {
  if (main.get_subcommands().empty()) {
    MOEBIUS_TRY(CheckLeftOver(main));
    return CommandLine{Help{main.help()}, {}, {}};
  }
  const CLI::App* app = main.get_subcommands().front();
  if (app->get_name() == "bench") {
    if (app->get_subcommands().empty()) {
      MOEBIUS_TRY(CheckLeftOver(*app));
      return CommandLine{Help{app->help()}, {}, {}};
    }
    app = app->get_subcommands().front();
  }
  MOEBIUS_TRY(CheckLeftOver(*app));
  const std::string name = app->get_name();
  if (name == "doctor") return CommandLine{DoctorCommand{}, log_level, notes};
  if (name == "plan") {
    MOEBIUS_TRY(CheckPlanOptions(plan));
    return CommandLine{plan, log_level, notes};
  }
  const std::string& model = name == "run"       ? run.open.model
                             : name == "chat"    ? chat.open.model
                             : name == "inspect" ? inspect.open.model
                             : name == "latency" ? latency.open.model
                                                 : throughput.open.model;
  MOEBIUS_TRY(CheckModel(model));
  if (name == "inspect") return CommandLine{inspect, log_level, notes};
  if (name == "chat") return CommandLine{chat, log_level, notes};
  if (name == "latency") return CommandLine{latency, log_level, notes};
  if (name == "throughput") return CommandLine{throughput, log_level, notes};
  MOEBIUS_TRY(CheckRun(run));
  return CommandLine{run, log_level, notes};
}

}  // namespace

Result<CommandLine> ParseCommandLine(const std::vector<std::string>& raw_args) {
  MOEBIUS_ASSIGN(std::vector<std::string> args, Normalise(raw_args));
  Parser parser;
  MOEBIUS_TRY(CheckCommandWord(parser.main, args, 0));
  if (!args.empty() && args[0] == "bench") {
    MOEBIUS_TRY(CheckCommandWord(*parser.main.get_subcommand("bench"), args, 1));
  }
  try {
    std::reverse(args.begin(), args.end());
    parser.main.parse(std::move(args));
  } catch (const CLI::CallForVersion&) {
    return CommandLine{Help{std::string(kVersion) + "\n"}, {}, {}};
  } catch (const CLI::CallForHelp&) {
    return CommandLine{Help{parser.main.help()}, {}, {}};
  } catch (const CLI::ParseError& error) {
    return MakeError(ErrorCode::kInvalidArgument, "{}", error.what());
  }
  return parser.Chosen();
}

}  // namespace moebius::app
