# shellcheck shell=bash
# What setup, run, test and .ci/run share. Sourced, not run.

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Prints the number of a file that holds one, or nothing ("max", no file).
read_number() {
  local value=""
  [[ -r $1 ]] && read -r value <"$1"
  [[ $value =~ ^[0-9]+$ ]] && printf '%s\n' "$value"
  return 0
}

# Megabytes that a build may take: what is available, within the limit of a container.
available_mb() {
  local key value mb=2048 limit usage folder
  while read -r key value _; do
    [[ $key == MemAvailable: ]] && mb=$((value / 1024))
  done </proc/meminfo
  folder=/sys/fs/cgroup
  limit=$(read_number $folder/memory.max)
  usage=$(read_number $folder/memory.current)
  if [[ -z $limit ]]; then
    limit=$(read_number $folder/memory/memory.limit_in_bytes)
    usage=$(read_number $folder/memory/memory.usage_in_bytes)
  fi
  # A version 1 group without a limit has a huge one. File pages in `usage` can be dropped: at least half may be used.
  if [[ -n $limit && ${#limit} -lt 16 ]]; then
    local free=$(((limit - ${usage:-0}) / 1048576)) half=$((limit / 2097152))
    ((free < half)) && free=$half
    ((free < mb)) && mb=$free
  fi
  printf '%s\n' "$mb"
}

# Parallel jobs of a build: one a core, about 1.2 GB of memory each; MOEBIUS_JOBS overrides.
build_jobs() {
  local cores by_memory
  cores=$(nproc)
  by_memory=$(($(available_mb) / 1200))
  ((by_memory < 1)) && by_memory=1
  printf '%s\n' "${MOEBIUS_JOBS:-$((cores < by_memory ? cores : by_memory))}"
}

# build PRESET [TARGET...]: configures build/PRESET where needed and builds; a fresh tree costs nothing and says nothing.
build() {
  local preset=$1 folder=build/$1 home="" output target
  local -a targets=()
  shift
  for target in "$@"; do targets+=(--target "$target"); done
  if [[ -f $folder/CMakeCache.txt ]]; then
    home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$folder/CMakeCache.txt")
    # A checkout that was moved or copied: CMake refuses its cache.
    [[ $home == "$PWD" ]] || rm -rf "$folder"
  fi
  if [[ ! -f $folder/build.ninja || CMakePresets.json -nt $folder/build.ninja ]]; then
    say "configuring $folder"
    if ! output=$(cmake --preset "$preset" 2>&1); then
      printf '%s\n' "$output" >&2
      return 1
    fi
    touch "$folder/build.ninja"
  fi
  # Lines of a no-op build are noise; grep's status says only whether anything was left.
  cmake --build "$folder" "${targets[@]}" -- -j "$(build_jobs)" 2>&1 |
    { grep --line-buffered -v -E 'ninja: (no work to do|Entering directory)|Re-checking globbed|GLOB mismatch|^-- (Configuring done|Generating done|Build files)' || true; }
  return "${PIPESTATUS[0]}"
}
