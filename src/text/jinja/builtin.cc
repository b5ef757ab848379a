#include "text/jinja/builtin.h"

#include <algorithm>

#include "text/jinja/interpreter.h"

namespace moebius::text::jinja {
namespace {

std::vector<std::string_view> SplitNames(std::string_view parameters) {
  std::vector<std::string_view> names;
  while (!parameters.empty()) {
    const size_t end = std::min(parameters.find(' '), parameters.size());
    names.push_back(parameters.substr(0, end));
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
  }
  return names;
}

}  // namespace

tl::unexpected<Error> BoundArgs::WrongType(size_t idx, std::string_view wanted) const {
  std::string_view name = names_[idx];
  if (name.starts_with('$')) name.remove_prefix(1);
  const Value& value = *values_[idx];
  if (value.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", value.UndefinedMessage());
  return MakeError(ErrorCode::kInvalidArgument, "{}: '{}' must be {}, not {}", function_, name,
                   wanted, value.TypeName());
}

Result<int64_t> BoundArgs::Int(size_t idx, int64_t fallback) const {
  if (!Has(idx)) return fallback;
  if (!values_[idx]->IsIntegral()) return WrongType(idx, "int");
  return values_[idx]->AsInt();
}

Result<std::string> BoundArgs::Text(size_t idx, std::string fallback) const {
  if (!Has(idx)) return fallback;
  if (!values_[idx]->IsString()) return WrongType(idx, "str");
  return values_[idx]->AsString();
}

const Builtin* FindBuiltin(std::span<const Builtin> table, std::string_view name) {
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const Builtin& b) { return b.name == name; });
  return found == table.end() ? nullptr : &*found;
}

Result<Value> CallBuiltin(Interpreter& interpreter, const Builtin& builtin, const Value& subject,
                          CallArgs args) {
  // Most functions look at the whole subject.
  if (subject.IsString()) {
    MOEBIUS_TRY(interpreter.budget().Step(static_cast<int64_t>(subject.AsString().size() / 16)));
  } else if (subject.IsList() || subject.IsTuple()) {
    MOEBIUS_TRY(interpreter.budget().Step(static_cast<int64_t>(subject.Items().size() / 8)));
  }
  if (builtin.parameters == "*") {
    return builtin.function(interpreter, subject, BoundArgs(builtin.name, {}, {}, std::move(args)));
  }
  std::vector<std::string_view> names = SplitNames(builtin.parameters);
  std::vector<std::optional<Value>> values(names.size());
  if (args.positional.size() > names.size()) {
    return MakeError(ErrorCode::kInvalidArgument, "{} takes at most {} arguments, {} given",
                     builtin.name, names.size(), args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values[i] = std::move(args.positional[i]);
  for (auto& [name, value] : args.keywords) {
    const size_t idx =
        static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (idx == names.size()) {
      return MakeError(ErrorCode::kInvalidArgument, "{} takes no argument '{}'", builtin.name,
                       name);
    }
    if (values[idx])
      return MakeError(ErrorCode::kInvalidArgument, "{}: '{}' is given twice", builtin.name, name);
    values[idx] = std::move(value);
  }
  for (size_t i = 0; i < builtin.num_required; ++i) {
    if (!values[i])
      return MakeError(ErrorCode::kInvalidArgument, "{} needs at least {} arguments", builtin.name,
                       i + 1);
  }
  return builtin.function(interpreter, subject,
                          BoundArgs(builtin.name, std::move(names), std::move(values), {}));
}

}  // namespace moebius::text::jinja
