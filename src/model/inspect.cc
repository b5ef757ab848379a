#include "model/inspect.h"

#include <array>

#include "model/open_model.h"

namespace moebius::model {
namespace {

void AddParts(const std::vector<DeclaredTensor>& tensors, Inspection& inspection) {
  std::array<PartSize, kNumParts> sizes;
  for (const DeclaredTensor& tensor : tensors) {
    PartSize& size = sizes[static_cast<size_t>(tensor.part)];
    size.part = tensor.part;
    ++size.num_tensors;
    size.num_params += tensor.num_elements;
    size.num_bytes += tensor.num_bytes;
  }
  for (const PartSize& size : sizes) {
    if (size.num_tensors == 0) continue;
    inspection.parts.push_back(size);
    inspection.num_params += size.num_params;
  }
}

int64_t ActiveParams(const Inspection& inspection) {
  const ModelConfig& config = inspection.config;
  int64_t active = config.hidden_size;  // a row of the embedding
  if (config.tie_embeddings) active += config.vocab_size * config.hidden_size;
  for (const PartSize& size : inspection.parts) {
    switch (size.part) {
      case Part::kEmbedding:
      case Part::kMtp:
        break;
      case Part::kRoutedExperts:
        active += size.num_params / config.moe.num_experts * config.moe.top_k;
        break;
      default:
        active += size.num_params;
    }
  }
  return active;
}

void AddFiles(const Checkpoint& checkpoint, Inspection& inspection) {
  int64_t num_tensors = 0;
  for (const SafetensorsFile& file : checkpoint.files()) {
    inspection.files.push_back({file.path(), file.size(), file.header_bytes()});
    inspection.file_bytes += file.size();
    inspection.header_bytes += file.header_bytes();
    num_tensors += static_cast<int64_t>(file.tensors().size());
  }
  uint64_t used = inspection.header_bytes;
  for (const PartSize& size : inspection.parts) used += size.num_bytes;
  inspection.unused_bytes = inspection.file_bytes - used;
  inspection.num_unused_tensors = num_tensors;
}

}  // namespace

Result<Inspection> InspectModel(const LoadOptions& options) {
  MOEBIUS_ASSIGN(const OpenModel open, OpenModel::Open(options));
  Inspection inspection;
  inspection.config = open.model->config();
  inspection.activations = open.model->activations();
  AddParts(open.plan->tensors(), inspection);
  inspection.active_params = ActiveParams(inspection);
  inspection.packed_bytes = open.plan->packed_bytes();
  for (const KvLayerSpec& layer : open.model->KvLayers()) {
    inspection.kv_bytes_per_token += layer.bytes();
  }
  if (open.checkpoint == nullptr) return inspection;
  AddFiles(*open.checkpoint, inspection);
  for (const DeclaredTensor& tensor : open.plan->tensors()) {
    inspection.num_unused_tensors -= tensor.num_file_tensors;
  }
  return inspection;
}

}  // namespace moebius::model
