#!/usr/bin/env bash
# Runs a bundle of tools/cuda_bundle.sh on a host of several GPUs: tests of layouts, exchange and failures first, then
# tables, all within the time it is given; what no longer fits is named. Figures are JSON in OUT, which
# bench/gpu_rows.py makes into tables.
#   cuda_ranks.sh OUT [SECONDS]     (600 s unless told)
#   GPUS=2   so many of the host's GPUs (default: all)
#   EPS="8 32" BATCHES="256 8" ROUTINGS="uniform hot:1.8"    slices of such deployments, of so many requests a GPU
#   MODELS="r1 qwen3 maverick" REQUESTS="1 128"               layouts of these, with so many requests over all GPUs
#   PARTS="tests exchange layouts slices long balance"       some of it
set -uo pipefail
if (($# < 1)); then
  sed -n '2,9s/^# \?//p' "${BASH_SOURCE[0]}"
  exit 2
fi
out=$1
limit=${2:-600}
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
mkdir -p "$out"
export LD_LIBRARY_PATH="$PWD/lib:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export MOEBIUS_ROOT=$PWD
gpus=${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)}
CUDA_VISIBLE_DEVICES=$(seq -s, 0 $((gpus - 1)))
export CUDA_VISIBLE_DEVICES
parts=" ${PARTS:-tests exchange layouts slices long balance} "

failed=0
# step NAME MOST_SECONDS COMMAND...: its output goes to a file of that name; what has no time left is not begun.
step() {
  local name=$1 most=$2 start=$SECONDS status
  shift 2
  if ((SECONDS + most / 2 > limit)); then
    printf '%-44s not run: no time\n' "$name"
    return
  fi
  timeout "$most" "$@" >"$out/$name.log" 2>&1
  status=$?
  printf '%-44s %4d s' "$name" $((SECONDS - start))
  if ((status == 0)); then
    printf '   %s\n' "$(grep -E '^(TPOT|output tokens|\[  PASSED)' "$out/$name.log" | tr -s ' ' | paste -sd' ' | cut -c1-70)"
  else
    printf '   FAILED (%d): %s\n' "$status" "$(tail -1 "$out/$name.log" | cut -c1-60)"
    failed=$((failed + 1))
  fi
}
# latency NAME MOST_SECONDS MODEL BATCH FLAGS...: a batch of so many requests over all ranks.
latency() {
  local name=$1 most=$2 model=$3 batch=$4
  shift 4
  step "$name" "$most" bin/moebius bench latency "$model" --load-format dummy --device cuda --batch-size "$batch" \
    --input-len "${input:-256}" --output-len 128 --num-iters 1 --num-iters-warmup 0 --max-model-len 4096 \
    --max-num-seqs 1024 --max-num-batched-tokens 8192 --output-json "$out/$name.json" "$@"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
if [[ $parts == *" tests "* ]]; then
  step device_ranks 200 bin/device_ranks_test --gtest_brief=1
  step failures 90 bin/failure_test --gtest_filter='*OnGpus*' --gtest_brief=1
  step exchange_test 100 bin/exchange_test --repeats 1
  step all_reduce_test 60 bin/all_reduce_test
  step collectives 60 bin/comm_test --gtest_filter='PeerDirectory*:Members*' --gtest_brief=1
fi
if [[ $parts == *" exchange "* ]]; then
  step exchange 120 bin/moebius bench exchange --device cuda --ranks "$gpus" --json "$out/exchange.jsonl"
fi
if [[ $parts == *" layouts "* ]]; then
  # Layers are cut so that one GPU could hold them; what is compared are layouts of one model.
  declare -A models=([r1]=deepseek-ai/DeepSeek-R1 [qwen3]=Qwen/Qwen3-235B-A22B
    [maverick]=meta-llama/Llama-4-Maverick-17B-128E-Instruct)
  declare -A layers=([r1]=8 [qwen3]=16 [maverick]=8)
  for model in ${MODELS:-r1 qwen3 maverick}; do
    for batch in ${REQUESTS:-1 16 128 1024}; do
      for layout in "tp-ep -tp $gpus -ep" "dp-ep -dp $gpus -ep" "tp -tp $gpus" "pp-tp -pp 2 -tp $((gpus / 2))"; do
        read -r name flags <<<"$layout"
        # shellcheck disable=SC2086  # flags are words
        latency "layout-$model-$name-$batch" 60 "${models[$model]}" "$batch" $flags --block-size 64 \
          --hf-overrides "{\"num_hidden_layers\":${layers[$model]}}"
      done
    done
  done
fi
# Of DeepSeek-V3 over EP ranks: each GPU has as many experts, and their rows, as one of EP would.
slice() {
  local ep=$1 batch=$2 routing=$3 name=$4
  latency "slice-ep$ep-$batch-$name" "${5:-60}" deepseek-ai/DeepSeek-V3 $((batch * gpus)) -dp "$gpus" -ep \
    --block-size 64 --routing "$routing" \
    --hf-overrides "{\"num_hidden_layers\":61,\"n_routed_experts\":$((256 * gpus / ep)),\"n_group\":1,\"topk_group\":1}"
}
if [[ $parts == *" long "* ]]; then
  input=2048 slice 64 256 uniform uniform2k 180
fi
if [[ $parts == *" slices "* ]]; then
  for batch in ${BATCHES:-256 64 512 8 1}; do
    for ep in ${EPS:-8 32 64 16}; do
      # Evenly, and as the rank with most to do of a deployment without balancing has it.
      # (Where a token has all experts of a GPU, none can have more.)
      for routing in ${ROUTINGS:-uniform hot:1.8}; do
        [[ $routing == hot:* ]] && ((144 / gpus >= 2560 / ep)) && continue
        slice "$ep" "$batch" "$routing" "${routing/:/}"
      done
    done
  done
fi
if [[ $parts == *" balance "* ]]; then
  for eplb in "" "--enable-eplb --num-redundant-experts $((8 * gpus))"; do
    # shellcheck disable=SC2086
    latency "balance-$([[ -n $eplb ]] && echo on || echo off)" 90 deepseek-ai/DeepSeek-V3 $((128 * gpus)) -dp "$gpus" -ep \
      --block-size 64 --routing zipf:1 --hf-overrides '{"num_hidden_layers":8}' --print-load $eplb
  done
fi
printf '%d of the steps failed; %d s\n' "$failed" "$SECONDS"
exit "$failed"
