"""A merge in a process of its own, which tells what it held: python limited.py RECIPE OUT MEMORY THREADS.

The process that starts it may have set hard limits before.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any


def status() -> dict[str, int]:
    """The sizes that the system tells of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


class AnonymousPeak(threading.Thread):
    """Looks every 2 ms: the system keeps a peak of all resident memory, but none of this part."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(0.002):
            self.peak = max(self.peak, status()["RssAnon"])


def main() -> None:
    """Merge; print what was held as JSON."""
    import pymerge

    recipe: dict[str, Any] | str = json.loads(Path(sys.argv[1]).read_text())
    watch = AnonymousPeak()
    watch.start()
    report = pymerge.merge(recipe, sys.argv[2], memory=int(sys.argv[3]), threads=int(sys.argv[4]))
    watch.done.set()
    watch.join()
    answer = {
        "resident": status()["VmHWM"],
        "anonymous": watch.peak,
        "reported": report.execution.peak_resident,
        "reported_anonymous": report.execution.peak_anonymous,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
