#!/usr/bin/env bash
# A room (a folder under src/) may include only itself and the rooms above it in this list; text/ sees only base/ and
# platform/, serve/ no kernels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rooms=(base platform net layout tensor kernels comm moe kv model plan engine rank text frontend serve bench app)

declare -A level
for i in "${!rooms[@]}"; do level[${rooms[$i]}]=$i; done

violations=0
complain() {
  printf '%s\n' "$*" >&2
  violations=$((violations + 1))
}

for folder in src/*/; do
  room=$(basename "$folder")
  [[ -n ${level[$room]:-} ]] || complain "src/$room is no room: expected one of ${rooms[*]}"
done

while IFS=: read -r file line include; do
  room=${file#src/}
  room=${room%%/*}
  included=${include#*\"}
  included=${included%%\"*}
  target=${included%%/*}
  [[ -n ${level[$room]:-} ]] || continue
  if [[ $included != */* || -z ${level[$target]:-} ]]; then
    complain "$file:$line: include \"$included\" from src/, with its room: \"room/file.h\""
    continue
  fi
  [[ $room == "$target" ]] && continue
  if ((level[$target] > level[$room])); then
    complain "$file:$line: $room/ may not include $target/ (\"$included\"), which is below it"
  fi
  case $room:$target in
    text:base | text:platform) ;;
    text:*) complain "$file:$line: text/ may include only base/ and platform/, not \"$included\"" ;;
    serve:kernels) complain "$file:$line: serve/ may not include kernels/" ;;
  esac
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' src --include='*.h' --include='*.cc' \
  --include='*.cu' --include='*.cuh' || true)

((violations == 0)) || exit 1
echo "layering: every include goes up"
