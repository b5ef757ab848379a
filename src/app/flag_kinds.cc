#include "app/flag_kinds.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

namespace moebius::app {
namespace {

// Errors leave a callback of CLI11 as one of its exceptions.
std::function<void(const std::string&)> Thrower(std::function<Status(const std::string&)> take) {
  return [take = std::move(take)](const std::string& text) {
    const Status status = take(text);
    if (!status) throw CLI::ValidationError(status.error().message());
  };
}

bool ParseBool(const std::string& name, const std::string& text) {
  try {
    return CLI::detail::to_flag_value(text) > 0;
  } catch (const std::exception&) {
    throw CLI::ValidationError(fmt::format("{} is '{}', expected true or false", name, text));
  }
}

}  // namespace

std::string NameOf(const std::string& names) { return names.substr(names.rfind(',') + 1); }

CLI::Option* AddValue(CLI::App* app, const std::string& names, const std::string& help,
                      std::function<Status(const std::string&)> take, const char* type) {
  return app->add_option_function<std::string>(names, Thrower(std::move(take)), help)
      ->type_name(type)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

CLI::Option* AddEach(CLI::App* app, const std::string& names, const std::string& help,
                     std::function<Status(const std::string&)> take) {
  return app->add_option_function<std::string>(names, Thrower(std::move(take)), help)
      ->trigger_on_parse();
}

CLI::Option* AddFlag(CLI::App* app, const std::string& name, const std::string& help,
                     std::function<void(bool)> set) {
  const auto take = [name, set = std::move(set)](const std::string& text) {
    set(ParseBool(name, text));
  };
  // No value unless one is joined by '='. At once, so that the last of it and its twin wins.
  return app->add_option_function<std::string>(name, take, help)
      ->expected(0)
      ->type_name("")
      ->trigger_on_parse();
}

void ShowDefault(CLI::Option* option, const std::string& text) { option->default_str(text); }

CLI::Option* AddChoice(CLI::App* app, const std::string& names, std::string& target,
                       const std::vector<std::string>& values, const std::string& help) {
  const auto take = [&target, name = NameOf(names), values](const std::string& text) -> Status {
    if (std::find(values.begin(), values.end(), text) == values.end()) {
      return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected one of {}", name, text,
                       CLI::detail::join(values, ", "));
    }
    target = text;
    return {};
  };
  const std::string type = "{" + CLI::detail::join(values, ",") + "}";
  CLI::Option* option = AddValue(app, names, help, take, type.c_str());
  ShowDefault(option, target);
  return option;
}

void AddSwitch(CLI::App* app, const std::string& name, const std::string& help_yes,
               const std::string& help_no, const std::string& group,
               const std::function<void(bool)>& set) {
  AddFlag(app, "--" + name, help_yes, set)->group(help_yes.empty() ? "" : group);
  AddFlag(app, "--no-" + name, help_no, [set](bool off) {
    set(!off);
  })->group(help_no.empty() ? "" : group);
}

}  // namespace moebius::app
