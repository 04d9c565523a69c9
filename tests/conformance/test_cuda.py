"""The CUDA kernels without a GPU, compiled for the processor, through the cases that every backend meets.

In a process of its own: what stands for pymerge's compiled CUDA kernels there does so until it ends.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "emulated"


def test_emulated_kernels_give_the_specified_bits() -> None:
    assert list(BUILD.glob("_cuda*")), "make test builds the emulated kernels"
    environment = {**os.environ, "PYMERGE_TEST_BACKEND": "cuda", "PYMERGE_EMULATED_CUDA": str(BUILD)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
    assert "skipped" not in done.stdout
