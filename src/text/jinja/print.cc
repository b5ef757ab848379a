#include "text/jinja/print.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>

#include "text/jinja/objects.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

Status AppendRepr(std::string& out, const Value& value, Budget& budget);

Status AppendText(std::string& out, std::string_view text, Budget& budget) {
  MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(text.size())));
  out += text;
  return {};
}

Status AppendItems(std::string& out, const std::vector<Value>& items, std::string_view open,
                   std::string_view close, Budget& budget) {
  out += open;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out += ", ";
    MOEBIUS_TRY(AppendRepr(out, items[i], budget));
  }
  out += close;
  return {};
}

Status AppendDict(std::string& out, const Dict& dict, Budget& budget) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict) {
    if (!first) out += ", ";
    first = false;
    MOEBIUS_TRY(AppendRepr(out, key, budget));
    out += ": ";
    MOEBIUS_TRY(AppendRepr(out, value, budget));
  }
  out += '}';
  return {};
}

Status AppendView(std::string& out, const Value& value, Budget& budget) {
  out += value.TypeName();
  out += '(';
  MOEBIUS_ASSIGN(const Value items, [&]() -> Result<Value> {
    const auto& view = *static_cast<const DictViewObject*>(value.object());
    std::vector<Value> listed;
    for (const auto& [key, element] : view.dict.AsDict()) {
      listed.push_back(view.part == DictPart::kKeys     ? key
                       : view.part == DictPart::kValues ? element
                                                        : Value::Tuple({key, element}));
    }
    return Value::List(std::move(listed));
  }());
  MOEBIUS_TRY(AppendRepr(out, items, budget));
  out += ')';
  return {};
}

// A namespace may contain itself, which Python cannot print either.
Status AppendNamespace(std::string& out, const NamespaceObject& object, Budget& budget) {
  static thread_local int nesting = 0;
  if (nesting > 20) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "a namespace that contains itself cannot be printed");
  }
  ++nesting;
  out += "<Namespace ";
  Status status = AppendDict(out, object.attributes, budget);
  out += '>';
  --nesting;
  return status;
}

Status AppendRepr(std::string& out, const Value& value, Budget& budget) {
  MOEBIUS_TRY(budget.Bytes(8));
  switch (value.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      return {};
    case Kind::kNone:
      out += "None";
      return {};
    case Kind::kBool:
      out += value.AsBool() ? "True" : "False";
      return {};
    case Kind::kInt:
      out += std::to_string(value.AsInt());
      return {};
    case Kind::kFloat:
      out += FloatRepr(value.AsFloat());
      return {};
    case Kind::kString: {
      const std::string quoted = StringRepr(value.AsString());
      return AppendText(out, value.IsMarkup() ? fmt::format("Markup({})", quoted) : quoted, budget);
    }
    case Kind::kList:
      return AppendItems(out, value.Items(), "[", "]", budget);
    case Kind::kTuple:
      return AppendItems(out, value.Items(), "(", value.Items().size() == 1 ? ",)" : ")", budget);
    case Kind::kDict:
      return AppendDict(out, value.AsDict(), budget);
    case Kind::kRange: {
      const auto* range = static_cast<const RangeObject*>(value.object());
      out += fmt::format("range({}, {}", range->start, range->stop);
      out += range->step == 1 ? ")" : fmt::format(", {})", range->step);
      return {};
    }
    case Kind::kDictView:
      return AppendView(out, value, budget);
    case Kind::kNamespace:
      return AppendNamespace(out, *static_cast<const NamespaceObject*>(value.object()), budget);
    case Kind::kCallable: {
      const auto* callable = static_cast<const CallableObject*>(value.object());
      if (!callable->printed.empty()) return AppendText(out, callable->printed, budget);
      break;
    }
    default:
      break;
  }
  // Python prints an address here; a template that depends on one is broken.
  return MakeError(ErrorCode::kUnsupported, "printing a {} is not supported", value.TypeName());
}

}  // namespace

Result<std::string> ToStr(const Value& value, Budget& budget) {
  if (value.IsString()) {
    MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(value.AsString().size())));
    return value.AsString();
  }
  if (value.IsUndefined()) return std::string();
  return ToRepr(value, budget);
}

Result<std::string> ToRepr(const Value& value, Budget& budget) {
  std::string out;
  MOEBIUS_TRY(AppendRepr(out, value, budget));
  return out;
}

std::string StringRepr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    const uint32_t code = CodeAt(text, at);
    if (code == '\\' || code == static_cast<uint32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (code >= 0x20 && code < 0x7F) {
      out += static_cast<char>(code);
    } else if (IsPrintable(code)) {
      out += text.substr(at, CharSize(text, at));
    } else if (const uint32_t shown = code > 0x10FFFF ? static_cast<uint8_t>(text[at]) : code;
               shown < 0x100) {
      out += fmt::format("\\x{:02x}", shown);
    } else {
      out += shown < 0x10000 ? fmt::format("\\u{:04x}", shown) : fmt::format("\\U{:08x}", shown);
    }
  }
  out += quote;
  return out;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  // d.ddde[+-]xx -> Python's choice: positional for exponents -4 to 15.
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  const bool negative = scientific[0] == '-';
  std::string digits;
  for (char c : scientific.substr(negative, e - negative)) {
    if (c != '.') digits += c;
  }
  const int num_digits = static_cast<int>(digits.size());
  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (num_digits > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02d}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (num_digits <= exponent + 1)
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - num_digits), '0') + ".0";
  return out + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

}  // namespace moebius::text::jinja
