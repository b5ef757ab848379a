#!/usr/bin/env bash
# Makes a folder that runs on a GPU host without Debian's packages: programs, the libraries they need, the demo model,
# the golden checkpoints, and check.sh, which builds nothing, tests, checks and times.
#   tools/cuda_bundle.sh BUILD_DIR OUT_DIR     (BUILD_DIR: cmake --preset cuda, targets moebius kernels_test device_test
#                                               and whatever of cuda_programs is wanted)
set -euo pipefail
if (($# != 2)); then
  sed -n '2,5s/^# \?//p' "${BASH_SOURCE[0]}"
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$1
out=$2
mkdir -p "$out"/{bin,lib,models,tests}

for program in moebius platform_test kernels_test comm_test model_test moe_test tests/device_test tests/device_ranks_test \
  tests/failure_test; do
  if [[ -x $build/$program ]]; then cp "$build/$program" "$out/bin/"; fi
done
find "$build/cuda" -maxdepth 1 -type f -executable -exec cp {} "$out/bin/" \; 2>/dev/null || true
strip --strip-debug "$out"/bin/*

# Of the C library and the compiler's run time the host has its own; mixing them breaks both.
for program in "$out"/bin/*; do ldd "$program" | awk '/=> \// {print $3}'; done | sort -u |
  grep -Ev '/(ld-linux|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)[.-]' |
  while read -r library; do cp -L "$library" "$out/lib/"; done

cp -r "$root/models/demo" "$out/models/"
cp -r "$root/tests/golden" "$out/tests/"
cp "$root/tools/cuda_check.sh" "$out/check.sh"
cp "$root/tools/cuda_ranks.sh" "$out/ranks.sh"
du -sh "$out"
