"""A merge in a process of its own, one of whose inputs is cut meanwhile: python cut.py RECIPE OUT FILE KEPT.

FILE is left with KEPT bytes as soon as something was written. Prints as JSON how it ended.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from execute.merges import schedule

from pymerge.errors import PymergeError
from pymerge.execute import Progress, execute, run


def bytes_copied() -> int:
    """What this process has had copied to it by read() and its kin."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def main() -> None:
    """Merge, cut, tell."""
    recipe: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    file, kept = sys.argv[3], int(sys.argv[4])
    # Look at every step, and take many small ones.
    run._POLL, run._PROGRESS_EVERY = 0.0005, 0.0
    made = schedule(recipe, block=4096, buffers=4, threads=2)
    before = bytes_copied()
    when = 0

    def cut(progress: Progress) -> None:
        nonlocal when
        if progress.written > 1 << 16 and not when:
            when = progress.written
            os.truncate(file, kept)

    answer: dict[str, Any] = {"exit": 0, "message": ""}
    try:
        execute(made, Path(sys.argv[2]), reflink=False, on_progress=cut)
    except PymergeError as error:
        answer = {"exit": error.exit_code, "message": str(error)}
    print(json.dumps({**answer, "when": when, "copied": bytes_copied() - before}))


if __name__ == "__main__":
    main()
