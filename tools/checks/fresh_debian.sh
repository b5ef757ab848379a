#!/usr/bin/env bash
# Does a clean checkout build, answer and pass its tests on a bare Debian 12? Makes a minimal bookworm with debootstrap,
# copies the committed tree into it, and runs ./setup, ./run and ./test there. Takes 10 to 30 minutes and 3 GB of disk.
#
#   tools/checks/fresh_debian.sh FOLDER [MIRROR]      as root; needs debootstrap
#     FOLDER   where the system goes; one that is there already is used again (packages and build included)
#     MIRROR   a Debian archive; default: the one that this machine's apt uses for bookworm
#   COMMANDS="./setup && build/release/moebius doctor" FOLDER ...   runs something else instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

system=${1:?usage: tools/checks/fresh_debian.sh FOLDER [MIRROR]}
commands=${COMMANDS:-"./setup && { [ -z \"\$(ls models/demo/*.safetensors 2>/dev/null)\" ] || ./run; } && ./test"}
[[ $(id -u) == 0 ]] || {
  echo "fresh_debian: debootstrap and chroot need root" >&2
  exit 1
}
command -v debootstrap >/dev/null || {
  echo "fresh_debian: needs debootstrap (apt-get install debootstrap)" >&2
  exit 1
}

# The archives that this machine's apt knows for a suite, or nothing.
apt_archive() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$1" '$1 == suite { print $2; exit }'
}

mirror=${2:-$(apt_archive bookworm)}
[[ -n $mirror ]] || {
  echo "fresh_debian: this machine's apt has no bookworm archive; name one as the second argument" >&2
  exit 1
}

if [[ ! -x $system/usr/bin/apt-get ]]; then
  echo "fresh_debian: making a minimal bookworm in $system"
  mkdir -p "$system"
  debootstrap --variant=minbase bookworm "$system" "$mirror" >"$system.log" 2>&1 || {
    tail -n 20 "$system.log" >&2
    exit 1
  }
  rm -f "$system.log"
fi

# What apt needs inside to reach the same archives: their addresses, the resolver, a proxy if there is one.
{
  echo "deb $mirror bookworm main"
  for suite in bookworm-updates bookworm-security; do
    archive=$(apt_archive "$suite")
    if [[ -n $archive ]]; then echo "deb $archive $suite main"; fi
  done
} >"$system/etc/apt/sources.list"
cp -L /etc/resolv.conf "$system/etc/resolv.conf"
# An installer writes it, and so does every container engine; debootstrap does not.
printf '127.0.0.1 localhost\n::1 localhost\n' >"$system/etc/hosts"
apt-config dump | grep -iE '^Acquire::[a-z]+::Proxy ' >"$system/etc/apt/apt.conf.d/90host-proxy" || true

mkdir -p "$system/srv/moebius"
# Files that are gone from the tree go too; what was built stays.
find "$system/srv/moebius" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
git archive HEAD | tar -x -C "$system/srv/moebius"

# A mount namespace of its own: whatever happens, no mount and no process is left behind.
echo "fresh_debian: $(git rev-parse --short HEAD) in $system"
# shellcheck disable=SC2016
SYSTEM=$system COMMANDS=$commands unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
  mount -t proc proc "$SYSTEM/proc"
  mkdir -p "$SYSTEM/dev/shm"
  mount -t tmpfs tmpfs "$SYSTEM/dev/shm"
  exec chroot "$SYSTEM" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    bash -c "cd /srv/moebius
      if command -v python3 >/dev/null; then echo \"fresh_debian: python3 is here, so this system is not bare\" >&2; fi
      start=\$SECONDS
      $COMMANDS
      status=\$?
      echo \"fresh_debian: exit \$status after \$((SECONDS - start)) s\"
      exit \$status"
' </dev/null
