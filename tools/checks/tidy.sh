#!/usr/bin/env bash
# clang-tidy-19 on the C++ files that changed, most recently changed first, until a time budget is spent. Tests only by name.
#   tools/checks/tidy.sh [--budget SECONDS] [--base REF] [FILE...]
# Without FILE: those that differ from REF (default: everything, ordered by last commit). Each file is read for itself (preset
# `files`), so that a missing include is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

budget=3600
base=""
files=()
while (($# > 0)); do
  case $1 in
    --budget)
      budget=$2
      shift
      ;;
    --base)
      base=$2
      shift
      ;;
    *) files+=("$1") ;;
  esac
  shift
done
if [[ ! -f build/files/compile_commands.json ]]; then cmake --preset files >/dev/null; fi
# Messages that a generator writes are headers of some.
cmake --build build/files --target engine_messages >/dev/null

if ((${#files[@]} == 0)); then
  # Uncommitted changes first, then by commit; --name-only of a shallow history still lists all files once.
  mapfile -t files < <({
    git diff --name-only HEAD
    git ls-files --others --exclude-standard
    if [[ -n $base ]]; then git log --format= --name-only "$base..HEAD"; else git log --format= --name-only; fi
  } | grep -E '^src/.*\.cc$' | grep -v -E '_test\.cc$' | awk '!seen[$0]++' || true)
fi
known=()
for file in "${files[@]}"; do
  # A file that no target compiles (a fuzzer) has no command to check it with.
  [[ -f $file ]] && grep -q "\"file\": \"$PWD/$file\"" build/files/compile_commands.json && known+=("$file")
done
if ((${#known[@]} == 0)); then
  echo "tidy: no file to check"
  exit 0
fi

done_list=$(mktemp)
trap 'rm -f "$done_list"' EXIT
deadline=$(($(date +%s) + budget))
export deadline done_list
# One short-lived shell a file, so that the budget is looked at between files.
# shellcheck disable=SC2016
printf '%s\0' "${known[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c '
  (($(date +%s) < deadline)) || exit 0
  if output=$(clang-tidy-19 -p build/files --quiet --extra-arg=-Wno-unknown-warning-option "$1" 2>/dev/null); then
    echo "$1" >>"$done_list"
  else
    printf "%s\n" "$output" >&2
    exit 1
  fi' tidy
echo "tidy: $(wc -l <"$done_list") of ${#known[@]} files checked, no findings"
