#include "kernels/cuda/gemm/dense_products.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <utility>

#include "platform/cuda/memory.h"

namespace moebius::kernels::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;

// The library's functions that we call.
struct Functions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
};

Result<Functions> FindLibrary() {
  constexpr const char* kName = "libcublasLt.so.13";
  void* library = nullptr;
  for (const char* path : {kName, "/usr/local/cuda/lib64/libcublasLt.so.13"}) {
    if (library == nullptr) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    return MakeError(ErrorCode::kUnavailable,
                     "{} is not there, expected it on the library path or in /usr/local/cuda/lib64",
                     kName);
  }
  Functions f{};
  const char* missing = nullptr;
  const auto find = [&]<typename F>(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  find(f.create, "cublasLtCreate");
  find(f.destroy, "cublasLtDestroy");
  find(f.matmul, "cublasLtMatmul");
  find(f.desc_create, "cublasLtMatmulDescCreate");
  find(f.desc_set, "cublasLtMatmulDescSetAttribute");
  find(f.layout_create, "cublasLtMatrixLayoutCreate");
  find(f.layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(f.preference_create, "cublasLtMatmulPreferenceCreate");
  find(f.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(f.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(f.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  if (missing != nullptr) {
    return MakeError(ErrorCode::kUnavailable, "{} has no {}", kName, missing);
  }
  return f;
}

cudaDataType_t TypeOf(DType dtype) { return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// The largest power of two up to 256 that divides the address.
uint32_t AlignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

// What a shape needs, kept for the life of the process: shapes are few.
struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool served = false;
};

using Key = std::array<int64_t, 16>;

}  // namespace

const char* const DenseProducts::kUnserved = "cuBLASLt has no kernel for this shape";

struct DenseProducts::Impl {
  Functions f;
  cublasLtHandle_t handle = nullptr;
  platform::cuda::DeviceMemory workspace;
  std::map<Key, Plan> plans;

  ~Impl() {
    if (handle != nullptr) f.destroy(handle);
  }

  cublasLtMatrixLayout_t Layout(DType dtype, int64_t rows, int64_t cols, int64_t stride,
                                int64_t batch, int64_t batch_stride) const {
    cublasLtMatrixLayout_t layout = nullptr;
    f.layout_create(&layout, TypeOf(dtype), static_cast<uint64_t>(rows),
                    static_cast<uint64_t>(cols), stride);
    if (batch > 1 && layout != nullptr) {
      const auto count = static_cast<int32_t>(batch);
      f.layout_set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count));
      f.layout_set(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                   sizeof(batch_stride));
    }
    return layout;
  }

  // The library's matrices are stored by columns: out^T [n, rows] = w (read as [k, n], transposed;
  // if it was, as [n, k]) times a^T [k, rows].
  Plan MakePlan(const DenseProduct& p) const {
    Plan plan;
    f.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t w_form = p.w_transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
    f.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, &w_form, sizeof(w_form));
    plan.w = p.w_transposed ? Layout(p.dtype, p.n, p.k, p.n, p.batch, p.w_batch)
                            : Layout(p.dtype, p.k, p.n, p.k, p.batch, p.w_batch);
    plan.a = Layout(p.dtype, p.k, p.rows, p.a_stride, p.batch, p.a_batch);
    plan.out = Layout(p.out_dtype, p.n, p.rows, p.out_stride, p.batch, p.out_batch);
    cublasLtMatmulPreference_t preference = nullptr;
    f.preference_create(&preference);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      f.preference_set(preference, name, &value, sizeof(value));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(p.w));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(p.a));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(p.out));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(p.out));
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = f.heuristic(handle, plan.desc, plan.w, plan.a, plan.out, plan.out,
                                              preference, 1, &result, &found);
    f.preference_destroy(preference);
    plan.served = status == CUBLAS_STATUS_SUCCESS && found > 0;
    plan.algorithm = result.algo;
    return plan;
  }
};

Result<std::unique_ptr<DenseProducts>> DenseProducts::Create() {
  auto impl = std::make_unique<Impl>();
  MOEBIUS_ASSIGN(impl->f, FindLibrary());
  MOEBIUS_ASSIGN(impl->workspace, platform::cuda::DeviceMemory::Allocate(kWorkspaceBytes));
  const cublasStatus_t status = impl->f.create(&impl->handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return MakeError(ErrorCode::kUnavailable, "cuBLASLt does not start: status {}",
                     static_cast<int>(status));
  }
  return std::unique_ptr<DenseProducts>(new DenseProducts(std::move(impl)));
}

DenseProducts::DenseProducts(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DenseProducts::~DenseProducts() = default;

const char* DenseProducts::Run(const DenseProduct& p, CUstream_st* stream) {
  const Key key = {p.rows,
                   p.n,
                   p.k,
                   p.batch,
                   p.a_stride,
                   p.a_batch,
                   p.w_batch,
                   p.out_stride,
                   p.out_batch,
                   static_cast<int64_t>(p.dtype),
                   static_cast<int64_t>(p.out_dtype),
                   AlignmentOf(p.a),
                   AlignmentOf(p.w),
                   AlignmentOf(p.out),
                   p.accumulate ? 1 : 0,
                   p.w_transposed ? 1 : 0};
  auto it = impl_->plans.find(key);
  if (it == impl_->plans.end()) it = impl_->plans.emplace(key, impl_->MakePlan(p)).first;
  const Plan& plan = it->second;
  if (!plan.served) return kUnserved;
  const float one = 1.0f;
  const float beta = p.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status = impl_->f.matmul(
      impl_->handle, plan.desc, &one, p.w, plan.w, p.a, plan.a, &beta, p.out, plan.out, p.out,
      plan.out, &plan.algorithm, impl_->workspace.data(), kWorkspaceBytes, stream);
  return status == CUBLAS_STATUS_SUCCESS ? nullptr : "cuBLASLt refused a product";
}

}  // namespace moebius::kernels::cuda
