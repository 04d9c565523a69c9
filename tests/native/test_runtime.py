"""The C++ runtime's own test, compiled and run; a hang is a failure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from skip_gate import find_compiler

HERE = Path(__file__).resolve().parent
CORE = HERE.parent.parent / "csrc"


def test_pools_and_jobs(tmp_path: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path / "runtime_test"
    sources = [HERE / "runtime_test.cc", *sorted((CORE / "runtime").glob("*.cc")), CORE / "core" / "error.cc"]
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{CORE}"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(program)], check=True)
    answer = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=120)
    assert answer.stdout == ""
    assert answer.returncode == 0
