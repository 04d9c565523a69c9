"""Instructions per element of every kernel and merge method, held against the counts kept in the tree.

    python -m tools.instructions            # count, compare; 1 if something takes more
    python -m tools.instructions --update   # count, keep

A count does not care how busy the machine is, so it finds a regression where seconds cannot. It is
exact within 0.3 %, but only for one compiler and one instruction-set level: the file keeps them
apart. The level is v3, the highest that valgrind knows. Instructions are not time: what waits for
memory waits unseen, and a vector level above v3 is not looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["KEPT", "Counts", "can_count", "compare", "count", "keep", "key", "load"]

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "gates" / "instructions.json"
LEVEL = "v3"

#: More than this over the kept count is a regression.
WORSE = 1.05
#: Less than this share of it makes the kept count stale: it would let a regression of the same size pass.
BETTER = 0.80
#: The same for what a call takes whatever its length: an extrapolation, which a select's luck with its
#: pivots moves by several percent; and thousands of instructions that vary with Python's release.
CALL_WORSE = 1.10
CALL_SLACK = 150
#: Instructions per element that are no news; more where threads wait for each other, which costs by the
#: clock: a copy, of none an element, was counted at 0.07 and 0.24 on busy machines; to touch elements,
#: which it must not, costs more than 0.5.
EACH_SLACK = 0.02
ENGINE_SLACK = 0.5

#: The three requests to callgrind, for a program that is not written in C.
REQUESTS = """#include <valgrind/callgrind.h>
extern "C" void start() { CALLGRIND_START_INSTRUMENTATION; }
extern "C" void zero() { CALLGRIND_ZERO_STATS; }
extern "C" void dump(const char* name) { CALLGRIND_DUMP_STATS_AT(name); }
"""

#: Case -> (instructions per element, thousands of instructions per call whatever the length).
Counts = Mapping[str, tuple[float, int]]


def _compile(folder: Path) -> Path | None:
    """The library of REQUESTS; None where there is no compiler or no header of valgrind's."""
    names = (os.environ.get("CXX", "c++"), "g++", "clang++")
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    source, library = folder / "requests.cc", folder / "requests.so"
    source.write_text(REQUESTS, encoding="ascii")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, check=False)
    return library if done.returncode == 0 else None


@cache
def can_count() -> bool:
    """Whether this machine has what counting needs: valgrind, its header, a C++ compiler."""
    with TemporaryDirectory() as folder:
        return shutil.which("valgrind") is not None and _compile(Path(folder)) is not None


@cache
def key() -> str:
    """Compiler, its major version, and level of the compiled module, such as "gcc 12 v3"."""
    from pymerge import _core

    content = Path(_core.__file__).read_bytes()
    # Compilers sign each object; clang's own come with the system's start-up files, which gcc signed.
    for name, pattern in (("clang", rb"clang version (\d+)"), ("gcc", rb"GCC: \([^)]*\) (\d+)")):
        if found := re.search(pattern, content):
            return f"{name} {found[1].decode()} {LEVEL}"
    return f"unknown {LEVEL}"


def count() -> Counts:
    """Run every case under callgrind; about ten seconds.

    Raises:
        RuntimeError: a case failed, or valgrind did.
    """
    from tools.instruction_cases import LENGTHS

    with TemporaryDirectory() as name:
        folder = Path(name)
        library = _compile(folder)
        if library is None:
            raise RuntimeError("cannot compile against valgrind/callgrind.h; install valgrind and a C++ compiler")
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", "tools.instruction_cases", str(library)]
        environment = {**os.environ, "PYMERGE_ISA": LEVEL, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"counting failed:\n{done.stderr[-4000:]}")
        totals = _read_totals(folder)
    short, long = LENGTHS
    counts = {}
    for case in sorted({case for case, _ in totals}):
        few, many = totals[case, short], totals[case, long]
        each = (many - few) / (long - short)
        counts[case] = (max(0.0, round(each, 2)), round((few - each * short) / 1000))
    return counts


def _read_totals(folder: Path) -> dict[tuple[str, int], int]:
    totals = {}
    for path in folder.glob("out.*"):
        text = path.read_text(encoding="utf-8")
        label = re.search(r"^desc: Trigger: Client Request: (\S+)@(\d+)$", text, re.MULTILINE)
        total = re.search(r"^summary: (\d+)", text, re.MULTILINE)
        if label and total:
            totals[label[1], int(label[2])] = int(total[1])
    return totals


def load() -> dict[str, Counts]:
    """The kept counts by key; none if there is no file."""
    if not KEPT.exists():
        return {}
    kept = json.loads(KEPT.read_text(encoding="ascii"))
    return {name: {case: (each, call) for case, (each, call) in counts.items()} for name, counts in kept.items()}


def keep(counts: Counts) -> None:
    """Keep counts under this build's key; one line each, so that a change reads well."""
    blocks = []
    for name, kept in sorted({**load(), key(): counts}.items()):
        lines = [f"    {json.dumps(case)}: [{each}, {call}]" for case, (each, call) in sorted(kept.items())]
        blocks.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    KEPT.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="ascii")


def compare(counts: Counts, kept: Counts) -> tuple[list[str], list[str]]:
    """(what fails the gate, what became cheaper within its bounds), a line each."""
    failures, improvements = [], []
    for case, (each, call) in counts.items():
        if case not in kept:
            failures.append(f"{case}: no count is kept")
            continue
        each_before, call_before = kept[case]
        change = f"{each / each_before - 1:+.1%}" if each_before else "from nothing"
        line = f"{case}: {each_before} -> {each} instructions per element ({change})"
        slack = ENGINE_SLACK if case.startswith("engine/") else EACH_SLACK
        if each > WORSE * each_before + slack:
            failures.append(f"{line}: more")
        elif each < BETTER * each_before - slack:
            failures.append(f"{line}: so much better that the kept count protects nothing")
        elif each < each_before / WORSE:
            improvements.append(line)
        if call > CALL_WORSE * call_before + CALL_SLACK:
            failures.append(f"{case}: {call_before} -> {call} thousand instructions per call")
    failures += [f"{case}: kept, but nothing counts it any more" for case in kept if case not in counts]
    return failures, improvements


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    update = parser.parse_args().update
    counts = count()
    before = load().get(key(), {})
    failures, improvements = compare(counts, before)
    for case, (each, call) in counts.items():
        print(f"{case:44}{each:8.2f} an element {call:8} thousand a call")
    for line in improvements:
        print(f"better: {line}")
    for line in failures:
        print(f"{'was' if update else 'FAILED'}: {line}")
    if update:
        keep(counts)
        print(f"kept {len(counts)} counts for {key()} in {KEPT.relative_to(ROOT)}")
        return 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
