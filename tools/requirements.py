"""Print what pip must install for `core`, `build`, `test`, `demo`, `lint`, `bench` or `gpu`.

An extra comes with the core's requirements; `build` is what a build without isolation needs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

# Programs that the build calls, with the oldest version that will do. Debian's own are good enough;
# where they are missing or older, the package of the same name on PyPI takes their place.
PROGRAMS = {"cmake": (3, 25), "ninja": (1, 10)}


def find_version(program: str) -> tuple[int, ...]:
    """The version of `program` on the path; () if there is none or it does not say."""
    if shutil.which(program) is None:
        return ()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", answer)
    return (int(found[1]), int(found[2])) if found else ()


def list_requirements(group: str) -> list[str]:
    """The requirement lines of one group of pyproject.toml."""
    document = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    if group == "build":
        missing = [name for name, oldest in PROGRAMS.items() if find_version(name) < oldest]
        return [*document["build-system"]["requires"], *missing]
    project = document["project"]
    extras = [] if group == "core" else project["optional-dependencies"][group]
    return [*project["dependencies"], *extras]


if __name__ == "__main__":
    print("\n".join(list_requirements(sys.argv[1])))
