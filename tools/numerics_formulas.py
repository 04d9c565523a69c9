"""Each merge method's formula, written down independently of the library, in any arithmetic.

`Reals` rounds the result of every elementary operation as it is told to: not at all, so that a formula
is evaluated in float64; or to a storage type, which is what mergekit publishes its arithmetic as. A
reduction is rounded once, since torch accumulates in wider types; it takes factors as float32. A
formula returns its result and the discrete decisions it made on the way, an integer array that is
comparable between kinds of arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FORMULAS", "Formula", "Given", "Reals"]

Array: TypeAlias = npt.NDArray[Any]
Round: TypeAlias = Callable[[Any], Any]


class Reals:
    """Numbers whose every operation is rounded by `round`; held as float64. Factors pass `scalar` first."""

    def __init__(self, values: Any, round_: Round, scalar: Round) -> None:
        self.round, self.scalar = round_, scalar
        self.values: Any = round_(np.asarray(values, np.float64))

    def make(self, values: Any) -> Reals:
        """Numbers of the same kind."""
        return Reals(values, self.round, self.scalar)

    def _plain(self, other: Any) -> Any:
        return other.values if isinstance(other, Reals) else self.scalar(other)

    def __add__(self, other: Any) -> Reals:
        return self.make(self.values + self._plain(other))

    def __sub__(self, other: Any) -> Reals:
        return self.make(self.values - self._plain(other))

    def __mul__(self, other: Any) -> Reals:
        return self.make(self.values * self._plain(other))

    def __truediv__(self, other: Any) -> Reals:
        return self.make(self.values / self._plain(other))

    __radd__, __rmul__ = __add__, __mul__

    def __abs__(self) -> Reals:
        return self.make(np.abs(self.values))

    def of(self, function: Callable[[Any], Any]) -> Reals:
        """An elementary function, rounded once."""
        return self.make(function(self.values))

    def total(self) -> Reals:
        """The sum of all elements."""
        return self.make(self.values.sum())

    def dot(self, other: Reals) -> Reals:
        return (self * other).total()

    def norm(self) -> Reals:
        return self.make(np.sqrt((self.values**2).sum()))


@dataclass(frozen=True, slots=True)
class Given:
    """What a formula gets: tensors and parameters; `masks` of random methods, one per model."""

    models: Sequence[Reals]
    base: Reals | None
    parameters: Mapping[str, Any]
    masks: Sequence[Array] = ()

    def per_model(self, name: str) -> list[float]:
        value = self.parameters[name]
        return [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)] * len(self.models)

    def deltas(self) -> list[Reals]:
        assert self.base is not None
        return [model - self.base for model in self.models]


Formula: TypeAlias = Callable[[Given], "tuple[Reals, Array]"]
_NOTHING = np.zeros((), np.int64)


def _sum(terms: Sequence[Reals]) -> Reals:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _linear(g: Given) -> tuple[Reals, Array]:
    weights = g.per_model("weight")
    return _sum([x * w for x, w in zip(g.models, weights, strict=True)]) / sum(weights), _NOTHING


def _arc(v0: Reals, v1: Reals, t: float) -> Reals:
    cosine = float((v0 / v0.norm()).dot(v1 / v1.norm()).values)
    if abs(cosine) > 0.9995:
        return v0 * (1 - t) + v1 * t
    theta = math.acos(max(-1.0, min(1.0, cosine)))
    return v0 * (math.sin((1 - t) * theta) / math.sin(theta)) + v1 * (math.sin(t * theta) / math.sin(theta))


def _slerp(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    return _arc(g.base, g.models[0], g.parameters["t"]), _NOTHING


def _nuslerp(g: Given) -> tuple[Reals, Array]:
    first, second = g.per_model("weight")
    v0, v1 = g.models if g.base is None else g.deltas()
    merged = _arc(v0, v1, second / (first + second))
    return merged if g.base is None else g.base + merged, _NOTHING


def _multislerp(g: Given) -> tuple[Reals, Array]:
    weights = np.asarray(g.per_model("weight"))
    weights = weights / weights.sum()
    vectors = g.models if g.base is None else g.deltas()
    norms = [v.norm() for v in vectors]
    mean = _sum([v / (n + 1e-8) * w for v, n, w in zip(vectors, norms, weights, strict=True)])
    merged = mean / mean.norm() * _sum([n * w for n, w in zip(norms, weights, strict=True)])
    return merged if g.base is None else g.base + merged, _NOTHING


def _karcher(g: Given) -> tuple[Reals, Array]:
    size = len(g.models)
    norms = [v.norm() for v in g.models]
    units = [v / n for v, n in zip(g.models, norms, strict=True)]
    u = _sum([v * (1 / size) for v in units])
    u = u / u.norm()
    for _ in range(10):
        pull = []
        for v in units:
            d = max(-1.0, min(1.0, float(u.dot(v).values)))
            theta = math.acos(d)
            if theta >= 1e-5:
                pull.append((v - u * d) * (theta / math.sin(theta) / size))
        step = float(_sum(pull).norm().values) if pull else 0.0
        if step < 1e-5:
            break
        u = u * math.cos(step) + _sum(pull) * (math.sin(step) / step)
        u = u / u.norm()
    return u * (_sum(norms) * (1 / size)), _NOTHING


def _passthrough(g: Given) -> tuple[Reals, Array]:
    return g.models[0] * g.parameters["scale"], _NOTHING


def _largest(scores: Array, count: int) -> Array:
    """The `count` largest, of equal ones those of the lowest index."""
    kept = np.zeros(scores.size, bool)
    kept[np.argsort(-np.abs(scores), kind="stable")[:count]] = True
    return kept


def _top(g: Given, delta: Reals) -> Array:
    return _largest(delta.values, max(1, int(g.parameters["density"] * delta.values.size)))


def _band(g: Given, delta: Reals) -> Array:
    size = delta.values.size
    keep, top = int(g.parameters["density"] * size), int(g.parameters["gamma"] * size)
    bottom = max(0, size - keep - top)
    return _largest(delta.values, size - bottom) & ~_largest(delta.values, size - bottom - keep)


def _task(
    mask: Callable[[Given, Reals], Array] | None = None, *, elect: bool = False, normalize: bool = False
) -> Formula:
    """The task-arithmetic family; random masks are given, all of them rescaled to their L1 norms."""

    def formula(g: Given) -> tuple[Reals, Array]:
        assert g.base is not None
        deltas = g.deltas()
        if g.masks:
            kept = [np.asarray(m, bool) for m in g.masks]
        else:
            kept = [mask(g, d) if mask else np.ones(d.values.size, bool) for d in deltas]
        masked = [d * k for d, k in zip(deltas, kept, strict=True)]
        if g.masks:
            masked = [m * (abs(d).total() / abs(m).total()) for d, m in zip(deltas, masked, strict=True)]
        weights = [g.base.make(w) for w in g.per_model("weight")]
        parts = [m * w for m, w in zip(masked, weights, strict=True)]
        decided = sum(k.astype(np.int64) << i for i, k in enumerate(kept))
        total = _sum(parts)
        if not elect:
            return g.base + total, np.asarray(decided)
        side = np.where(total.values >= 0, 1, -1)
        agrees = [np.sign(p.values) == side for p in parts]
        total = _sum([p * a for p, a in zip(parts, agrees, strict=True)])
        if normalize:
            divisor = _sum([g.base.make(w.values * a) for w, a in zip(weights, agrees, strict=True)])
            total = total / np.where(divisor.values == 0, 1, divisor.values)
        return g.base + total, np.asarray(decided * 2 + (side > 0))

    return formula


def _pick(*, elect: bool) -> Formula:
    def formula(g: Given) -> tuple[Reals, Array]:
        assert g.base is not None
        parts = [d * w for d, w in zip(g.deltas(), g.per_model("weight"), strict=True)]
        side = np.where(_sum(parts).values >= 0, 1, -1)
        sizes = np.stack([np.abs(p.values) * (np.sign(p.values) == side if elect else 1) for p in parts])
        chosen = sizes.argmax(axis=0)
        picked = np.take_along_axis(np.stack([p.values for p in parts]), chosen[None], axis=0)[0]
        picked = np.where(sizes.max(axis=0) > 0, picked, 0)
        return g.base + g.base.make(picked), np.asarray(chosen * 2 + (side > 0))

    return formula


def _sce(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    deltas = g.deltas()
    mean = _sum(deltas) / len(deltas)
    variance = _sum([(d - mean) * (d - mean) for d in deltas]) / len(deltas)
    kept = _largest(variance.values, int(np.count_nonzero(variance.values) * g.parameters["select_topk"]))
    masked = [d * kept for d in deltas]
    energies = [(m * m).total() / m.values.size for m in masked]
    total = _sum(energies)
    weights = [e / total if abs(total.values) >= 1e-6 else total.make(1 / len(deltas)) for e in energies]
    side = np.where(_sum(masked).values >= 0, 1, -1)
    agrees = [np.sign(m.values) == side for m in masked]
    above = _sum([m * w * a for m, w, a in zip(masked, weights, agrees, strict=True)])
    below = _sum([g.base.make(w.values * a) for w, a in zip(weights, agrees, strict=True)])
    return g.base + above / np.maximum(below.values, 1e-6), kept * 2 + (side > 0)


def _ram(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    deltas = g.deltas()
    changed = [np.abs(d.values) > 1e-5 for d in deltas]
    count = np.sum(changed, axis=0)
    if "alpha" in g.parameters:
        ratios = [(c & (count > 1)).sum() / max((c & (count == 1)).sum(), 1e-5) for c in changed]
        alone = [1 + g.parameters["r"] * min(max(ratio, 0), g.parameters["alpha"]) for ratio in ratios]
    else:
        alone = [1.0] * len(deltas)
    parts = [
        d * c * np.where(count == 1, factor, 1 / np.maximum(count, 1))
        for d, c, factor in zip(deltas, changed, alone, strict=True)
    ]
    return g.base + _sum(parts), np.asarray(sum(c.astype(np.int64) << i for i, c in enumerate(changed)))


def _model_stock(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    deltas, size = g.deltas(), len(g.models)
    norms = [d.norm() for d in deltas]
    cosines = [
        float((deltas[i].dot(deltas[j]) / max(float((norms[i] * norms[j]).values), 1e-6)).values)
        for i in range(size)
        for j in range(i + 1, size)
    ]
    cosine = sum(max(-1.0, min(1.0, c)) for c in cosines) / len(cosines)
    t = size * cosine / (1 + (size - 1) * cosine)
    return (_sum(list(g.models)) / size) * t + g.base * (1 - t), _NOTHING


def _nearswap(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    distance = abs(g.base - g.models[0])
    share = g.base.make(np.minimum(g.parameters["t"] / np.maximum(distance.values, 1e-6), 1))
    return g.models[0] * share + g.base * (g.base.make(1) - share), _NOTHING


def _arcee_fusion(g: Given) -> tuple[Reals, Array]:
    assert g.base is not None
    rows = g.parameters["rows"]

    def softmax(x: Reals) -> Reals:
        table = x.values.reshape(rows, -1)
        powers = np.exp(table - table.max(axis=1, keepdims=True))
        return x.make(powers / powers.sum(axis=1, keepdims=True)) + 1e-8

    p, q = softmax(g.models[0]), softmax(g.base)
    k = p.make((p * (p / q).of(np.log)).values.sum(axis=1, keepdims=True))
    (delta,) = g.deltas()
    scores = (abs(delta).make(np.abs(delta.values).reshape(rows, -1)) * k).values.reshape(-1)
    low, median, high = (np.sort(scores)[int(share * (scores.size - 1))] for share in (0.25, 0.5, 0.75))
    taken = scores >= median + 1.5 * (high - low)
    return g.base + delta * taken, taken.astype(np.int64)


FORMULAS: dict[str, Formula] = {
    "linear": _linear,
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
    "passthrough": _passthrough,
    "task_arithmetic": _task(),
    "ties": _task(_top, elect=True, normalize=True),
    "dare_linear": _task(),
    "dare_ties": _task(elect=True),
    "della": _task(elect=True, normalize=True),
    "della_linear": _task(),
    "breadcrumbs": _task(_band),
    "breadcrumbs_ties": _task(_band, elect=True),
    "sce": _sce,
    "ram": _ram,
    "ramplus_tl": _ram,
    "model_stock": _model_stock,
    "nearswap": _nearswap,
    "arcee_fusion": _arcee_fusion,
    "emr": _pick(elect=True),
    "magmax": _pick(elect=False),
}
