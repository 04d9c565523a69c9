"""What Triton makes of the kernels for devices that need not be there: registers, spills, widths of accesses.

    python -m tools.triton_code            # compile, compare; 1 if something became worse
    python -m tools.triton_code --update   # compile, keep

Launches are caught on their way to the device and compiled for it instead. What is kept holds for one
release of Triton, which brings its own assembler. Registers decide how many programs a multiprocessor
holds, spilled ones go to memory, and an access narrower than 16 bytes needs more instructions for the same
bytes. The text that the assembler gets is searched for what would change results.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.kept import compare, keep, load

__all__ = ["FORBIDDEN", "KEPT", "Code", "Codes", "inspect", "key"]

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "gates" / "triton.json"
TARGETS = (80, 90, 100, 120)
#: Instructions that round otherwise than the contract, or not at all as it does.
FORBIDDEN = re.compile(r"\b(fma\.rn|(?:div|sqrt|ex2|lg2|rcp)\.(?:full|approx)|\w+\.ftz)\b")
#: Registers a thread more than kept that fail; fewer are news of an assembler.
REGISTER_SLACK = 4


@dataclass(frozen=True, slots=True)
class Code:
    """What became of one launch: registers and spilled bytes a thread, shared bytes a program, and the bytes
    of the narrowest load and store of tensors that a thread does at once.
    """

    registers: int
    spilled: int
    shared: int
    load: int
    store: int

    def worse_than(self, kept: Code) -> str:
        """What is worse, in words; empty if nothing is."""
        found = []
        if self.registers > kept.registers + REGISTER_SLACK:
            found.append(f"{kept.registers} -> {self.registers} registers")
        if self.spilled > kept.spilled:
            found.append(f"{kept.spilled} -> {self.spilled} bytes spilled")
        if self.shared > kept.shared:
            found.append(f"{kept.shared} -> {self.shared} bytes of shared memory")
        if self.load < kept.load:
            found.append(f"loads of {kept.load} -> {self.load} bytes")
        if self.store < kept.store:
            found.append(f"stores of {kept.store} -> {self.store} bytes")
        return ", ".join(found)


#: "case_kernel sm_90" -> its code.
Codes = Mapping[str, Code]


@contextmanager
def _caught() -> Iterator[list[tuple[Any, tuple[Any, ...], dict[str, Any]]]]:
    """Launches, caught: (kernel, arguments, named arguments) of each."""
    from triton.runtime.jit import JITFunction

    caught: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    run = JITFunction.run
    JITFunction.run = lambda kernel, *arguments, **named: caught.append((kernel, arguments, named))
    try:
        yield caught
    finally:
        JITFunction.run = run


def _describe(value: Any, place: tuple[int, ...], attributes: dict[tuple[int, ...], Any]) -> Any:
    """Triton's type of a launch's argument; notes what is divisible by 16, as a launch would."""
    from triton.runtime.jit import mangle_type

    if isinstance(value, tuple):
        return tuple(_describe(item, (*place, i), attributes) for i, item in enumerate(value))
    if not isinstance(value, int) or value % 16 == 0:
        attributes[place] = [["tt.divisibility", 16]]
    return mangle_type(value)


def _compile(launch: tuple[Any, tuple[Any, ...], dict[str, Any]], target: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, arguments, named = launch
    attributes: dict[tuple[int, ...], Any] = {}
    signature: dict[str, Any] = {}
    for place, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        signature[name] = _describe(value, (place,), attributes)
    constants = {name: named[name] for name in kernel.arg_names[len(arguments) :]}
    signature.update(dict.fromkeys(constants, "constexpr"))
    options = {name: named[name] for name in ("num_warps", "enable_fp_fusion")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def _read(compiled: Any) -> Code:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        told = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    usage = {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", told)}
    return Code(
        usage["REG"],
        usage["STACK"] + usage["LOCAL"],
        usage["SHARED"],
        _narrowest(compiled.asm["ptx"], "ld"),
        _narrowest(compiled.asm["ptx"], "st"),
    )


def _narrowest(ptx: str, what: str) -> int:
    """Bytes of the narrowest access of tensors: predicated ones; a launch's numbers are read without."""
    widths = re.findall(rf"@\S+ {what}\.global(?:\.\w+)*?(?:\.v(\d))?\.[bfsu](\d+) ", ptx)
    return min((int(count or 1) * int(bits) // 8 for count, bits in widths), default=16)


def _inspect(case: str, target: int) -> list[tuple[str, Code, list[str]]]:
    from tools.triton_cases import CASES

    with _caught() as launches:
        CASES[case]()
    found = []
    for launch in launches:
        compiled = _compile(launch, target)
        wrong = sorted({match[0] for match in FORBIDDEN.finditer(compiled.asm["ptx"])})
        found.append((f"{case}_{launch[0].__name__.lstrip('_')} sm_{target}", _read(compiled), wrong))
    return found


def inspect() -> tuple[Codes, list[str]]:
    """Compile every case for every target: its code, and where there are forbidden instructions."""
    from tools.triton_cases import CASES

    jobs = [(case, target) for case in CASES for target in (TARGETS if "/bfloat16" in case else (90,))]
    codes, wrong = {}, []
    # Not forked: whoever asks may have threads, whose locks a copy would wait for forever.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for found in pool.map(_inspect, *zip(*jobs, strict=True), chunksize=4):
            for name, code, instructions in found:
                codes[name] = code
                wrong += [f"{name}: {instruction}" for instruction in instructions]
    return codes, wrong


def key() -> str:
    """The release of Triton that compiles here, such as "triton 3.7.1"."""
    import triton

    return f"triton {triton.__version__}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.triton_code", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep what is compiled now")
    update = parser.parse_args().update
    codes, wrong = inspect()
    kept = load(KEPT, Code)
    failures = [*compare(codes, kept.get(key(), {})), *wrong]
    for case, code in codes.items():
        print(f"{case:44}{code}")
    for line in failures:
        print(f"{'was' if update else 'FAILED'}: {line}")
    if update and not wrong:
        keep(KEPT, {**kept, key(): codes})
        print(f"kept {len(codes)} launches for {key()} in {KEPT.relative_to(ROOT)}")
        return 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
