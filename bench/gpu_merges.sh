#!/usr/bin/env bash
# Whole merges by the processors and by the GPU, of files in memory: the same bytes, and where the time goes. After
# gpu_check.sh, whose build it uses; 3 minutes and 32 GB of memory. Each backend's first merge in a fresh process comes first
# (its start-up is what `start` says), then what pymerge measured of the way to the GPU.
#
#   BACKENDS='cpu cuda' SHAPE='--size 1.1B' METHODS='linear della' bench/gpu_merges.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PY:-python3}
folder=${1:-/dev/shm/pymerge-gpu}
read -ra backends <<<"${BACKENDS:-cpu cuda triton}"
read -ra shape <<<"${SHAPE:---size 70B --layers 3 --vocab 32000}"
read -ra methods <<<"${METHODS:-linear ties della}"
if [ -d build/gpu ]; then export PYTHONSAFEPATH=1 PYTHONPATH=$PWD/build/gpu; fi
mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
read -ra models <<<"$("$python" -m pymerge.bench.checkpoints "$folder" "${shape[@]}" --models 3 | tr '\n' ' ')"
for method in "${methods[@]}"; do
  recipe=$folder/$method.yml
  {
    echo "merge_method: $method"
    [ "$method" = linear ] || echo "base_model: ${models[0]}"
    echo 'models:'
    for model in "${models[@]:1}"; do
      echo "  - {model: ${model}, parameters: {weight: 0.4$([ "$method" = linear ] || echo ', density: 0.5')}}"
    done
    echo 'dtype: bfloat16'
  } >"$recipe"
  for backend in "${backends[@]}"; do
    echo "== $method, $backend"
    "$python" -m pymerge merge "$recipe" "$folder/$backend" --backend "$backend"
    cmp "$folder/${backends[0]}/model.safetensors" "$folder/$backend/model.safetensors"
    "$python" -m pymerge bench merge "$recipe" --out "$folder" --rounds 2 --history gpu_merges.jsonl -- --backend "$backend"
    [ "$backend" = "${backends[0]}" ] || rm -rf "${folder:?}/$backend"
  done
  rm -rf "${folder:?}/${backends[0]}"
done
"$python" - <<'PY'
import time

began = time.perf_counter()
from pymerge.backends.figures import find_devices, measure_figures

print(measure_figures(began) if find_devices() else "no GPU")
PY
