"""What nvcc made of the CUDA kernels, which need no GPU for that: registers, spills, widths of accesses.

    python -m tools.cuda_code            # read the built module, compare; 1 if something became worse
    python -m tools.cuda_code --update   # read it, keep

What is kept holds for one release of nvcc. Registers decide how many threads a multiprocessor holds, spilled
ones go to memory, and an access narrower than 16 bytes needs more instructions for the same bytes. A product
and a sum that are contracted round otherwise than the contract, but divisions are made of such: there may
not be more of them than kept. Instructions are read for sm_90 alone, which takes long enough.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tools.kept import compare, keep, load

__all__ = ["KEPT", "Code", "Codes", "compare_built", "find_module", "find_tool", "inspect", "key", "tidy"]

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "gates" / "cuda.json"
#: Whose instructions are read.
READ = "sm_90"
#: Registers a thread more than kept that fail; fewer are no news.
REGISTER_SLACK = 4
DTYPES = ("F64", "F32", "F16", "BF16")
HOW = ("delta", "lines", "spread")


@dataclass(frozen=True, slots=True)
class Code:
    """What became of one kernel on one architecture: registers and spilled bytes a thread, shared bytes a block;
    of READ also how many loads and stores of 16 bytes there are, and contracted products of float32.
    """

    registers: int
    spilled: int
    shared: int
    loads: int = 0
    stores: int = 0
    contracted: int = 0

    def worse_than(self, kept: Code) -> str:
        """What is worse, in words; empty if nothing is."""
        found = []
        if self.registers > kept.registers + REGISTER_SLACK:
            found.append(f"{kept.registers} -> {self.registers} registers")
        if self.spilled > kept.spilled:
            found.append(f"{kept.spilled} -> {self.spilled} bytes spilled")
        if self.shared > kept.shared:
            found.append(f"{kept.shared} -> {self.shared} bytes of shared memory")
        if self.loads < kept.loads:
            found.append(f"{kept.loads} -> {self.loads} loads of 16 bytes")
        if self.stores < kept.stores:
            found.append(f"{kept.stores} -> {self.stores} stores of 16 bytes")
        if self.contracted > kept.contracted:
            found.append(f"{kept.contracted} -> {self.contracted} contracted products")
        return ", ".join(found)


#: "kernel sm_90" -> its code.
Codes = Mapping[str, Code]


@dataclass(slots=True)
class _Instructions:
    counts: Counter[str] = field(default_factory=Counter)

    def count(self, pattern: str) -> int:
        return sum(number for name, number in self.counts.items() if re.match(pattern, name))


def find_module() -> Path | None:
    """The compiled module, if there is one."""
    spec = find_spec("pymerge._cuda")
    return Path(spec.origin) if spec is not None and spec.origin else None


def find_tool(name: str) -> str | None:
    """A program of the CUDA toolkit; Triton brings those that read code."""
    if found := shutil.which(name):
        return found
    triton = find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    return shutil.which(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / name)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _demangle(names: list[str]) -> list[str]:
    answer = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [tidy(line) for line in answer.splitlines()]


def tidy(name: str) -> str:
    """A kernel's demangled name without namespaces, parameters, and numbers for names."""
    name = re.sub(r"\(pymerge::DType\)(\d)", lambda match: DTYPES[int(match[1])], name)
    name = re.sub(r"\(pymerge::cuda::How\)(\d)", lambda match: HOW[int(match[1])], name)
    name = re.sub(r"\((?:int|bool)\)", "", name.replace("(anonymous namespace)::", ""))
    name = re.sub(r"\b(?:\w+::)+", "", name).removeprefix("void ")
    name = re.sub(r"\bSame<(\w+)>", r"\1", name).replace(" >", ">")
    depth = 0
    for at, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return name[:at]
    return name


def inspect() -> Codes:
    """The built module's kernels on every architecture."""
    module, tool = find_module(), find_tool("cuobjdump")
    assert module is not None
    assert tool is not None
    instructions = _read_instructions(_run(tool, "-sass", "-arch", READ, module))
    found: dict[tuple[str, str], Code] = {}
    target = ""
    for line in _run(tool, "-res-usage", module).splitlines():
        if match := re.match(r"arch = (\w+)", line):
            target = match[1]
        elif match := re.match(r" Function (\w+):", line):
            name = match[1]
        elif line.startswith("  REG:"):
            usage = {what: int(number) for what, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line)}
            counted = instructions.get(name) if target == READ else None
            found[name, target] = Code(
                usage["REG"],
                usage["STACK"] + usage["LOCAL"],
                usage["SHARED"],
                *(counted.count(what) for what in (r"LDG.*\.128", r"STG.*\.128", "FFMA") if counted),
            )
    names = _demangle([name for name, _ in found])
    return {f"{name} {target}": code for name, ((_, target), code) in zip(names, found.items(), strict=True)}


def _read_instructions(sass: str) -> dict[str, _Instructions]:
    found: dict[str, _Instructions] = {}
    for match in re.finditer(r"Function : (\w+)|/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]+)", sass):
        if match[1]:
            current = found.setdefault(match[1], _Instructions())
        else:
            current.counts[match[2]] += 1
    return found


def key() -> str:
    """What compiled the kernels, such as "nvcc 13.0.88"."""
    from pymerge import _cuda

    return _cuda.COMPILER


def compare_built(codes: Codes, kept: Codes) -> list[str]:
    """What fails the gate, a line each; of the targets that the module was built for."""
    targets = {case.split()[-1] for case in codes}
    return compare(codes, {case: code for case, code in kept.items() if case.split()[-1] in targets})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.cuda_code", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep what is compiled now")
    update = parser.parse_args().update
    codes, kept = inspect(), load(KEPT, Code)
    failures = compare_built(codes, kept.get(key(), {}))
    for case, code in sorted(codes.items()):
        print(f"{case:60}{code}")
    for line in failures:
        print(f"{'was' if update else 'FAILED'}: {line}")
    if update:
        keep(KEPT, {**kept, key(): codes})
        print(f"kept {len(codes)} kernels for {key()} in {KEPT.relative_to(ROOT)}")
        return 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
