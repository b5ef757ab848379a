// The twin of cuda/ops/backend.cc in a build without CUDA.
#include "kernels/backend.h"

namespace moebius::kernels {

Result<const Backend*> CudaBackend() {
  return MakeError(ErrorCode::kUnsupported,
                   "--device is 'cuda', but this build has no CUDA: build with the preset cuda");
}

}  // namespace moebius::kernels
