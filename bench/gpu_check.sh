#!/usr/bin/env bash
# On a machine with a GPU, its torch and nvcc: builds for that GPU, holds the CUDA kernels to their specification, looks at
# them with compute-sanitizer where it is, and times the kernels of both backends. Under 8 minutes; the table comes last.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PY:-python3}
history=${1:-gpu_check.jsonl}
built=$PWD/build/gpu
echo 'building'
PYMERGE_CUDA=ON PYMERGE_CUDA_ARCHITECTURES=native "$python" -m pip --disable-pip-version-check install -q \
  --no-build-isolation --no-deps --upgrade --target "$built" .
export PYTHONSAFEPATH=1 PYTHONPATH=$built
parallel=$("$python" -c 'from importlib.util import find_spec; print("-n auto -p no:benchmark" if find_spec("xdist") else "")')
# shellcheck disable=SC2086
PYMERGE_TEST_BACKEND=cuda "$python" -m pytest -q -o pythonpath=tests $parallel tests/conformance
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -m pymerge bench kernels --backend cuda --dtype bf16,f32 \
      --models 2,3 --size 70001 --rounds 1 --against none --format quiet
  done
fi
for backend in cuda triton; do
  "$python" -m pymerge bench kernels --backend "$backend" --dtype bf16 --models 2,3 --size 536870912 --rounds 8 \
    --against none --history "$history"
done
