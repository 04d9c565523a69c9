"""What kernels are compared with: numpy and torch compute the kernels' numbers, and what fails is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.bench import against
from pymerge.bench.against import add_times, choose_libraries, columns_of, time_against, time_on_device
from pymerge.bench.kernel_cases import CASES, COMPUTE, Case, Inputs
from pymerge.bench.rivals import RIVALS, Kit, make_rival, numpy_kit, torch_kit
from pymerge.kernels.common.convert import decode, decode_delta
from pymerge.kernels.mask import spec as mask

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kernel}-{case.variant}")
TERNARY = next(case for case in CASES if case.variant == "ties")


def load(library: str, arrays: Sequence[Any]) -> list[Any]:
    if library == "numpy":
        return list(arrays)
    return [torch.from_numpy(a.view(np.uint8)).view(getattr(torch, a.dtype.name)) for a in arrays]


def with_masks(kit: Kit, masks: Sequence[Any]) -> Kit:
    """The kit with the kernels' masks for those of the library."""
    wrap = np.asarray if kit.module is np else torch.from_numpy
    return replace(kit, draw=lambda like, chance, place: wrap(np.asarray(masks[place], bool)))


def run_both(case: Case, dtype: str, elements: int, library: str) -> tuple[Any, Any, Inputs]:
    """What the library makes of a case, and what the kernel's specification does."""
    inputs = Inputs(dtype, 3, elements)
    (models,) = case.models([3])
    numbers = case.numbers(models, elements, inputs.rules)
    base, *tuned = inputs.arrays
    deltas = [decode_delta(each, base, COMPUTE) for each in tuned[:models]]
    drawn = case.variant.startswith("dare")
    masks = mask.run_each(numbers[0], tuned[:models], deltas, COMPUTE) if drawn else []
    kit = with_masks(numpy_kit() if library == "numpy" else torch_kit(), masks)
    loaded = load(library, inputs.arrays)
    found = make_rival(kit, case.kernel, case.variant, numbers)(
        loaded[1 : models + 1], loaded[0] if case.base else None
    )
    types = [COMPUTE, inputs.dtype] if case.writes else [COMPUTE]
    return found, case.reference()(tuned[:models], base if case.base else None, *numbers, *types), inputs


def widen(values: Any) -> Any:
    return np.asarray(values.float() if isinstance(values, torch.Tensor) else values.astype(np.float32))


def flatten(kernel: str, expected: Any) -> Any:
    """The specification's answer in the order of the rival's."""
    if kernel == "gram" and isinstance(expected, tuple):
        return [expected[i][j] for i in range(len(expected)) for j in range(i, len(expected))]
    if kernel == "gram":
        return list(np.asarray(expected).T)
    if kernel == "select":
        return [np.array([bits], np.uint32).view(np.float32)[0] for bits, _ in expected]
    if kernel == "row_divergence":
        return [np.asarray(expected)]
    return [value for row in expected for value in row]


#: Float32 sums of whole arrays, in the library's order; relative. Divergences of rows that are near each other cancel
#: down to what float32 has left, so theirs is absolute.
SUMS, DIVERGENCE = 1e-4, 2e-6


@each_case
@pytest.mark.parametrize("library", ["numpy", "torch"])
@settings(max_examples=5, deadline=None)
@given(dtype=st.sampled_from(["bf16", "f16", "f32"]), elements=st.integers(32, 1500).map(lambda half: 2 * half))
def test_a_library_computes_the_kernels_numbers(case: Case, library: str, dtype: str, elements: int) -> None:
    found, expected, inputs = run_both(case, dtype, elements, library)
    if not case.writes:
        values = [np.asarray(value, np.float64) for value in found]
        absolute = DIVERGENCE if case.kernel == "row_divergence" else 0
        for got, wanted in zip(values, flatten(case.kernel, expected), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=SUMS, atol=absolute)
        return
    # One unit in the last place of the output's type, at the largest value: rounded once there, once more here.
    unit = float(np.abs(widen(expected)).max()) * {"bf16": 2**-7, "f16": 2**-10, "f32": 2**-22}[dtype]
    apart = np.abs(widen(found) - widen(expected)) > unit
    assert not apart[~at_a_cut(case, inputs)].any()


def at_a_cut(case: Case, inputs: Inputs) -> Any:
    """Elements whose magnitude is a cut's: the library keeps all of those, TIES those with the lowest index."""
    base, *tuned = inputs.arrays
    tied = np.zeros(base.size, bool)
    for (_, bits, *_), each in zip(inputs.rules if case.variant == "ties" else [], tuned, strict=False):
        sizes = np.abs(decode(each, COMPUTE) - decode(base, COMPUTE))
        tied |= sizes.view(np.uint32) == bits
    return tied


def test_every_case_has_a_rival() -> None:
    assert set(RIVALS) == {(case.kernel, case.variant) for case in CASES}


@given(chance=st.integers(1, 65535), library=st.sampled_from(["numpy", "torch"]))
def test_own_masks_keep_what_chance_says(chance: int, library: str) -> None:
    kit = numpy_kit() if library == "numpy" else torch_kit()
    like = np.zeros(20_000, np.float32) if library == "numpy" else torch.zeros(20_000)
    kept = float(kit.widen(kit.draw(like, chance / 65536, 0)).mean())
    assert abs(kept - chance / 65536) < 0.025  # seven standard deviations


def test_times_are_told_with_how_many_times_ours_they_are() -> None:
    inputs = Inputs("bf16", 2, 4096)
    before = torch.get_num_threads()
    found = add_times(time_against(TERNARY, inputs, 2, ["numpy", "torch"], 2), ours=0.5)
    assert torch.get_num_threads() == before
    for library in ("numpy", "torch"):
        record = found[library]
        assert record["elements"] == 4096
        assert record["times"] == pytest.approx(record["ns"]["median"] / 0.5)


def test_inputs_beyond_the_most_are_timed_on_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "_MOST", 1000)
    found = time_against(CASES[0], Inputs("bf16", 2, 4096), 2, ["numpy"], 1)
    assert found["numpy"]["elements"] == 1000


def test_a_library_that_fails_is_told_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # it loads the compiler, which takes seconds
    found = time_against(CASES[0], Inputs("bf16", 2, 4096), 2, ["torch.compile", "torch"], 1)
    assert found["torch.compile"] == {"why_not": "RuntimeError: no compiler"}
    assert "ns" in found["torch"]
    (_, column) = columns_of(["torch", "torch.compile"])
    assert column.show({"against": found}) == "-"


def test_on_a_device_torch_is_timed_where_the_tensors_are() -> None:
    inputs = Inputs("bf16", 2, 4096)
    tensors = load("torch", inputs.arrays)
    numbers = TERNARY.numbers(2, 4096, inputs.rules)
    found = time_on_device(TERNARY, numbers, tensors, 2, ["numpy", "torch"], 2, lambda call: float(call() is not None))
    assert found["torch"]["ns"]["median"] == pytest.approx(1e9 / 4096)
    assert list(found) == ["torch"]


def test_an_unknown_library_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'jax'; there are: numpy, torch, torch.compile, none"):
        choose_libraries(["jax"])


def test_without_torch_it_is_left_out_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_libraries(None) == ("numpy", "torch")
    monkeypatch.setattr(against, "find_spec", lambda name: None)
    assert choose_libraries(None) == ("numpy",)
    with pytest.raises(ValueError, match=r"pip install 'pymerge\[gpu\]'"):
        choose_libraries(["torch"])
