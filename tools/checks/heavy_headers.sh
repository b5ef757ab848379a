#!/usr/bin/env bash
# Headers that cost compile time or pull in a library stay where they belong; elsewhere our own headers hide them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# include prefix | files that may have it (an extended regular expression on the path)
rules='
nlohmann/json.hpp|^(src|tests)/.*\.cc$|^src/.*/testing/
yaml-cpp/|^(src|tests)/.*\.cc$
CLI/|^src/app/
spdlog/|^src/base/log\.cc$
boost/beast|^src/net/
boost/asio|^src/net/|^src/(rank|serve)/.*\.cc$
google/protobuf|^src/rank/.*\.cc$
rank/engine_messages\.pb|^src/rank/engine_messages_.*\.cc$
hwloc|^src/platform/.*\.cc$
numa|^src/platform/.*\.cc$
pcre2|^src/text/.*\.cc$
xxhash|^src/.*\.cc$
openssl/|^src/.*\.cc$
gtest/|_test\.(h|cc)$|/testing/|test_util\.h$|^tests/
benchmark/|^src/bench/.*\.cc$
'

violations=0
while IFS='|' read -r prefix allowed; do
  [[ -n $prefix ]] || continue
  while IFS=: read -r file line _; do
    [[ $file =~ $allowed ]] && continue
    printf '%s:%s: %s* is included outside of %s\n' "$file" "$line" "$prefix" "$allowed" >&2
    violations=$((violations + 1))
  done < <(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$prefix" src tests --include='*.h' \
    --include='*.cc' --include='*.cu' --include='*.cuh' || true)
done <<<"$rules"

# nvcc does not compile these; a .cu file includes plain launch headers.
if grep -rnE '#[[:space:]]*include[[:space:]]*<(fmt|spdlog|nlohmann)/' src --include='*.cu' --include='*.cuh'; then
  violations=$((violations + 1))
fi

((violations == 0)) || exit 1
echo "heavy headers: all in their rooms"
