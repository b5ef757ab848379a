// The kinds of flags that subcommands are made of, each the last of several counting: the command
// line wins over --config. Targets must outlive the parse; one thread.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "app/numbers.h"
#include "base/result.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace moebius::app {

// `names` is one or several, by commas ("-p,--prompt"). `take` gets the text as it stands; its
// error is the parse's. `type` stands in the help.
CLI::Option* AddValue(CLI::App* app, const std::string& names, const std::string& help,
                      std::function<Status(const std::string&)> take, const char* type = "TEXT");

// The same, but every occurrence counts, in order.
CLI::Option* AddEach(CLI::App* app, const std::string& names, const std::string& help,
                     std::function<Status(const std::string&)> take);

// --name, --name=true, --name=false: `set` hears what the last one says.
CLI::Option* AddFlag(CLI::App* app, const std::string& name, const std::string& help,
                     std::function<void(bool)> set);

// --name and --no-name, of which help shows those with a text.
void AddSwitch(CLI::App* app, const std::string& name, const std::string& help_yes,
               const std::string& help_no, const std::string& group,
               const std::function<void(bool)>& set);

// "--prompt" of "-p,--prompt": how messages call a flag.
std::string NameOf(const std::string& names);

// Text into a std::string or an optional one.
template <typename Target>
CLI::Option* AddText(CLI::App* app, const std::string& names, Target& target,
                     const std::string& help) {
  return AddValue(app, names, help, [&target](const std::string& text) -> Status {
    target = text;
    return {};
  });
}

// One of `values`, written by commas in errors and help.
CLI::Option* AddChoice(CLI::App* app, const std::string& names, std::string& target,
                       const std::vector<std::string>& values, const std::string& help);

// The default that help shows, where the target has one.
void ShowDefault(CLI::Option* option, const std::string& text);

template <typename T>
struct ValueOf {
  using type = T;
};
template <typename T>
struct ValueOf<std::optional<T>> {
  using type = T;
};

// A number into a variable of its type or an optional one; whole numbers have a range.
template <typename Target, typename T = typename ValueOf<Target>::type>
CLI::Option* AddNumber(CLI::App* app, const std::string& names, Target& target,
                       const std::string& help,
                       std::type_identity_t<T> low = std::numeric_limits<T>::lowest(),
                       std::type_identity_t<T> high = std::numeric_limits<T>::max()) {
  const auto take = [&target, name = NameOf(names), low, high](const std::string& text) -> Status {
    if constexpr (std::is_integral_v<T>) {
      MOEBIUS_ASSIGN(target, ParseWhole<T>(name, text, low, high));
    } else {
      MOEBIUS_ASSIGN(target, ParseReal<T>(name, text));
    }
    return {};
  };
  CLI::Option* option = AddValue(app, names, help, take, std::is_integral_v<T> ? "INT" : "FLOAT");
  if constexpr (std::is_same_v<T, Target>) ShowDefault(option, fmt::format("{}", target));
  return option;
}

// A count with a unit (4G) into an integer or an optional one.
template <typename Target>
CLI::Option* AddSize(CLI::App* app, const std::string& names, Target& target,
                     const std::string& help) {
  CLI::Option* option = AddValue(
      app, names, help,
      [&target, name = NameOf(names)](const std::string& text) -> Status {
        MOEBIUS_ASSIGN(target, ParseSize(name, text));
        return {};
      },
      "SIZE");
  if constexpr (std::is_integral_v<Target>) {
    if (target != 0) ShowDefault(option, fmt::format("{}", target));
  }
  return option;
}

}  // namespace moebius::app
