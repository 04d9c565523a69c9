"""Check what every file of the tree promises: its length, a purpose at its head, nothing private.

Private are absolute paths of somebody's machine: they leak, and they break everywhere else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
CODE = (".py", ".cc", ".h", ".cu", ".cuh")

FORBIDDEN = {
    re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w"): "an absolute path of one machine",
    re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b"): "an open end; finish it or file an issue",
    re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE): "a merge conflict",
    re.compile(r"[ \t]+$", re.MULTILINE): "white space at the end of a line",
}
# This file has to spell what it forbids.
EXEMPT = ("tools/check_tree.py", "LICENSE")


def list_files() -> list[str]:
    """Tracked files, and those that git would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in answer.decode().split("\0") if name and (ROOT / name).is_file()]


def check(name: str) -> Iterator[str]:
    """Findings about one file."""
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield f"{name}: not a text file; generated and binary files do not belong here"
        return
    if name.endswith(CODE):
        lines = text.count("\n")
        if lines > MAX_LINES:
            yield f"{name}: {lines} lines; split it (the hard stop is {MAX_LINES})"
        # Of a .cc, the header beside it says the purpose.
        explained = name.endswith(".cc") and (ROOT / name).with_suffix(".h").exists()
        if text.strip() and not explained and not text.lstrip().startswith(('"""', "//", "/*", "#!")):
            yield f"{name}:1: begins without saying what the file is for"
    for pattern, what in FORBIDDEN.items():
        for match in pattern.finditer(text):
            yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0].strip()!r}"


def main() -> int:
    """Check the tree; prints every finding and returns 1 if there is one."""
    names = [name for name in list_files() if name not in EXEMPT]
    findings = [finding for name in names for finding in check(name)]
    print("\n".join(findings) or f"check_tree: {len(names)} files are in order")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
