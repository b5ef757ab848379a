// Filters, tests and methods are all functions of a subject and arguments: `subject|name(args)`,
// `subject is name(args)`, `subject.name(args)`. This is their form, and the binding of arguments
// to parameters.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/objects.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Interpreter;

// Arguments in the order of the parameters. The getters refuse a value of another type, naming the
// parameter.
class BoundArgs {
 public:
  BoundArgs(std::string_view function, std::vector<std::string_view> names,
            std::vector<std::optional<Value>> values, CallArgs rest)
      : function_(function),
        names_(std::move(names)),
        values_(std::move(values)),
        rest_(std::move(rest)) {}

  bool Has(size_t idx) const { return values_[idx].has_value(); }
  // Has, and not None.
  bool IsSet(size_t idx) const { return Has(idx) && !values_[idx]->IsNone(); }
  const Value& Get(size_t idx) const { return *values_[idx]; }
  Value GetOr(size_t idx, const Value& fallback) const {
    return Has(idx) ? *values_[idx] : fallback;
  }
  Result<int64_t> Int(size_t idx, int64_t fallback) const;
  Result<std::string> Text(size_t idx, std::string fallback) const;
  bool Truthy(size_t idx) const { return Has(idx) && values_[idx]->Truthy(); }

  // What a variadic function was given, unbound.
  const CallArgs& rest() const { return rest_; }
  std::string_view function() const { return function_; }

 private:
  tl::unexpected<Error> WrongType(size_t idx, std::string_view wanted) const;

  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<std::optional<Value>> values_;
  CallArgs rest_;
};

struct Builtin {
  using Function = Result<Value> (*)(Interpreter& interpreter, const Value& subject,
                                     const BoundArgs& args);
  std::string_view name;
  // Names with blanks between: "old new count". One that begins with '$' cannot be given by name;
  // "*" alone: variadic.
  std::string_view parameters;
  size_t num_required;
  Function function;
};

// Null when absent. `table` need not be sorted.
const Builtin* FindBuiltin(std::span<const Builtin> table, std::string_view name);

// Binds the arguments and calls. Refused: too many or too few of them, unknown names.
Result<Value> CallBuiltin(Interpreter& interpreter, const Builtin& builtin, const Value& subject,
                          CallArgs args);

}  // namespace moebius::text::jinja
