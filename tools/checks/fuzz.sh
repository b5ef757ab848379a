#!/usr/bin/env bash
# Builds the fuzzers of tests/fuzz and runs each for a while, one a core.
#   tools/checks/fuzz.sh [SECONDS]      default 60
# New inputs stay in build/asan/fuzz/corpus; what a fuzzer breaks on stays in build/asan/fuzz/crashes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/common.sh
source tools/common.sh

export FUZZ_SECONDS=${1:-60}

fuzz_one() {
  local program=$1 name
  name=$(basename "$1")
  local corpus=build/asan/fuzz/corpus/$name
  mkdir -p "$corpus" build/asan/fuzz/crashes
  local -a seeds=()
  [[ -d tests/fuzz/corpus/$name ]] && seeds=("tests/fuzz/corpus/$name")
  if ! "$program" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="build/asan/fuzz/crashes/$name-" "$corpus" "${seeds[@]}" \
    >"build/asan/fuzz/$name.log" 2>&1; then
    tail -n 60 "build/asan/fuzz/$name.log"
    printf '%s: FAILED; the input is in build/asan/fuzz/crashes\n' "$name"
    return 1
  fi
  printf '%s: %s runs\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "build/asan/fuzz/$name.log")"
}

build asan fuzzers
mapfile -t programs < <(find build/asan/tests/fuzz -maxdepth 1 -name '*_fuzz' -type f -perm -u+x | sort)
((${#programs[@]} > 0)) || fail "build/asan/tests/fuzz holds no fuzzer"
export -f fuzz_one
# shellcheck disable=SC2016
printf '%s\0' "${programs[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'set -euo pipefail; fuzz_one "$1"' fuzz
