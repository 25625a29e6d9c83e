#!/usr/bin/env bash
# The engine under generated input, for as long as it takes: `make soak`.
#
# Every step is run, whatever became of those before it. Prints a table, writes target/soak/soak.json and the log of each step
# beside it, and ends with a failure when a step failed. Steps of one program may be run one at a time; when all have gone
# well in full size, their table is written to docs/reliability.md. Sizes:
#   SOAK_CASES  generated pods and presets, each compared with an independent reading of the contract [1000000]
#   SOAK_RUNS   executions of all fuzz targets together [10000000]
#   SOAK_PODS   generated pods through each API server, the oldest and the newest [5000]
#   SOAK_STEPS  which steps, of cases, fuzz (or fuzz-TARGET for one target), pods [all three]
# About an hour on two cores that have nothing else to do.
set -euo pipefail
shopt -s inherit_errexit
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

cases=${SOAK_CASES:-1000000} runs=${SOAK_RUNS:-10000000} pods=${SOAK_PODS:-5000}
steps=" ${SOAK_STEPS:-cases fuzz pods} "
cargo=${CARGO:-cargo}
out=${CARGO_TARGET_DIR:-target}/soak
rows=$out/rows
program=$(tests/support/program.sh 2>/dev/null || true)
size="$cases cases, $runs executions, $pods pods"

# How many of a hundred executions each target gets: what is quick gets most.
declare -A share=(
  [certificates]=5 [cluster_api]=2 [edits]=4 [hooks]=4 [host_files]=4 [no_proxy]=20 [presets]=3 [review]=18 [routes]=40
)
for name in $steps; do
  case $name in
    cases | fuzz | pods) continue ;;
    fuzz-*) [[ ! -v share[${name#fuzz-}] ]] || continue ;;
  esac
  echo "SOAK_STEPS: $name is no step; expected cases, fuzz, pods, or fuzz- and one of: ${!share[*]}" >&2
  exit 2
done
# reach has no unsafe code, and without a sanitizer there are twice as many executions in the time; `make fuzz` has one.
sanitizer=none
# No input may need more than this much memory, in MiB, or time, in seconds.
memory=1024
patience=20

# step NAME WHAT COUNT COMMAND...: runs a step; `figures` says what its log has to say for the table.
step() {
  local name=$1 what=$2 count=$3 begin=$SECONDS result=ok
  shift 3
  printf '%s: %s\n' "$name" "$what" >&2
  if ! "$@" >"$out/$name.log" 2>&1; then
    result=failed
    tail -n 30 "$out/$name.log" >&2
  fi
  jq -n --arg name "$name" --arg what "$what" --argjson count "$count" --argjson seconds $((SECONDS - begin)) \
    --arg result "$result" --arg figures "$(figures "$out/$name.log")" --arg program "$program" --arg size "$size" \
    '{$name, $what, $count, $seconds, $result, $figures, $program, $size}' >"$rows/$name.json"
}

figures() {
  local executed peak
  grep -oE 'generated pods: .*|[0-9]+ passed; [0-9]+ failed' "$1" || true
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1")
  peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$1")
  if [[ -n $executed ]]; then echo "$executed executed, at most $peak MiB"; fi
}

properties() { REACH_CASES=$cases "$cargo" test --locked --profile soak --test properties; }

fuzz() {
  local target=$1
  mkdir -p "fuzz/corpus/$target"
  cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -runs="$2" -rss_limit_mb=$memory -timeout=$patience -print_final_stats=1 -dict="fuzz/dictionaries/$target"
}

through() {
  local programs
  programs=$("$1")
  KUBEBUILDER_ASSETS=$programs REACH_PODS=$pods "$cargo" test --locked --test e2e -- --nocapture generated::
}

mkdir -p "$rows"
if [[ $steps == *" cases "* ]]; then
  step cases "generated pods and presets" "$cases" properties
fi
if [[ $steps == *" fuzz"[\ -]* ]]; then
  cargo +nightly fuzz build --sanitizer "$sanitizer"
  # As many at the same time as there are cores.
  for target in "${!share[@]}"; do
    [[ $steps == *" fuzz "* || $steps == *" fuzz-$target "* ]] || continue
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n || true; done
    count=$((runs * share[$target] / 100))
    step "fuzz-$target" "executions of the fuzz target $target" "$count" fuzz "$target" "$count" &
  done
  wait
fi
if [[ $steps == *" pods "* ]]; then
  step pods-oldest "generated pods, oldest Kubernetes" "$pods" through tests/control-plane/oldest/build.sh
  step pods-newest "generated pods, newest Kubernetes" "$pods" through tests/control-plane/build.sh
fi
jq -s --arg program "$program" --arg date "$(date -u +%F)" --argjson cores "$(nproc)" \
  '{$program, $date, $cores, steps: map(select(.program == $program)) | sort_by(.name)}' "$rows"/*.json >"$out/soak.json"
jq -r '.steps[] | [.name, .count, .seconds, .result, (.figures | gsub("\n"; "; "))] | @tsv' "$out/soak.json" |
  while IFS=$'\t' read -r name count seconds result figures; do
    printf '%-18s %9s %6s s  %-7s %s\n' "$name" "$count" "$seconds" "$result" "$figures"
  done
jq -e 'all(.steps[]; .result == "ok")' "$out/soak.json" >/dev/null

full="1000000 cases, 10000000 executions, 5000 pods"
if jq -e --arg full "$full" --argjson all $((${#share[@]} + 3)) \
  '(.steps | length) == $all and all(.steps[]; .size == $full)' "$out/soak.json" >/dev/null; then
  table=$(jq -r '"Measured on \(.date) of the program of commit `\(.program)`, on a machine with \(.cores) processors, by `make soak`.\n",
    "| step | | count | time | |", "|---|---|--:|--:|---|",
    (.steps[] | "| \(.name) | \(.what) | \(.count) | \(.seconds) s | \(.figures | gsub("\n"; "; ")) |")' "$out/soak.json")
  document=docs/reliability.md
  {
    sed '/^<!-- soak: written/q' $document
    printf '%s\n' "$table"
    sed -n '/^<!-- end of soak/,$p' $document
  } >"$out/document"
  cat "$out/document" >$document
fi
