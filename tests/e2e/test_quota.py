"""A quota that runs out in the middle: system calls that say so, since few machines can mount a disk with quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from execute import merges
from skip_gate import find_compiler

import pymerge

#: Writes at an offset succeed for so many bytes in all, and then meet the quota.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long left = 8 << 20;

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  if (atomic_fetch_sub(&left, (long)size) < (long)size) {
    errno = EDQUOT;
    return -1;
  }
  ssize_t (*next)(int, const void*, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
  return next(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off_t offset) {
  return pwrite(fd, data, size, offset);
}
"""


def test_a_quota_that_runs_out_ends_the_merge_and_keeps_what_is_done(tmp_path: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    command = [compiler, "-x", "c", "-shared", "-fPIC", "-O1", str(tmp_path / "shim.c"), "-o", str(shim), "-ldl"]
    subprocess.run(command, check=True)
    tensors = {f"layers.{i}.weight": np.ones((1 << 20,), np.float32) for i in range(5)}
    models = merges.write_models(tmp_path, [tensors, tensors])
    recipe, out = tmp_path / "recipe.yml", tmp_path / "out"
    listed = "".join(f"  - model: {model}\n    parameters: {{weight: 0.5}}\n" for model in models)
    recipe.write_text(f"merge_method: linear\nmodels:\n{listed}dtype: float32\n")
    done = subprocess.run(
        [sys.executable, "-m", "pymerge", "merge", str(recipe), str(out), "--threads", "1"],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "cannot write: Disk quota exceeded; free some space or choose another output folder" in done.stderr
    assert f"of 5 tensors are kept in {out}" in done.stderr
    # Whole pages of it.
    assert pymerge.merge(recipe, out).execution.kept > 3 << 20
