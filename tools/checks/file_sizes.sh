#!/usr/bin/env bash
# Source files: above 500 lines a warning, above 800 (src/kernels: 1000) an error. tests/golden: at most 10 MB together.
# No single tracked file above 30 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

violations=0
num_files=0
while IFS= read -r -d '' file; do
  [[ -f $file ]] || continue
  case $file in
    *.h | *.cc | *.cu | *.cuh | *.py | *.sh | *.cmake | setup | run | test | .ci/run) ;;
    *) continue ;;
  esac
  lines=$(wc -l <"$file")
  limit=800
  [[ $file == src/kernels/* ]] && limit=1000
  num_files=$((num_files + 1))
  if ((lines > limit)); then
    printf '%s: %d lines, at most %d are allowed\n' "$file" "$lines" "$limit" >&2
    violations=$((violations + 1))
  elif ((lines > 500)); then
    printf '%s: %d lines: think again above 500 (warning)\n' "$file" "$lines"
  fi
done < <(git ls-files -z --cached --others --exclude-standard)

golden_bytes=0
if [[ -d tests/golden ]]; then golden_bytes=$(du -sb tests/golden | cut -f1); fi
if ((golden_bytes > 10000000)); then
  printf 'tests/golden: %d bytes, at most 10000000 are allowed\n' "$golden_bytes" >&2
  violations=$((violations + 1))
fi

while IFS= read -r -d '' file; do
  [[ -f $file ]] || continue
  bytes=$(stat -c %s "$file")
  if ((bytes > 30000000)); then
    printf '%s: %d bytes, at most 30000000 are allowed\n' "$file" "$bytes" >&2
    violations=$((violations + 1))
  fi
done < <(git ls-files -z)

((violations == 0)) || exit 1
echo "file sizes: $num_files source files, golden data $((golden_bytes / 1000)) kB"
