"""Nothing but the command line rests on the benchmarks: a merge never loads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
IMPORT = re.compile(r"^\s*(?:from|import)\s+(?:pymerge\.bench|pymerge\s+import\s+.*\bbench\b|bench\b)", re.MULTILINE)


def test_only_the_command_imports_the_benchmarks() -> None:
    files = [path for tree in ("pymerge", "kernels") for path in (ROOT / tree).rglob("*.py")]
    importing = [str(path.relative_to(ROOT)) for path in files if IMPORT.search(path.read_text())]
    assert importing == ["pymerge/cli/bench.py"]


def test_the_command_line_loads_them_only_when_asked() -> None:
    code = "import sys, pymerge.cli; print([n for n in sys.modules if n == 'numpy' or n.startswith('pymerge.bench')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
