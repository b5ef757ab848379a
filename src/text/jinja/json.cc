#include "text/jinja/json.h"

#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja/print.h"
#include "text/jinja/sorting.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

using nlohmann::json;

// Builds values straight from the parser's events: no tree in between, and no recursion whatever
// the nesting.
class ValueBuilder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Add(Value::None()); }
  bool boolean(bool value) override { return Add(Value::Bool(value)); }
  bool number_integer(number_integer_t value) override { return Add(Value::Int(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX))
      return Fail(fmt::format("integer {} is beyond 64 bits", value));
    return Add(Value::Int(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    // The parser hands over integers that no 64 bits hold as floats.
    if (text.find_first_of(".eE") == std::string::npos)
      return Fail("integer " + text + " is beyond 64 bits");
    return Add(Value::Float(value));
  }
  bool string(string_t& value) override { return Add(Value::String(std::move(value))); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(string_t& value) override {
    open_.back().key = std::move(value);
    return true;
  }
  bool end_object() override {
    Value done = Value::Dict(std::move(open_.back().dict));
    open_.pop_back();
    return Add(std::move(done));
  }
  bool end_array() override {
    Value done = Value::List(std::move(open_.back().items));
    open_.pop_back();
    return Add(std::move(done));
  }
  bool parse_error(size_t position, const std::string&, const json::exception& e) override {
    return Fail(fmt::format("at byte {}: {}", position, e.what()));
  }

  const std::string& error() const { return error_; }
  Value TakeResult() { return std::move(result_); }

 private:
  struct Container {
    bool is_object;
    Dict dict;
    std::vector<Value> items;
    std::string key;
  };

  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }
  bool Open(bool is_object) {
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      return Fail(fmt::format("nested deeper than {}", kMaxJsonDepth));
    }
    open_.push_back({is_object, {}, {}, {}});
    return true;
  }
  bool Add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().dict.Set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  std::vector<Container> open_;
  Value result_;
  std::string error_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  Status Write(const Value& value) {
    MOEBIUS_TRY(budget_.Bytes(8));
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return {};
      case Kind::kBool:
        out_ += value.AsBool() ? "true" : "false";
        return {};
      case Kind::kInt:
        out_ += std::to_string(value.AsInt());
        return {};
      case Kind::kFloat:
        out_ += FloatText(value.AsFloat());
        return {};
      case Kind::kString:
        return WriteString(value.AsString());
      case Kind::kList:
      case Kind::kTuple:
        return WriteItems(value.Items());
      case Kind::kDict:
        return WriteDict(value.AsDict());
      default:
        return MakeError(ErrorCode::kInvalidArgument, "object of type {} is not JSON serializable",
                         value.TypeName());
    }
  }

  std::string Take() { return std::move(out_); }

 private:
  static std::string FloatText(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value);
  }

  Status WriteString(const std::string& text) {
    MOEBIUS_TRY(budget_.Bytes(static_cast<int64_t>(text.size())));
    out_ += '"';
    for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
      const uint32_t code = CodeAt(text, at);
      switch (code) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\b':
          out_ += "\\b";
          break;
        case '\f':
          out_ += "\\f";
          break;
        default:
          WriteChar(text, at, code);
      }
    }
    out_ += '"';
    return {};
  }

  void WriteChar(const std::string& text, size_t at, uint32_t code) {
    if (code >= 0x20 && (code < 0x7F || !style_.ensure_ascii || code > 0x10FFFF)) {
      out_.append(text, at, CharSize(text, at));
    } else if (code < 0x10000) {
      // 0x7F alone is ASCII and stays.
      out_ += code == 0x7F ? std::string(1, '\x7F') : fmt::format("\\u{:04x}", code);
    } else {
      const uint32_t rest = code - 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    }
  }

  Status BreakLine() {
    if (!style_.pretty) return {};
    MOEBIUS_TRY(budget_.Bytes(static_cast<int64_t>(style_.indent.size()) * level_ + 1));
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += style_.indent;
    return {};
  }

  Status WriteItems(const std::vector<Value>& items) {
    if (items.empty()) {
      out_ += "[]";
      return {};
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) MOEBIUS_TRY(Separator(style_.item_separator));
      MOEBIUS_TRY(BreakLine());
      MOEBIUS_TRY(Write(items[i]));
    }
    --level_;
    MOEBIUS_TRY(BreakLine());
    out_ += ']';
    return {};
  }

  Status Separator(const std::string& text) {
    MOEBIUS_TRY(budget_.Bytes(static_cast<int64_t>(text.size())));
    out_ += text;
    return {};
  }

  Status WriteDict(const Dict& dict) {
    if (dict.empty()) {
      out_ += "{}";
      return {};
    }
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict) entries.push_back(&entry);
    if (style_.sort_keys) MOEBIUS_TRY(SortByKey(entries));
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) MOEBIUS_TRY(Separator(style_.item_separator));
      MOEBIUS_TRY(BreakLine());
      MOEBIUS_TRY(WriteKey(entries[i]->first));
      MOEBIUS_TRY(Separator(style_.key_separator));
      MOEBIUS_TRY(Write(entries[i]->second));
    }
    --level_;
    MOEBIUS_TRY(BreakLine());
    out_ += '}';
    return {};
  }

  Status WriteKey(const Value& key) {
    if (key.IsString()) return WriteString(key.AsString());
    if (!key.IsNumber() && !key.IsNone()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "keys of JSON objects must be str, int, float, bool or None, not {}",
                       key.TypeName());
    }
    out_ += '"';
    MOEBIUS_TRY(Write(key));
    out_ += '"';
    return {};
  }

  Status SortByKey(std::vector<const Dict::Entry*>& entries) {
    std::vector<Value> keys;
    for (const Dict::Entry* entry : entries) keys.push_back(entry->first);
    MOEBIUS_ASSIGN(const std::vector<size_t> order, SortedOrder(keys, false, budget_));
    std::vector<const Dict::Entry*> sorted;
    for (size_t idx : order) sorted.push_back(entries[idx]);
    entries = std::move(sorted);
    return {};
  }

  const JsonStyle& style_;
  Budget& budget_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

Result<Value> ParseJson(std::string_view text, std::string_view what) {
  ValueBuilder builder;
  try {
    if (json::sax_parse(text, &builder)) return builder.TakeResult();
  } catch (const std::exception& e) {
    return MakeError(ErrorCode::kCorrupt, "{}: {}", what, e.what());
  }
  return MakeError(ErrorCode::kCorrupt, "{}: {}", what, builder.error());
}

Result<std::string> DumpJson(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  MOEBIUS_TRY(writer.Write(value));
  return writer.Take();
}

Result<std::string> DumpJson(const Value& value) {
  Budget budget;
  return DumpJson(value, {}, budget);
}

}  // namespace moebius::text::jinja
