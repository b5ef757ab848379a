// moebius inspect: what a model folder holds, without loading it.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/model_folder.h"
#include "frontend/open.h"
#include "model/inspect.h"

namespace moebius::app {
namespace {

using nlohmann::ordered_json;

// Three digits and a unit: "1.23 M", "456 B".
std::string Scaled(double value, double step, const char* unit) {
  const char* prefix = "";
  for (const char* next : {"K", "M", "G", "T"}) {
    if (value < step) break;
    value /= step;
    prefix = next;
  }
  const int digits = *prefix == '\0' || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}{}", value, digits, prefix, unit);
}
std::string Params(int64_t count) { return Scaled(static_cast<double>(count), 1000, ""); }
std::string Bytes(uint64_t count) { return Scaled(static_cast<double>(count), 1000, "B"); }

std::string AttentionText(const model::AttentionConfig& attention) {
  if (attention.kind == model::AttentionKind::kMla) {
    return fmt::format("MLA, {} heads, latent {} + rotated {}, q latent {}", attention.num_heads,
                       attention.kv_lora_rank, attention.qk_rope_head_dim, attention.q_lora_rank);
  }
  return fmt::format("GQA, {} heads of {}, {} for keys and values", attention.num_heads,
                     attention.head_dim, attention.num_kv_heads);
}

std::string ExpertsText(const model::ModelConfig& config) {
  const model::MoeConfig& moe = config.moe;
  if (moe.num_experts == 0) return "none (dense)";
  std::string text = fmt::format("{} of {} in {} of {} layers, size {}", moe.top_k, moe.num_experts,
                                 config.num_moe_layers(), config.num_layers, moe.intermediate_size);
  if (moe.shared_intermediate_size > 0)
    text += fmt::format(", shared {}", moe.shared_intermediate_size);
  if (moe.num_groups > 1)
    text += fmt::format(", {} of {} groups", moe.num_top_groups, moe.num_groups);
  return text;
}

void PrintConfig(const model::Inspection& inspection) {
  const model::ModelConfig& config = inspection.config;
  const auto row = [](const char* name, const std::string& value) {
    fmt::print("{:<24}{}\n", name, value);
  };
  row("model", fmt::format("{} ({})", config.model_type, config.architecture));
  row("layers",
      fmt::format("{}, hidden {}, vocabulary {}{}", config.num_layers, config.hidden_size,
                  config.vocab_size, config.tie_embeddings ? ", head tied to the embedding" : ""));
  row("attention", AttentionText(config.attention));
  row("experts", ExpertsText(config));
  row("multi-token prediction",
      config.num_mtp_layers > 0
          ? fmt::format("{} layer, in the files' sizes; not loaded for serving yet",
                        config.num_mtp_layers)
          : "none");
  row("rotation", fmt::format("{}, theta {}, {} positions", model::RopeTypeName(config.rope.type),
                              config.rope.theta, config.max_position));
  row("weights", fmt::format("{}{}", DTypeName(config.dtype),
                             config.fp8_blocks ? ", fp8 e4m3 in 128 x 128 blocks" : ""));
  row("activations", DTypeName(inspection.activations));
}

// The rows add up to the files to the byte.
void PrintParts(const model::Inspection& inspection) {
  fmt::print("\n{:<24}{:>9}{:>14}{:>16}{:>10}\n", "part", "tensors", "parameters", "bytes", "");
  for (const model::PartSize& part : inspection.parts) {
    fmt::print("{:<24}{:>9}{:>14}{:>16}{:>10}\n", model::PartName(part.part), part.num_tensors,
               part.num_params, part.num_bytes, Bytes(part.num_bytes));
  }
  if (inspection.num_unused_tensors > 0) {
    fmt::print("{:<24}{:>9}{:>14}{:>16}{:>10}\n", "not read", inspection.num_unused_tensors, "",
               inspection.unused_bytes, Bytes(inspection.unused_bytes));
  }
  if (inspection.files.empty()) return;
  fmt::print("{:<24}{:>9}{:>14}{:>16}{:>10}\n", "headers of the files", "", "",
             inspection.header_bytes, "");
  fmt::print("{:<24}{:>9}{:>14}{:>16}{:>10}\n",
             fmt::format("sum = {} file{}", inspection.files.size(),
                         inspection.files.size() == 1 ? "" : "s"),
             "", "", inspection.file_bytes, Bytes(inspection.file_bytes));
}

void Print(const model::Inspection& inspection) {
  PrintConfig(inspection);
  PrintParts(inspection);
  fmt::print("\n{:<24}{} ({} a token)\n", "parameters", Params(inspection.num_params),
             Params(inspection.active_params));
  fmt::print("{:<24}{}\n", "memory when loaded", Bytes(inspection.packed_bytes));
  const auto kv_bytes = static_cast<uint64_t>(inspection.kv_bytes_per_token);
  fmt::print("{:<24}{} ({} for 32k tokens)\n", "KV cache a token", Bytes(kv_bytes),
             Bytes(kv_bytes * 32768));
}

ordered_json ToJson(const model::Inspection& inspection) {
  const model::ModelConfig& config = inspection.config;
  ordered_json json;
  json["model_type"] = config.model_type;
  json["architecture"] = config.architecture;
  json["num_layers"] = config.num_layers;
  json["num_moe_layers"] = config.num_moe_layers();
  json["num_mtp_layers"] = config.num_mtp_layers;
  json["hidden_size"] = config.hidden_size;
  json["vocab_size"] = config.vocab_size;
  json["num_experts"] = config.moe.num_experts;
  json["top_k"] = config.moe.top_k;
  json["max_position"] = config.max_position;
  json["dtype"] = DTypeName(config.dtype);
  json["activations"] = DTypeName(inspection.activations);
  json["parts"] = ordered_json::array();
  for (const model::PartSize& part : inspection.parts) {
    json["parts"].push_back({{"part", model::PartName(part.part)},
                             {"tensors", part.num_tensors},
                             {"parameters", part.num_params},
                             {"bytes", part.num_bytes}});
  }
  json["unused_bytes"] = inspection.unused_bytes;
  json["header_bytes"] = inspection.header_bytes;
  json["files"] = ordered_json::array();
  for (const model::FileSize& file : inspection.files) {
    json["files"].push_back({{"path", file.path}, {"bytes", file.num_bytes}});
  }
  json["file_bytes"] = inspection.file_bytes;
  json["parameters"] = inspection.num_params;
  json["active_parameters"] = inspection.active_params;
  json["packed_bytes"] = inspection.packed_bytes;
  json["kv_bytes_per_token"] = inspection.kv_bytes_per_token;
  return json;
}

}  // namespace

Result<int> InspectCommand(const InspectOptions& options) {
  frontend::OpenOptions open = options.open;
  MOEBIUS_ASSIGN(const ModelFolder folder, ModelFolder::Find(open));
  MOEBIUS_ASSIGN(model::LoadOptions load, frontend::LoadOptionsOf(open));
  MOEBIUS_ASSIGN(model::Inspection inspection, folder.Named(model::InspectModel(load)));
  if (inspection.config.num_mtp_layers > 0) {
    // The files hold the MTP layer, but serving (frontend::Prepare) leaves it out.
    load.mtp = false;
    MOEBIUS_ASSIGN(const model::Inspection served, model::InspectModel(load));
    inspection.packed_bytes = served.packed_bytes;
    inspection.kv_bytes_per_token = served.kv_bytes_per_token;
  }
  if (options.json) {
    fmt::print("{}\n", ToJson(inspection).dump(2));
  } else {
    Print(inspection);
  }
  return kExitOk;
}

}  // namespace moebius::app
