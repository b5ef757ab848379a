#include "model/weight_plan.h"

#include <algorithm>

#include "tensor/arena.h"

namespace moebius::model {
const char* PartName(Part part) {
  switch (part) {
    case Part::kEmbedding:
      return "embedding";
    case Part::kAttention:
      return "attention";
    case Part::kDenseMlp:
      return "dense MLP";
    case Part::kRoutedExperts:
      return "routed experts";
    case Part::kSharedExperts:
      return "shared experts";
    case Part::kRouter:
      return "router";
    case Part::kNorms:
      return "norms";
    case Part::kHead:
      return "head";
    case Part::kMtp:
      return "MTP layer";
  }
  return "unknown";
}

Matrix WholeMatrix(std::string name, int64_t n, int64_t k, bool quantizable) {
  return Matrix{std::move(name), {n, k}, quantizable, nullptr};
}

Matrix RowsOf(Matrix matrix, int64_t begin, int64_t count) {
  matrix.select = [=, select = std::move(matrix.select)](const kernels::WeightSource& whole) {
    return (select ? select(whole) : whole).Rows(begin, count);
  };
  return matrix;
}

Matrix ColumnsOf(Matrix matrix, int64_t begin, int64_t count) {
  matrix.first_input = begin;
  matrix.num_inputs = count;
  return matrix;
}

Result<WeightPlan::Source> WeightPlan::Find(Part part, const Matrix& matrix) {
  auto it = found_.find(matrix.name);
  if (it == found_.end()) {
    MOEBIUS_ASSIGN(const SourceTensor tensor,
                   source_.Find(matrix.name, matrix.shape, matrix.quantizable));
    int64_t num_elements = 1;
    for (const int64_t dim : matrix.shape) num_elements *= dim;
    tensors_.push_back({matrix.name, mtp_ ? Part::kMtp : part, num_elements, tensor.num_bytes,
                        tensor.matrix.has_scales() ? 2 : 1});
    it = found_.emplace(matrix.name, tensor).first;
  }
  Source source{it->second, it->second.matrix, it->second.matrix};
  if (matrix.select) source.whole = matrix.select(source.whole);
  source.matrix = matrix.num_inputs < 0
                      ? source.whole
                      : source.whole.Columns(matrix.first_input, matrix.num_inputs);
  return source;
}

size_t WeightPlan::TakeBytes(size_t num_bytes) {
  const size_t align = Arena::kAlignment;
  const size_t offset = packed_bytes_;
  packed_bytes_ += (num_bytes + align - 1) / align * align;
  return offset;
}

void WeightPlan::Extra(size_t num_bytes, std::byte** out) {
  reserved_.emplace_back(TakeBytes(num_bytes), out);
}

void WeightPlan::Add(Entry entry, size_t num_bytes) {
  entry.offset = TakeBytes(num_bytes);
  entries_.push_back(std::move(entry));
}

// In rows the data of a group lies together, then its scales: a grouped product sees one pool of
// slots.
void WeightPlan::AddPacked(std::vector<Entry> entries) {
  for (Entry& entry : entries) {
    entry.offset =
        TakeBytes(layout_ == kernels::WeightLayout::kPanels
                      ? kernels::PackedBytes(entry.format, entry.n, entry.k, entry.gated)
                      : kernels::RowsDataBytes(entry.format, entry.n, entry.k, entry.gated));
  }
  for (Entry& entry : entries) {
    if (layout_ == kernels::WeightLayout::kRows) {
      entry.scale_offset =
          TakeBytes(kernels::RowsScaleBytes(entry.format, entry.n, entry.k, entry.gated));
    }
    entries_.push_back(std::move(entry));
  }
}

const WeightPlan::Source* WeightPlan::Need(Part part, const Matrix& matrix) {
  if (!status_) return nullptr;
  auto source = Find(part, matrix);
  if (!source) {
    status_ = tl::unexpected<Error>(std::move(source).error());
    return nullptr;
  }
  needed_ = *std::move(source);
  return &needed_;
}

void WeightPlan::Vector(Part part, const std::string& name, int64_t n, float random_value,
                        Mat* out) {
  const Source* source = Need(part, Matrix{name, {n}, false, nullptr});
  if (source == nullptr) return;
  Entry entry;
  entry.kind = Kind::kVector;
  entry.mat = out;
  entry.sources = {*source};
  entry.n = 1;
  entry.k = n;
  entry.random_value = random_value;
  Add(std::move(entry), static_cast<size_t>(n) * sizeof(float));
}

void WeightPlan::Table(Part part, const Matrix& matrix, Mat* out) {
  const Source* source = Need(part, matrix);
  if (source == nullptr) return;
  Entry entry;
  entry.kind = Kind::kTable;
  entry.mat = out;
  entry.sources = {*source};
  entry.n = source->matrix.n;
  entry.k = source->matrix.k;
  entry.as_float32 = layout_ == kernels::WeightLayout::kRows && source->matrix.dtype == DType::kF16;
  const size_t num_bytes = static_cast<size_t>(entry.n * entry.k) * SizeOf(ElementOf(entry));
  Add(std::move(entry), num_bytes);
}

void WeightPlan::Packed(Part part, const Matrix& matrix, kernels::PackedWeight* out) {
  const std::vector<Matrix> matrices = {matrix};
  AddGroup(part, {&matrices}, {out});
}

void WeightPlan::Gated(Part part, const Matrix& gate, const Matrix& up,
                       kernels::PackedWeight* out) {
  const std::vector<Matrix> gates = {gate};
  const std::vector<Matrix> ups = {up};
  AddGroup(part, {&gates, &ups}, {out});
}

void WeightPlan::Group(Part part, const std::vector<Matrix>& matrices,
                       std::vector<kernels::PackedWeight>* out) {
  AddGroup(part, {&matrices}, Places(matrices, out));
}

void WeightPlan::Heads(Part part, const std::vector<Matrix>& matrices,
                       std::vector<kernels::PackedWeight>* out) {
  const bool fp8 = layout_ == kernels::WeightLayout::kPanels || activations_ != DType::kBF16;
  AddGroup(part, {&matrices}, Places(matrices, out), fp8);
}

kernels::WeightFormat WeightPlan::GatedGroup(Part part, const std::vector<Matrix>& gates,
                                             const std::vector<Matrix>& ups,
                                             std::vector<kernels::PackedWeight>* out) {
  return AddGroup(part, {&gates, &ups}, Places(gates, out));
}

// One for each matrix that is held.
std::vector<kernels::PackedWeight*> WeightPlan::Places(const std::vector<Matrix>& matrices,
                                                       std::vector<kernels::PackedWeight>* out) {
  const auto is_held = [](const Matrix& matrix) { return matrix.held; };
  out->resize(static_cast<size_t>(std::count_if(matrices.begin(), matrices.end(), is_held)));
  std::vector<kernels::PackedWeight*> places;
  for (kernels::PackedWeight& weight : *out) places.push_back(&weight);
  return places;
}

kernels::WeightFormat WeightPlan::AddGroup(Part part,
                                           const std::vector<const std::vector<Matrix>*>& halves,
                                           const std::vector<kernels::PackedWeight*>& out,
                                           bool fp8) {
  std::vector<Entry> entries;
  std::optional<kernels::WeightFormat> format;
  for (size_t i = 0; i < halves.front()->size(); ++i) {
    Entry entry;
    for (const std::vector<Matrix>* half : halves) {
      const Source* source = Need(part, (*half)[i]);
      if (source == nullptr) return kernels::WeightFormat::kF32;
      entry.sources.push_back(*source);
      kernels::WeightFormat natural = NaturalFormat(source->matrix, activations_, layout_);
      if (natural == kernels::WeightFormat::kFp8Block && !fp8) {
        natural = kernels::WeightFormat::kBF16;
      }
      // Matrices in two formats meet in the one that holds both without loss.
      format = !format || *format == natural ? natural : kernels::WeightFormat::kF32;
    }
    if ((*halves.front())[i].held) entries.push_back(std::move(entry));
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    Entry& entry = entries[i];
    entry.packed = out[i];
    entry.gated = halves.size() == 2;
    entry.format = *format;
    entry.n = entry.sources.front().matrix.n;
    entry.k = entry.sources.front().matrix.k;
  }
  AddPacked(std::move(entries));
  return format.value_or(kernels::WeightFormat::kF32);
}

void WeightPlan::Stacked(Part part, const std::vector<Matrix>& matrices, Linear* out) {
  std::vector<Entry> stacks;
  // In rows a stack with one part that is no fp8 has none: one product of bfloat16 beats two.
  bool all_fp8 = true;
  for (const Matrix& matrix : matrices) {
    const Source* source = Need(part, matrix);
    if (source == nullptr) return;
    all_fp8 = all_fp8 && NaturalFormat(source->matrix, activations_, layout_) ==
                             kernels::WeightFormat::kFp8Block;
  }
  for (const Matrix& matrix : matrices) {
    if (!matrix.held) continue;
    const Source* source = Need(part, matrix);
    if (source == nullptr) return;
    kernels::WeightFormat format = NaturalFormat(source->matrix, activations_, layout_);
    if (layout_ == kernels::WeightLayout::kRows && format == kernels::WeightFormat::kFp8Block &&
        !all_fp8) {
      format = kernels::WeightFormat::kBF16;
    }
    out->n += source->matrix.n;
    out->k = source->matrix.k;
    // Panels of 16 outputs follow each other without a seam where the rows before fill theirs.
    if (stacks.empty() || stacks.back().n % kernels::kPanelRows != 0 ||
        stacks.back().format != format) {
      stacks.emplace_back();
      stacks.back().format = format;
      stacks.back().k = source->matrix.k;
    }
    stacks.back().n += source->matrix.n;
    stacks.back().sources.push_back(*source);
  }
  out->parts.resize(stacks.size());
  for (size_t i = 0; i < stacks.size(); ++i) stacks[i].packed = &out->parts[i];
  AddPacked(std::move(stacks));
}

}  // namespace moebius::model
