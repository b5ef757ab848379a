#!/usr/bin/env bash
# Runs a bundle of tools/cuda_bundle.sh on a GPU host: operations against the reference, models against the CPU, then a
# few figures of the demo. Each step prints its name and seconds; the exit status counts the steps that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
export LD_LIBRARY_PATH="$PWD/lib:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export MOEBIUS_ROOT=$PWD

failed=0
step() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
  else
    printf -- '-- %s: FAILED after %d s\n' "$name" $((SECONDS - start))
    failed=$((failed + 1))
  fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
step "operations" bin/kernels_test --gtest_filter='*Cuda*' --gtest_brief=1
for program in bin/*_test; do
  case $program in
    bin/platform_test | bin/kernels_test | bin/comm_test | bin/model_test | bin/moe_test | bin/device_test) ;;
    bin/engine_test | bin/exchange_test | bin/all_reduce_test | bin/failure_test) ;;
    *) step "$program" "$program" ;;
  esac
done
if [[ -x bin/platform_test ]]; then step "memory that processes share" bin/platform_test --gtest_filter='Cuda.*' --gtest_brief=1; fi
if [[ -x bin/comm_test ]]; then step "ranks' memory" bin/comm_test --gtest_filter='PeerDirectory*' --gtest_brief=1; fi
if [[ -x bin/moe_test ]]; then step "the exchange of ranks on one GPU" bin/moe_test --gtest_filter='DeviceExchange*' --gtest_brief=1; fi
if [[ -x bin/model_test ]]; then step "experts that move" bin/model_test --gtest_filter='CudaExpertSlots*' --gtest_brief=1; fi
step "models" bin/device_test --gtest_brief=1
step "the demo" bin/moebius run models/demo --device cuda -p "What is Moebius?" --temperature 0
for batch in 1 32; do
  step "the demo, batch $batch" bin/moebius bench latency models/demo --device cuda --batch-size $batch --input-len 64 \
    --output-len 128 --num-iters 3 --num-iters-warmup 1
done
exit $failed
