"""What Triton makes of the kernels is no worse than kept, and rounds as the contract says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools import triton_code
from tools.kept import compare, load
from tools.triton_code import Code

HINT = "if that is meant, keep the new figures: python -m tools.triton_code --update"
KEPT = Code(registers=40, spilled=0, shared=1024, load=16, store=16)


def test_no_launch_compiles_to_worse_code_than_kept() -> None:
    kept = load(triton_code.KEPT, Code).get(triton_code.key())
    if kept is None:
        pytest.skip(f"needs the Triton of the kept figures, not {triton_code.key()}")
    codes, wrong = triton_code.inspect()
    failures = [*compare(codes, kept), *wrong]
    assert not failures, "\n".join([*failures, HINT])


def test_nothing_kept_spills() -> None:
    for codes in load(triton_code.KEPT, Code).values():
        assert {name: code.spilled for name, code in codes.items() if code.spilled} == {}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, ""),
        ({"registers": 44}, ""),
        ({"registers": 45}, "40 -> 45 registers"),
        ({"spilled": 8}, "0 -> 8 bytes spilled"),
        ({"shared": 2048}, "1024 -> 2048 bytes of shared memory"),
        ({"load": 8}, "loads of 16 -> 8 bytes"),
        ({"store": 2}, "stores of 16 -> 2 bytes"),
        ({"registers": 20, "shared": 0}, ""),
    ],
)
def test_worse_code_fails(change: dict[str, int], verdict: str) -> None:
    failures = compare({"case": replace(KEPT, **change)}, {"case": KEPT})
    assert failures == ([f"case: {verdict}"] if verdict else [])


@pytest.mark.parametrize(("compiled", "kept"), [({"new": KEPT}, {}), ({}, {"old": KEPT})])
def test_a_launch_on_one_side_only_fails(compiled: triton_code.Codes, kept: triton_code.Codes) -> None:
    assert len(compare(compiled, kept)) == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fma.rn.f32 %f1, %f2, %f3, %f4;", True),
        ("div.full.f32 %f1, %f2, %f3;", True),
        ("div.rn.f32 %f1, %f2, %f3;", False),
        ("sqrt.approx.ftz.f32 %f1, %f2;", True),
        ("mul.ftz.f32 %f1, %f2, %f3;", True),
        ("mad.lo.s64 %rd1, %rd2, %rd3, %rd4;", False),
    ],
)
def test_instructions_that_round_otherwise_are_found(line: str, found: bool) -> None:
    assert bool(triton_code.FORBIDDEN.search(line)) == found
