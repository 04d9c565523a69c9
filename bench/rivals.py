"""The cases of the kernel bench as one writes them with numpy or torch: whole arrays, in float32, step by step.

Every rival is written once, against what numpy and torch both have; `Kit` is what they spell differently. They
give the kernels' numbers up to rounding (tests/bench/test_rivals.py), but for what no one would write by hand: masks
come from the library's own generator, and elements that tie at a cut are all kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import add
from typing import Any

__all__ = ["RIVALS", "Kit", "Run", "make_rival", "numpy_kit", "torch_kit"]

#: (tensors of the models, base or None) to the result.
Run = Callable[[Sequence[Any], Any], Any]


@dataclass(frozen=True, slots=True)
class Kit:
    """A library's names for what a rival is made of.

    Attributes:
        module: numpy or torch.
        widen: an array as float32.
        store: (values, an array) to the values in the array's dtype.
        largest: (values, k) to the k-th largest.
        draw: (an array, chance, number of the model) to a mask of its shape.
        vector: float64 numbers as a float32 array.
    """

    module: Any
    widen: Callable[[Any], Any]
    store: Callable[[Any, Any], Any]
    largest: Callable[[Any, int], Any]
    draw: Callable[[Any, float, int], Any]
    vector: Callable[[Sequence[float]], Any]

    def deltas(self, tuned: Sequence[Any], base: Any) -> list[Any]:
        """Task vectors; the models themselves where there is no base."""
        values = [self.widen(each) for each in tuned]
        if base is None:
            return values
        origin = self.widen(base)
        return [value - origin for value in values]


def numpy_kit() -> Kit:
    """numpy's."""
    import numpy as np

    random = np.random.default_rng(0)
    return Kit(
        module=np,
        widen=lambda array: array.astype(np.float32),
        store=lambda values, like: values.astype(like.dtype),
        largest=lambda values, k: np.partition(values, values.size - k)[values.size - k],
        draw=lambda like, chance, _: random.random(like.shape, np.float32) < chance,
        vector=lambda numbers: np.asarray(numbers, np.float64).astype(np.float32),
    )


def torch_kit(device: Any = "cpu") -> Kit:
    """torch's, on a device."""
    import torch

    return Kit(
        module=torch,
        widen=lambda tensor: tensor.float(),
        store=lambda values, like: values.to(like.dtype),
        largest=lambda values, k: torch.kthvalue(values, values.numel() - k + 1).values,
        draw=lambda like, chance, _: torch.rand_like(like) < chance,
        vector=lambda numbers: torch.tensor(list(numbers), dtype=torch.float64, device=device).float(),
    )


def make_rival(kit: Kit, kernel: str, variant: str, numbers: tuple[Any, ...]) -> Run:
    """The rival of a case of kernel_cases.py, with the kernel's own arguments.

    Args:
        numbers: what the case's `numbers` returns.
    """
    return RIVALS[kernel, variant](kit, *numbers)


def _gram(kit: Kit) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        values = kit.deltas(tuned, base)
        return [(x * y).sum() for i, x in enumerate(values) for y in values[i:]]

    return run


def _gram_rows(kit: Kit, lines: tuple[int, int, bool]) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        values = [value.reshape(lines[:2]) for value in kit.deltas(tuned, base)]
        return [(x * y).sum(1) for i, x in enumerate(values) for y in values[i:]]

    return run


def _select(kit: Kit, counts: Sequence[int]) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        return [kit.largest(abs(d), k) for d, k in zip(kit.deltas(tuned, base), counts, strict=True)]

    return run


def _select_spread(kit: Kit, share: float) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        values = [kit.widen(each) for each in tuned]
        apart = _add((left - right) ** 2 for left, right in combinations(values, 2))
        return [kit.largest(apart, int(share * int((apart != 0).sum())))]

    return run


def _select_scores(kit: Kit, counts: Sequence[int], factors: Sequence[float], lines: tuple[int, int, bool]) -> Run:
    scales = kit.vector(factors)[:, None]

    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        scores = [abs(d.reshape(lines[:2]) * scales).reshape(-1) for d in kit.deltas(tuned, base)]
        return [kit.largest(score, k) for score, k in zip(scores, counts, strict=True)]

    return run


def _masked_sum(kit: Kit, rules: Sequence[tuple[Any, ...]], norm: str) -> Run:
    masks = _make_masks(kit, rules)

    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        found = []
        for i, delta in enumerate(kit.deltas(tuned, base)):
            sizes, kept = abs(delta), masks[i](delta)
            found += [sizes.sum(), (sizes * kept).sum(), kept.sum()]
        return found

    return run


def _overlap(kit: Kit, rules: Sequence[tuple[Any, ...]]) -> Run:
    masks = _make_masks(kit, rules)

    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        kept = kit.module.stack([mask(d) & (d != 0) for mask, d in zip(masks, kit.deltas(tuned, base), strict=True)])
        together = kept.sum(0)
        return [(each & chosen).sum() for each in kept for chosen in (together == 1, together > 1)]

    return run


def _row_divergence(kit: Kit, lines: tuple[int, int, bool]) -> Run:
    def softmax(values: Any) -> Any:
        powers = kit.module.exp(values - kit.module.amax(values, 1)[:, None])
        return powers / powers.sum(1)[:, None]

    def run(tuned: Sequence[Any], base: Any) -> list[Any]:
        p, q = (softmax(kit.widen(each).reshape(lines[:2])) + 1e-8 for each in (tuned[0], base))
        return [(p * kit.module.log(p / q)).sum(1)]

    return run


def _weighted_sum(kit: Kit, coefficients: Sequence[float]) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> Any:
        return kit.store(_add(c * kit.widen(each) for c, each in zip(coefficients, tuned, strict=True)), tuned[0])

    return run


def _weighted_rows(kit: Kit, coefficients: Sequence[float], lines: tuple[int, int, bool]) -> Run:
    scales = kit.vector(coefficients).reshape(-1, lines[0], 1)

    def run(tuned: Sequence[Any], base: Any) -> Any:
        parts = [scales[i] * d.reshape(lines[:2]) for i, d in enumerate(kit.deltas(tuned, base))]
        return kit.store(kit.widen(base) + _add(parts).reshape(-1), base)

    return run


def _near_swap(kit: Kit, t: float) -> Run:
    def run(tuned: Sequence[Any], base: Any) -> Any:
        value, origin = kit.widen(tuned[0]), kit.widen(base)
        share = (t / abs(value - origin).clip(1e-6)).clip(None, 1.0)
        return kit.store(share * value + (1 - share) * origin, base)

    return run


def _fusion(kit: Kit, factors: Sequence[float], lines: tuple[int, int, bool], threshold: float) -> Run:
    scales = kit.vector(factors)[:, None]

    def run(tuned: Sequence[Any], base: Any) -> Any:
        (delta,) = kit.deltas(tuned, base)
        reached = abs(delta.reshape(lines[:2]) * scales).reshape(-1) >= threshold
        return kit.store(kit.widen(base) + kit.module.where(reached, delta, 0.0), base)

    return run


def _task_merge(
    kit: Kit,
    rules: Sequence[tuple[Any, ...]],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    *_: Any,
) -> Run:
    masks = _make_masks(kit, rules)

    def run(tuned: Sequence[Any], base: Any) -> Any:
        deltas = kit.deltas(tuned, base)
        parts = [c * (mask(d) * d) for c, mask, d in zip(coefficients, masks, deltas, strict=True)]
        merged = _add(parts)
        if consensus == "sum":
            agrees = [((part >= 0) == (merged >= 0)) & (part != 0) for part in parts]
            divisor = _add(w * kit.widen(each) for w, each in zip(weights, agrees, strict=True))
            merged = _add(part * each for part, each in zip(parts, agrees, strict=True))
            merged = merged / kit.module.where(divisor == 0, 1.0, divisor)
        return kit.store(kit.widen(base) + merged, base)

    return run


def _add(values: Iterable[Any]) -> Any:
    """Their sum; `sum` would add the first one to 0, a pass of its own."""
    return reduce(add, values)


def _make_masks(kit: Kit, rules: Sequence[tuple[Any, ...]]) -> list[Callable[[Any], Any]]:
    """From a task vector to what is kept of it, for each model."""

    def make(place: int, kind: str, numbers: Sequence[Any]) -> Callable[[Any], Any]:
        if kind == "bernoulli":
            return lambda delta: kit.draw(delta, numbers[0] / 65536, place)
        if kind == "band":
            (least,) = struct.unpack("<f", struct.pack("<I", numbers[0]))
            return lambda delta: abs(delta) >= least
        return lambda delta: 1.0

    return [make(place, kind, numbers) for place, (kind, *numbers) in enumerate(rules)]


RIVALS: dict[tuple[str, str], Callable[..., Run]] = {
    ("gram", "plain"): _gram,
    ("gram", "task_vectors"): _gram,
    ("gram", "rows"): _gram_rows,
    ("select", "half"): _select,
    ("select", "spread"): _select_spread,
    ("select", "scores"): _select_scores,
    ("masked_sum", "dare"): _masked_sum,
    ("overlap", "above"): _overlap,
    ("row_divergence", "softmax"): _row_divergence,
    ("weighted_sum", "plain"): _weighted_sum,
    ("weighted_sum", "rows"): _weighted_rows,
    ("near_swap", "t"): _near_swap,
    ("fusion", "threshold"): _fusion,
    ("task_merge", "task_arithmetic"): _task_merge,
    ("task_merge", "ties"): _task_merge,
    ("task_merge", "dare_linear"): _task_merge,
    ("task_merge", "dare_ties"): _task_merge,
}
