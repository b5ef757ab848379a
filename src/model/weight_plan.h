// Which tensors a model is made of and where they go. A family declares its weights while it builds
// its layers; every declaration is checked against the source at once, and only when all of them
// are right is memory taken and filled, each weight packed straight from the mapped file. Used by
// one thread while a model loads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "kernels/weight.h"
#include "model/tensor_source.h"
#include "platform/memory_space.h"
#include "platform/thread_pool.h"
#include "tensor/view.h"

namespace moebius::model {

// What a tensor is for (moebius inspect adds up by it).
enum class Part : uint8_t {
  kEmbedding,
  kAttention,
  kDenseMlp,
  kRoutedExperts,
  kSharedExperts,
  kRouter,
  kNorms,
  kHead,
  kMtp,  // everything of the MTP layer
};
constexpr int kNumParts = 9;
const char* PartName(Part part);

// A matrix in a checkpoint: a tensor, or what `select` takes of it, which may be nothing.
struct Matrix {
  std::string name;
  std::vector<int64_t> shape;  // of the whole tensor
  bool quantizable = true;     // fp8 checkpoints may hold it as fp8
  // From the whole (dimensions but the last are rows) to the part; empty: all of it.
  std::function<kernels::WeightSource(const kernels::WeightSource&)> select;
  // False: another rank's. It is checked and has its say in the format of its group, which so is
  // the same on every rank, but takes no memory and no place in what is loaded.
  bool held = true;
  // Of the inputs of what `select` takes; negative: all.
  int64_t first_input = 0;
  int64_t num_inputs = -1;
};
Matrix WholeMatrix(std::string name, int64_t n, int64_t k, bool quantizable = true);
// Outputs [begin, begin + count) of what `matrix` is; columns (inputs) likewise, of all of them.
Matrix RowsOf(Matrix matrix, int64_t begin, int64_t count);
Matrix ColumnsOf(Matrix matrix, int64_t begin, int64_t count);

// Packed matrices that share an input, stacked by outputs: one where their sizes allow, so that one
// product serves all.
struct Linear {
  std::vector<kernels::PackedWeight> parts;
  int64_t n = 0;  // of all parts
  int64_t k = 0;
};

struct DeclaredTensor {
  std::string name;
  Part part = Part::kEmbedding;
  int64_t num_elements = 0;
  size_t num_bytes = 0;      // in the file, scales included
  int num_file_tensors = 1;  // 2 with block scales
};

class WeightPlan {
 public:
  // activations: the dtype that weights will meet. layout: how the kernels want them. The source
  // must outlive the plan.
  WeightPlan(const TensorSource& source, DType activations,
             kernels::WeightLayout layout = kernels::WeightLayout::kPanels)
      : source_(source), activations_(activations), layout_(layout) {}
  kernels::WeightLayout layout() const { return layout_; }

  // Declarations. What they point to must stay where it is until Load has filled it. After an error
  // they do nothing. A float32 [1, n] vector; random weights are `random_value`.
  void Vector(Part part, const std::string& name, int64_t n, float random_value, Mat* out);
  // A table in rows, in its own dtype; float16 becomes float32 in the layout kRows, whose kernels
  // read no other. Rows or columns of one, but not transposed.
  void Table(Part part, const Matrix& matrix, Mat* out);
  void Packed(Part part, const Matrix& matrix, kernels::PackedWeight* out);
  void Gated(Part part, const Matrix& gate, const Matrix& up, kernels::PackedWeight* out);
  // Matrices for one grouped product: all in one format, which is returned (after an error any). A
  // place for each that is held.
  void Group(Part part, const std::vector<Matrix>& matrices,
             std::vector<kernels::PackedWeight>* out);
  kernels::WeightFormat GatedGroup(Part part, const std::vector<Matrix>& gates,
                                   const std::vector<Matrix>& ups,
                                   std::vector<kernels::PackedWeight>* out);
  // Matrices for HeadGemm: the same, but no fp8 in rows with bfloat16 activations, as the batched
  // products of a GPU have none.
  void Heads(Part part, const std::vector<Matrix>& matrices,
             std::vector<kernels::PackedWeight>* out);
  void Stacked(Part part, const std::vector<Matrix>& matrices, Linear* out);

  // So many bytes beside the weights, at a multiple of 64; *out where they are.
  void Extra(size_t num_bytes, std::byte** out);

  // While set, everything declared counts as the MTP layer's.
  void set_mtp(bool mtp) { mtp_ = mtp; }
  void set_show_progress(bool show) { shows_progress_ = show; }
  const TensorSource& source() const { return source_; }

  // The first error of a declaration.
  const Status& status() const { return status_; }
  // Each tensor once, in order of declaration.
  const std::vector<DeclaredTensor>& tensors() const { return tensors_; }
  size_t packed_bytes() const { return packed_bytes_; }

  // Takes the memory and fills it, in parallel; pages of the files are given back as they are done.
  // The result owns what the declared pointers then point to.
  Result<std::unique_ptr<platform::Memory>> Load(
      platform::ThreadPool& pool, platform::MemorySpace& space = platform::HostMemory());

 private:
  struct Source {
    SourceTensor tensor;
    kernels::WeightSource matrix;  // selected
    kernels::WeightSource whole;   // the same with all inputs
  };
  enum class Kind { kVector, kTable, kPacked };
  struct Entry {
    Kind kind = Kind::kPacked;
    Mat* mat = nullptr;
    kernels::PackedWeight* packed = nullptr;
    kernels::WeightFormat format = kernels::WeightFormat::kF32;
    std::vector<Source> sources;  // stacked; or gate and up
    bool gated = false;
    int64_t n = 0;
    int64_t k = 0;
    float random_value = 0;
    bool as_float32 = false;  // of a table
    size_t offset = 0;        // in the region
    size_t scale_offset = 0;  // of scales that do not lie behind the data (in rows)
  };
  // Rows [begin, begin + count) of one source (or gated pair) of an entry, which begin at output
  // `row`.
  struct Piece {
    const Entry* entry;
    int64_t source;
    int64_t begin;
    int64_t count;
    int64_t row;
  };

  Result<Source> Find(Part part, const Matrix& matrix);
  // Finds a matrix, or keeps the error and gives null. Valid until the next call.
  const Source* Need(Part part, const Matrix& matrix);
  kernels::WeightFormat AddGroup(Part part, const std::vector<const std::vector<Matrix>*>& halves,
                                 const std::vector<kernels::PackedWeight*>& out, bool fp8 = true);
  static std::vector<kernels::PackedWeight*> Places(const std::vector<Matrix>& matrices,
                                                    std::vector<kernels::PackedWeight>* out);
  void Add(Entry entry, size_t num_bytes);
  void AddPacked(std::vector<Entry> entries);
  size_t TakeBytes(size_t num_bytes);
  void AddPieces(const Entry& entry, std::vector<Piece>& pieces) const;
  // What one thread packs with.
  struct Scratch {
    std::vector<std::byte> random[2];
    std::vector<std::byte> aside;
    std::unique_ptr<platform::Memory> staging;  // a piece on its way to the space

    // Host memory for so many bytes, until the next call.
    Result<std::byte*> Stage(size_t num_bytes, platform::MemorySpace& space);
  };
  Status Fill(const Piece& piece, std::byte* region, Scratch& scratch,
              platform::MemorySpace& space) const;
  // Bytes that follow each other in the region.
  struct Run {
    size_t offset = 0;
    size_t num_bytes = 0;
  };
  static Run RowMajorRun(const Piece& piece);
  static DType ElementOf(const Entry& entry);
  static void FillRowMajor(const Piece& piece, std::byte* dst);
  static void FillTable(const Piece& piece, std::byte* dst);
  static void FillPacked(const Piece& piece, std::byte* region, Scratch& scratch);
  static kernels::WeightSource PieceOf(const Piece& piece, int64_t half, Scratch& scratch);
  static void DropPages(const Piece& piece, int64_t half, const kernels::WeightSource& part);
  static kernels::PackedWeight Describe(const Entry& entry, std::byte* region);
  // weight_rows.cc: the layout kRows, written by the host and copied to where the kernels read.
  static Status FillRows(const Piece& piece, std::byte* region, Scratch& scratch,
                         platform::MemorySpace& space);
  static kernels::PackedWeight DescribeRows(const Entry& entry, std::byte* region);

  const TensorSource& source_;
  DType activations_;
  kernels::WeightLayout layout_;
  bool mtp_ = false;
  bool shows_progress_ = true;
  Status status_;
  Source needed_;
  std::vector<Entry> entries_;
  std::vector<std::pair<size_t, std::byte**>> reserved_;  // from where in the region
  std::vector<DeclaredTensor> tensors_;
  std::unordered_map<std::string, SourceTensor> found_;
  size_t packed_bytes_ = 0;
};

}  // namespace moebius::model
