#!/usr/bin/env bash
# Clients that people use, against the real server: tests/clients/NAME_test.py.
#
#   tests/clients/run.sh [NAME...] [-- pytest arguments]      none named: all
#
# MOEBIUS_BIN: the program (default build/release/moebius). Needs tests/clients/setup.sh, which it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/common.sh
source tools/common.sh

names=()
while (($# > 0)) && [[ $1 != -- ]]; do
  [[ -f tests/clients/$1_test.py ]] || fail "there is no tests/clients/$1_test.py"
  names+=("$1")
  shift
done
[[ ${1:-} == -- ]] && shift
if ((${#names[@]} == 0)); then
  for file in tests/clients/*_test.py; do
    name=${file##*/}
    names+=("${name%_test.py}")
  done
fi

parts=(python)
for name in "${names[@]}"; do
  case $name in
    lm_eval | aiperf | prometheus) parts+=("$name") ;;
    page) parts+=(chromium) ;;
  esac
done
tests/clients/setup.sh "${parts[@]}"

failed=()
for name in "${names[@]}"; do
  say "== $name"
  PYTHONDONTWRITEBYTECODE=1 build/clients/venv/bin/python -m pytest -q -p no:cacheprovider \
    "tests/clients/${name}_test.py" "$@" || failed+=("$name")
done
((${#failed[@]} == 0)) || fail "failed: ${failed[*]}"
