#include "kernels/backend.h"

namespace moebius::kernels {

const Backend* Avx2Backend() { return nullptr; }
const Backend* Avx512Backend() { return nullptr; }

}  // namespace moebius::kernels
