"""What nvcc made of the CUDA kernels is no worse than kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools import cuda_code
from tools.cuda_code import Code
from tools.kept import load

HINT = "if that is meant, keep the new figures: python -m tools.cuda_code --update"
KEPT = Code(registers=40, spilled=0, shared=1024, loads=4, stores=2, contracted=0)


def test_no_kernel_is_worse_than_kept() -> None:
    if cuda_code.find_module() is None:
        pytest.skip("needs CUDA kernels, which were not built here")
    if cuda_code.find_tool("cuobjdump") is None:
        pytest.skip("needs cuobjdump")
    kept = load(cuda_code.KEPT, Code).get(cuda_code.key())
    if kept is None:
        pytest.skip(f"needs the nvcc of the kept figures, not {cuda_code.key()}")
    failures = cuda_code.compare_built(cuda_code.inspect(), kept)
    assert not failures, "\n".join([*failures, HINT])


def test_nothing_kept_spills() -> None:
    for codes in load(cuda_code.KEPT, Code).values():
        assert {name: code.spilled for name, code in codes.items() if code.spilled} == {}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, ""),
        ({"registers": 44}, ""),
        ({"registers": 45}, "40 -> 45 registers"),
        ({"spilled": 8}, "0 -> 8 bytes spilled"),
        ({"shared": 2048}, "1024 -> 2048 bytes of shared memory"),
        ({"loads": 3}, "4 -> 3 loads of 16 bytes"),
        ({"stores": 0}, "2 -> 0 stores of 16 bytes"),
        ({"contracted": 1}, "0 -> 1 contracted products"),
        ({"registers": 20, "shared": 0}, ""),
    ],
)
def test_worse_code_fails(change: dict[str, int], verdict: str) -> None:
    failures = cuda_code.compare_built({"case": replace(KEPT, **change)}, {"case": KEPT})
    assert failures == ([f"case: {verdict}"] if verdict else [])


@pytest.mark.parametrize(
    ("compiled", "kept", "failures"),
    [
        ({"new sm_90"}, set(), 1),
        ({"one sm_90"}, {"one sm_90", "old sm_90"}, 1),
        ({"one sm_90"}, {"one sm_90", "one sm_80"}, 0),  # not built for
    ],
)
def test_a_kernel_on_one_side_only_fails(compiled: set[str], kept: set[str], failures: int) -> None:
    assert len(cuda_code.compare_built(dict.fromkeys(compiled, KEPT), dict.fromkeys(kept, KEPT))) == failures


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        ("pymerge::cuda::(anonymous namespace)::add_blocks(pymerge::cuda::TileSums)", "add_blocks"),
        (
            "void pymerge::cuda::(anonymous namespace)::gram_rows<pymerge::cuda::Same<(pymerge::DType)3>, 2, float>"
            "(pymerge::cuda::GramParams)",
            "gram_rows<BF16, 2, float>",
        ),
        (
            "void pymerge::cuda::combine<pymerge::cuda::(anonymous namespace)::Sum<pymerge::cuda::Mixed<double>, 0> >"
            "(pymerge::cuda::(anonymous namespace)::Sum<pymerge::cuda::Mixed<double>, 0>::Params)",
            "combine<Sum<Mixed<double>, 0>>",
        ),
        (
            "void pymerge::cuda::scan_keys<pymerge::cuda::Same<(pymerge::DType)1>, (pymerge::cuda::How)2>"
            "(pymerge::cuda::SearchParams<pymerge::cuda::Same<(pymerge::DType)1>::Real>)",
            "scan_keys<F32, spread>",
        ),
    ],
)
def test_names_say_what_a_kernel_is_for(demangled: str, name: str) -> None:
    assert cuda_code.tidy(demangled) == name
