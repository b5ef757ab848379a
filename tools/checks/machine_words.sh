#!/usr/bin/env bash
# Nothing in the repository speaks of the machine it was written on: no path into somebody's home or into the folder
# that holds this checkout, no package index of one site.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

search=(git grep --untracked -nI)
where=(-- . ':!tools/checks/machine_words.sh' ':!LICENSE' ':!models/demo/*.json' ':!tests/golden')

found=0
if "${search[@]}" -E '(^|[^A-Za-z0-9_./$}])/(root|Users|home/[a-z][a-z0-9_-]*)/' "${where[@]}"; then found=1; fi
if "${search[@]}" -E -e '--(extra-)?index-url|PIP_INDEX_URL|https?_proxy=' "${where[@]}"; then found=1; fi

# The folder around this checkout, unless its name says nothing.
parent=$(dirname "$PWD")
case $parent in
  / | /tmp | /var/tmp | /home | /opt | /usr/src | /srv | /mnt) parent=$PWD ;;
esac
if "${search[@]}" -F "$parent/" "${where[@]}"; then found=1; fi

if ((found)); then
  echo "machine words: the lines above name a place that only one machine has" >&2
  exit 1
fi
echo "machine words: none"
