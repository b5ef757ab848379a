#include "app/flag_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/suggest.h"

namespace moebius::app {

std::vector<std::string> FlagNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

CLI::App* FindCommand(CLI::App& main, const std::vector<std::string>& words) {
  CLI::App* app = &main;
  for (const std::string& word : words) app = app->get_subcommand(word);
  return app;
}

bool HasFlag(const CLI::App& app, const std::string& flag) {
  if (app.get_option_no_throw(flag) != nullptr) return true;
  const auto subs = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(subs.begin(), subs.end(),
                     [&](const CLI::App* sub) { return HasFlag(*sub, flag); });
}

Status CheckLeftOver(const CLI::App& app) {
  std::vector<std::string> rest = app.remaining();
  if (rest.empty()) return {};
  const auto flag = std::find_if(rest.begin(), rest.end(),
                                 [](const std::string& arg) { return arg.rfind('-', 0) == 0; });
  if (flag == rest.end()) {
    return MakeError(ErrorCode::kInvalidArgument, "'{}' is one argument too many{}", rest.front(),
                     app.get_name() == "run" ? "; a question is asked with -p" : "");
  }
  const std::string name = flag->substr(0, flag->find('='));
  return MakeError(ErrorCode::kInvalidArgument, "unknown flag {}{}", name,
                   DidYouMean(name, FlagNames(app)));
}

Status CheckCommandWord(const CLI::App& app, const std::vector<std::string>& args, size_t at) {
  if (at >= args.size() || args[at].rfind('-', 0) == 0) return {};
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  if (std::find(names.begin(), names.end(), args[at]) == names.end()) {
    if (args[at].find_first_of(" \t\n") != std::string::npos) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "unknown command '{}': a question is asked with moebius run MODEL -p TEXT",
                       args[at]);
    }
    return MakeError(ErrorCode::kInvalidArgument, "unknown command {}{}; there are: {}", args[at],
                     DidYouMean(args[at], names), CLI::detail::join(names, ", "));
  }
  return {};
}

Status CheckValues(const CLI::App& app, const std::vector<std::string>& args) {
  const auto find = [&app](const std::string& arg) {
    return arg.starts_with('-') ? app.get_option_no_throw(arg.substr(0, arg.find('='))) : nullptr;
  };
  for (size_t i = 0; i < args.size() && args[i] != "--"; ++i) {
    const CLI::Option* option = find(args[i]);
    if (option == nullptr || args[i].find('=') != std::string::npos) continue;
    if (option->get_items_expected_min() == 0) continue;
    const bool is_last = i + 1 == args.size();
    if (!is_last && find(args[i + 1]) == nullptr) continue;
    const bool is_short = !args[i].starts_with("--") && !option->get_lnames().empty();
    return MakeError(ErrorCode::kInvalidArgument, "{}{} needs a value{}", args[i],
                     is_short ? fmt::format(" (--{})", option->get_lnames().front()) : "",
                     is_last ? "" : fmt::format(", {} is a flag", args[i + 1]));
  }
  return {};
}

}  // namespace moebius::app
