"""How exact every merge method is: the table in docs/numerics.md.

    python -m tools.numerics            # print the table; 1 if a bound does not hold
    python -m tools.numerics --update   # write it

Each method merges random weights; its output is compared with a float64 evaluation of its formula
(tools/numerics_formulas.py). Beside it stands mergekit's published arithmetic, every operation rounded
to the type of the inputs, or to float32 where it says so. Random masks are the library's own.

An element for which rounding changed a discrete decision (what is trimmed, whose sign wins, what reaches
a threshold) is counted, and is not part of the errors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pymerge import merge_tensors
from pymerge.backends.calls import flatten_rule
from pymerge.execute.memory import Settings
from pymerge.kernels.mask import spec as mask
from pymerge.methods import get_method, method_names
from pymerge.methods.base import Inputs
from pymerge.ops import MaskedSum
from tools.numerics_formulas import FORMULAS, Given, Reals

__all__ = ["CASES", "DTYPES", "Case", "Record", "make_table", "measure", "records"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numerics.md"
BEGIN, END = "<!-- python -m tools.numerics --update -->\n", "<!-- end of the table -->\n"

SHAPE = (96, 256)
#: Storage type -> bits of its significand, the leading one included.
DTYPES = {"float32": 24, "bfloat16": 8}
#: One rounding of float32, the bounds' unit.
_UNIT = 2.0**-24


@dataclass(frozen=True, slots=True)
class Case:
    """A method with parameters.

    Attributes:
        models: besides the base.
        bound: roundings of float32, each of the sum of the magnitudes of inputs and result, that an element
            may be off beyond half a unit in the last place of the output.
        peer: the type that mergekit computes in ("" for the inputs'); None: it has no such method.
    """

    method: str
    models: int
    based: bool
    parameters: Mapping[str, Any]
    bound: int
    peer: str | None = ""
    random: bool = False
    label: str = ""


_WEIGHTS = {"weight": [0.6, 0.4]}
_SPARSE = {**_WEIGHTS, "density": 0.6}
#: Pointwise methods round a task vector, its factor, the product and two sums; a division is two more.
_POINTWISE, _DIVIDED = 3, 4
#: Methods whose factors come from inner products, whose errors all but cancel in them.
_SPAN = 4

CASES = (
    Case("passthrough", 1, False, {"scale": 0.8}, _POINTWISE),
    Case("linear", 2, False, _WEIGHTS, _POINTWISE, "float32"),
    Case("slerp", 1, True, {"t": 0.3}, _SPAN, "float32"),
    Case("nuslerp", 2, False, _WEIGHTS, _SPAN),
    Case("nuslerp", 2, True, _WEIGHTS, _SPAN, label="nuslerp with base"),
    Case("multislerp", 3, False, {"weight": [0.5, 0.3, 0.2]}, _SPAN),
    Case("multislerp", 2, True, _WEIGHTS, _SPAN, label="multislerp with base"),
    Case("karcher", 3, False, {}, _SPAN),
    Case("model_stock", 3, True, {}, _SPAN),
    Case("task_arithmetic", 2, True, _WEIGHTS, _POINTWISE),
    Case("ties", 2, True, _SPARSE, _DIVIDED),
    Case("dare_linear", 2, True, _SPARSE, _POINTWISE, random=True),
    Case("dare_ties", 2, True, _SPARSE, _POINTWISE, random=True),
    Case("della", 2, True, _SPARSE, _DIVIDED, random=True),
    Case("della_linear", 2, True, _SPARSE, _POINTWISE, random=True),
    Case("breadcrumbs", 2, True, {**_SPARSE, "gamma": 0.02}, _POINTWISE),
    Case("breadcrumbs_ties", 2, True, {**_SPARSE, "gamma": 0.02}, _POINTWISE),
    Case("sce", 3, True, {"select_topk": 0.4}, _DIVIDED),
    Case("ram", 3, True, {}, _DIVIDED),
    Case("ramplus_tl", 3, True, {"r": 0.1, "alpha": 0.2}, _DIVIDED),
    Case("emr", 2, True, _WEIGHTS, _POINTWISE, None),
    Case("magmax", 2, True, _WEIGHTS, _POINTWISE, None),
    Case("nearswap", 1, True, {"t": 0.001}, _DIVIDED),
    Case("arcee_fusion", 1, True, {}, _POINTWISE),
)


@dataclass(frozen=True, slots=True)
class Record:
    """What was found of a case; errors in units in the last place that the output's type has at an element's
    largest magnitude, among inputs and result.

    Attributes:
        error, peer_error: the largest.
        mean, peer_mean: root mean square.
        share: the largest error as a share of what is allowed, 0.5 units and the case's bound.
        otherwise, peer_otherwise: elements of which another decision was made.
    """

    case: Case
    dtype: str
    error: float
    mean: float
    share: float
    otherwise: int
    peer_error: float | None = None
    peer_mean: float | None = None
    peer_otherwise: int | None = field(default=None)

    @property
    def name(self) -> str:
        return self.case.label or self.case.method


def _exact(values: Any) -> Any:
    return values


def _single(values: Any) -> Any:
    return np.asarray(values, np.float32).astype(np.float64)


def _rounding(dtype: str) -> Any:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    # By float32 first: that is how mergekit's operations on bfloat16 are calculated.
    return lambda values: np.asarray(values, np.float32).astype(kind).astype(np.float64)


@cache
def _tensors(dtype: str) -> tuple[Any, ...]:
    """A base and three fine-tunes near it, of which each left a tenth of the elements alone."""
    random = np.random.default_rng(0)
    base = random.standard_normal(SHAPE) * 0.02
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    moves = (random.standard_normal(SHAPE) * 0.002 * (random.random(SHAPE) > 0.1) for _ in range(3))
    return tuple(tensor.astype(kind) for tensor in (base, *(base + move for move in moves)))


def _masks(case: Case, models: list[Any], base: Any) -> tuple[Any, ...]:
    """The masks that the library draws, as its specification has them."""
    if not case.random:
        return ()
    method = get_method(case.method)
    settings = Settings.read(method, case.parameters, len(models))
    places = tuple(range(len(models)))
    inputs = Inputs(
        "tensor", base.size, len(models), places, settings.values, settings.per_model, places, shape=base.shape
    )
    request = next(method.program(inputs))
    assert isinstance(request, MaskedSum)
    deltas = [(model.astype(np.float32) - base.astype(np.float32)).reshape(-1) for model in models]
    return tuple(mask.run(flatten_rule(rule), delta) for rule, delta in zip(request.rules, deltas, strict=True))


def measure(case: Case, dtype: str) -> Record:
    """Merge, evaluate, compare."""
    base, *tuned = _tensors(dtype)
    models = tuned[: case.models]
    origin = base if case.based else None
    method = get_method(case.method)
    # What a formula needs of a recipe: the method's defaults as well.
    defaults = {p.name: p.default for p in method.parameters}
    parameters = {**defaults, **case.parameters, "rows": SHAPE[0]}
    masks = _masks(case, models, base)

    def evaluate(round_: Any) -> tuple[Any, Any]:
        scalar = _exact if round_ is _exact else _single
        sides = [Reals(model.astype(np.float64).reshape(-1), round_, scalar) for model in models]
        start = None if origin is None else Reals(origin.astype(np.float64).reshape(-1), round_, scalar)
        result, decided = FORMULAS[case.method](Given(sides, start, parameters, masks))
        return result.values, np.broadcast_to(decided, result.values.shape)

    ideal, decided = evaluate(_exact)
    merged = merge_tensors(case.method, models, base=origin, parameters=case.parameters)
    got = merged.astype(np.float64).reshape(-1)
    inputs = (*models, base) if case.based else models
    magnitudes = np.abs([ideal, *(tensor.astype(np.float64).reshape(-1) for tensor in inputs)])
    # Half a unit at the result itself, and what is rounded in float32 before.
    allowed = 0.5 * _last_place(magnitudes[0], dtype) + case.bound * _UNIT * magnitudes.sum(axis=0)
    unit = _last_place(magnitudes.max(axis=0), dtype)
    error = np.abs(got - ideal)
    # What float32 may decide otherwise; whether it did shows in the result.
    same = (evaluate(_rounding("float32"))[1] == decided) | (error <= allowed)
    found = _summarize(error / unit, same)
    peer: tuple[float, float, int] | tuple[None, None, None] = (None, None, None)
    if case.peer is not None:
        theirs, chosen = evaluate(_rounding(case.peer or dtype))
        stored = _rounding(dtype)(theirs)
        peer = _summarize(np.abs(stored - ideal) / unit, chosen == decided)
    return Record(case, dtype, found[0], found[1], float((error / allowed)[same].max()), found[2], *peer)


def _last_place(magnitudes: Any, dtype: str) -> Any:
    return np.exp2(np.floor(np.log2(np.maximum(magnitudes, 1e-37))) - (DTYPES[dtype] - 1))


def _summarize(units: Any, same: Any) -> tuple[float, float, int]:
    return float(units[same].max()), float(np.sqrt((units[same] ** 2).mean())), int((~same).sum())


def records() -> Iterator[Record]:
    """Every case in every type."""
    for case in CASES:
        for dtype in DTYPES:
            yield measure(case, dtype)


def _row(record: Record) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.3g}"

    count = "" if record.peer_otherwise is None else str(record.peer_otherwise)
    cells = [
        record.name,
        record.dtype,
        number(record.error),
        number(record.mean),
        str(record.otherwise),
        f"0.5 + {record.case.bound} r",
        number(record.share),
        number(record.peer_error),
        number(record.peer_mean),
        count,
    ]
    return "| " + " | ".join(cells) + " |\n"


def make_table(found: list[Record]) -> str:
    """The generated part of the page."""
    size = SHAPE[0] * SHAPE[1]
    head = (
        f"{size:,} random weights of a standard deviation of 0.02, task vectors of 0.002. Errors are in units in the "
        "last place that\nthe output's type has at the largest of an element's inputs and result: the largest, and the "
        "root of the mean square.\n*Otherwise* counts elements for which rounding changed a decision (what is trimmed, "
        "whose sign wins, what reaches a threshold),\nwhich errors leave out. The bound is for every element: half a "
        "unit in the last place of the result, and so many r, a rounding of\nfloat32 of the sum of the magnitudes of "
        "inputs and result; *of it* is the largest share of it that an error took. mergekit is its\npublished "
        "arithmetic: every operation rounded to the type of the inputs (linear and slerp: to float32).\n\n"
    )
    columns = ["method", "type", "largest", "rms", "otherwise", "bound", "of it"]
    columns += ["mergekit: largest", "rms", "otherwise"]
    lines = ["| " + " | ".join(columns) + " |\n", "|" + "---|" * len(columns) + "\n"]
    return head + "".join(lines) + "".join(map(_row, found))


def main() -> int:
    """Command line: see the module's description."""
    found = list(records())
    table = make_table(found)
    if "--update" in sys.argv[1:]:
        page = PAGE.read_text(encoding="utf-8")
        start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        PAGE.write_text(page[:start] + "\n" + table + "\n" + page[end:], encoding="utf-8")
    else:
        print(table, end="")
    missing = set(method_names()) - {case.method for case in CASES}
    wrong = [record for record in found if record.share > 1]
    for name in sorted(missing):
        print(f"{name}: no case", file=sys.stderr)
    for record in wrong:
        print(f"{record.name} {record.dtype}: {record.share:.2f} of the bound", file=sys.stderr)
    return 1 if missing or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
