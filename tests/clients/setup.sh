#!/usr/bin/env bash
# What the client tests need besides Moebius, under build/clients: a Python venv, Prometheus (its programs only, unpacked
# from Debian's package: nothing is installed or started), and Chromium (installed if there is none). Safe to run again.
#
#   tests/clients/setup.sh [python] [lm_eval] [aiperf] [prometheus] [chromium]      none named: all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/common.sh
source tools/common.sh

folder=build/clients
mkdir -p "$folder"

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# Debian's python3 comes without venv.
need_venv() {
  python3 -c 'import venv, ensurepip' 2>/dev/null && return
  say "python3-venv"
  as_root apt-get -q update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 python3-venv >/dev/null
}

setup_python() {
  local stamp=$folder/venv/requirements.sha256
  sha256sum --status -c "$stamp" 2>/dev/null && return
  say "a venv for the client tests"
  need_venv
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install -q --disable-pip-version-check -r tests/clients/requirements.txt
  sha256sum tests/clients/requirements.txt >"$stamp"
}

# The bigger ones have venvs of their own: their requirements are not ours.
setup_venv() {
  [[ -f $folder/$1/ready ]] && return
  say "a venv for $1"
  need_venv
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/pip" install -q --disable-pip-version-check "$2"
  touch "$folder/$1/ready"
}
setup_lm_eval() { setup_venv lm_eval 'lm_eval[api]==0.4.13'; }
setup_aiperf() { setup_venv aiperf aiperf==0.13.0; }

setup_prometheus() {
  [[ -x $folder/prometheus/usr/bin/prometheus ]] && return
  say "prometheus, unpacked"
  local packages
  packages=$(mktemp -d)
  # apt drops to a user of its own when it can, and that one must be able to write here.
  chmod 755 "$packages"
  (cd "$packages" && apt-get -q download prometheus >/dev/null 2>&1) ||
    (as_root apt-get -q update >/dev/null && cd "$packages" && apt-get -q download prometheus >/dev/null)
  dpkg-deb -x "$packages"/prometheus_*.deb "$folder/prometheus"
  rm -r "$packages"
}

setup_chromium() {
  command -v chromium >/dev/null && return
  say "chromium and a font"
  as_root apt-get -q update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 chromium fonts-dejavu-core >/dev/null
}

for part in "${@:-python lm_eval aiperf prometheus chromium}"; do
  for name in $part; do
    case $name in
      python | lm_eval | aiperf | prometheus | chromium) "setup_$name" ;;
      *) fail "unknown part '$name' (see the head of this file)" ;;
    esac
  done
done
