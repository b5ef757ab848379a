#!/usr/bin/env bash
# clang-format-19 leaves every C++ file as it is. `--fix` rewrites those it would change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mapfile -d '' files < <(git ls-files -z --cached --others --exclude-standard -- 'src/*.h' 'src/*.cc' \
  'src/*.cu' 'src/*.cuh' 'tests/*.h' 'tests/*.cc')
if [[ ${1:-} == --fix ]]; then
  clang-format-19 -i "${files[@]}"
else
  clang-format-19 --dry-run --Werror --ferror-limit=3 "${files[@]}"
fi
echo "format: ${#files[@]} files"
