"""Every backend gives the bits of the specification, for every kernel, dtype, level and case."""

from __future__ import annotations

from array import array
from contextlib import nullcontext

import kernel_cases as cases
import numpy as np
import pytest
from conformance.conftest import EachLevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymerge import _core
from pymerge.backends.cpu import CpuOps
from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME, DType
from pymerge.kernels.common.convert import NUMPY_DTYPES, encode
from pymerge.ops import (
    KEEP_ALL,
    KEEP_NONE,
    Band,
    Bernoulli,
    Cut,
    Fusion,
    Gram,
    KeyCounts,
    KeySample,
    Lines,
    MaskedSum,
    NearSwap,
    Overlap,
    RowDivergence,
    Select,
    SelectSpread,
    Spread,
    TaskMerge,
    TopK,
    WeightedSum,
)

REFERENCE = ReferenceOps()
RULES = (
    KEEP_ALL,
    KEEP_NONE,
    Bernoulli(1, 7),
    Bernoulli(30_000, 0x0123456789ABCDEF),
    Bernoulli(65_536, 9),
    TopK(Cut(0x3C000000, 500)),
    Band(Cut(0x3B000000, 100), Cut(0x3C800000, 1200)),
)


#: Rules of one kind for all sources, which kernels may have loops of their own for; the least and the
#: greatest thresholds there are, and what keeps all or nothing, among them.
RULE_SETS = (
    (KEEP_ALL,) * 4,
    (TopK(Cut(0x3C000000, 500)), KEEP_NONE, TopK(Cut(0x7FC00000, 40)), TopK(Cut(0, -1))),
    (TopK(Cut(0x3B000000, -1)), KEEP_ALL, TopK(Cut(0x7F800000, 20)), KEEP_NONE),
    (Band(Cut(0x3B000000, 100), Cut(0x3C800000, 1200)), KEEP_ALL, Band(Cut(0, 3), Cut(0x7FC00000, 9)), KEEP_NONE),
    (Bernoulli(30_000, 1), Bernoulli(1, 2), KEEP_ALL, KEEP_NONE),
    (Bernoulli(65_536, 3), Bernoulli(40_000, 1 << 63), Bernoulli(9, 9), Bernoulli(30_000, 1)),
)
#: What SCE keeps; and rules that look at all sources beside others.
APART = (Spread(Cut(0x39000000, 700)),) * 5
APART_OR_ALL = (APART[0], KEEP_ALL, APART[0], Spread(Cut(0x38000000, 9)), KEEP_ALL)
MIXED = (Spread(Cut(0x39000000, 700)), KEEP_ALL, Spread(Cut(0, -1)), Bernoulli(30_000, 1), Spread(Cut(0x7F800000, 3)))
#: Magnitudes above a threshold, ties included in what is dropped.
ABOVE = (TopK(Cut(0x3727C5AC, -1)),) * 4
#: Consensus and whether the sum is divided.
MODES = (("none", False), *((how, divide) for how in ("sum", "count", "overlap") for divide in (False, True)))
#: (rows, length): narrow, odd, around lanes and blocks, across tiles, longer than what is kept and than a piece.
ROWS = ((40, 1), (50, 3), (33, 31), (9, 1024), (7, 1025), (300, 1031), (2, 40_001), (2, cases.TILE + 1))
#: Base and task vector as multiples of the usual: a base that fits the short exponential, needs halvings, is too
#: large; moves that are near, and that are not.
SIZES = ((1, 0.2), (30, 0.2), (190, 0.2), (900, 1), (1, 1))
SEVERAL_LENGTHS = (cases.LANES - 1, 777, cases.BLOCK + 1, 3 * cases.BLOCK + 5)


def compute_of(dtype: str) -> DType:
    return BY_NAME["float64" if dtype == "float64" else "float32"]


@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
class TestEveryBackend:
    def test_gram(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 2, special=special)
            for request in (Gram((0, 1, 2)), Gram((1, 2), base=0), Gram((0, 1, 2), base=0), Gram((0, 1, 2, 0))):
                if not cases.is_chosen(request, dtype, length, special, one_in=4):
                    continue
                answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                assert cases.same_answer(*answers), (length, request)

    def test_select(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 2, special=special)
            counts = (length // 2, min(1, length), length, 0, length // 3)
            for base in (0, None):
                request = Select((1, 2, 1, 2, 0), counts, base)
                if not cases.is_chosen(request, dtype, length, special, one_in=4):
                    continue
                answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                assert cases.same_answer(*answers), (length, base)

    def test_key_counts(self, ops: Ops, dtype: str, special: bool) -> None:
        wide = dtype == "float64"
        narrow, whole = (45, 63) if wide else (15, 31)
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 2, special=special)
            some = 0x3F80000000000000 if wide else 0x3C000000
            nan = 0x7FF8000000000000 if wide else 0x7FC00000
            for base in (0, None):
                for lows, shift, buckets in (
                    ((0, 0), narrow, 1 << 16),
                    ((some, 1), narrow, 300),
                    ((0, some), whole, 1),
                    ((0, some), 0, 1),
                    ((0, some), 0, 1 << 12),
                    ((some, 1), narrow - 8, 1 << 16),
                    ((nan - 5, nan), 0, 1 << 12),
                ):
                    for beyond in (False, True):
                        request = KeyCounts((1, 2), lows, shift, buckets, base, beyond)
                        if not cases.is_chosen(request, dtype, length, special, one_in=4):
                            continue
                        answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                        assert answers[0] == answers[1], (length, request)

    def test_key_sample(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 2, special=special)
            for base in (0, None):
                for apart in (65, 1 << 10):
                    request = KeySample((1, 2, 1), apart, base)
                    answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                    assert answers[0] == answers[1], (length, request)

    def test_select_of_how_far_tensors_are_apart(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 3, special=special)
            operands[1][::3] = operands[2][::3] = operands[3][::3]
            for sources in ((1,), (1, 2), (3, 1, 2)):
                for share in (0.0, 0.3, 1e-3, 1.0):
                    request = SelectSpread(sources, share)
                    if not cases.is_chosen(request, dtype, length, special, one_in=4):
                        continue
                    answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                    assert cases.same_answer(*answers), (length, request)

    def test_rules_that_look_at_all_sources(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in SEVERAL_LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 5, special=special)]
            for models in (1, 2, 3, 5):
                sources, weights = tuple(range(1, models + 1)), (0.5, -0.25, 1.0, 0.5, 0.125)[:models]
                for rules in (APART[:models], APART_OR_ALL[:models], MIXED[:models]):
                    norms = (MaskedSum(sources, rules, base, norm) for base in (0, None) for norm in ("l1", "l2"))
                    for measure in (*norms, Overlap(sources, rules, 0)):
                        if not cases.is_chosen(measure, dtype, special, length):
                            continue
                        answers = [each.measure(measure, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                        assert cases.same_answer(*answers), (length, measure)
                    for consensus, votes in (("none", ()), ("sum", ()), ("sum", weights[::-1]), ("overlap", ())):
                        request = TaskMerge(0, sources, rules, weights, consensus, weights, True, 0.9, votes)
                        combine_both(ops, request, operands, dtype, length, out_dtypes=("bfloat16", dtype))

    def test_masked_sum(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 1, special=special)
            for rules in (RULES, RULE_SETS[-1], *RULE_SETS[1:4]):
                for norm in ("l1", "l2", "linf"):
                    request = MaskedSum((1,) * len(rules), rules, 0, norm)
                    if not cases.is_chosen(request, dtype, special, length):
                        continue
                    answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                    assert cases.same_answer(*answers), (length, rules, norm)

    def test_overlap(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = cases.make(dtype, length, 3, special=special)
            for sources, rules in (((1, 2, 3), RULES[-3:]), ((1, 2, 3, 1), RULES[:4]), ((2,), RULES[-1:])):
                for base in (0, None):
                    request = Overlap(sources, rules, base)
                    if not cases.is_chosen(request, dtype, special, length):
                        continue
                    answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                    assert cases.same_answer(*answers), (length, rules, base)

    def test_mask(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.SHORT_LENGTHS:
            (_, delta) = cases.make(compute_of(dtype).name, length, 1, special=special)
            for rule in RULES:
                outs = [cases.guarded(length, np.int8) for _ in range(2)]
                for each, (_, inner) in zip((ops, REFERENCE), outs, strict=True):
                    each.mask(rule, delta, inner)
                assert np.array_equal(outs[0][1], outs[1][1]), (length, rule)
                assert cases.guards_untouched(outs[0][0])

    def test_weighted_sum(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 3, special=special)]
            for request in (WeightedSum((1,), (1.0,)), WeightedSum((3, 0, 1, 2), (0.4, -1.5, 1e-3, 2.0))):
                combine_both(ops, request, operands, dtype, length)

    def test_task_merge(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 5, special=special)]
            # Emulated, the longest take most of the time, and say little of models that shorter ones do not.
            for models in (3,) if cases.EMULATED and length > cases.TILE // 2 else (1, 2, 3, 5):
                sources = tuple(range(1, models + 1))
                weights = (0.5, -0.25, 1.0, 0.5, 0.125)[:models]
                rules = RULES[-models:]
                for consensus, normalize in MODES:
                    request = TaskMerge(0, sources, rules, weights, consensus, weights, normalize, 0.9)
                    combine_both(ops, request, operands, dtype, length)

    def test_votes_and_numbers_for_one_alone(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in SEVERAL_LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 5, special=special)]
            for models, rules in ((1, ABOVE), (2, RULE_SETS[0]), (3, RULES[-3:]), (5, RULES[-5:]), (4, RULE_SETS[1])):
                sources = tuple(range(1, models + 1))
                weights = (0.5, -0.25, 1.0, 0.5, 0.125)[:models]
                votes = (1.0, 1.0, -2.0, 0.0, 0.5)[:models]
                alone = (1.5, 1.25, -1.0, 3.0, 0.0)[:models]
                for consensus in ("sum", "count", "overlap"):
                    request = TaskMerge(0, sources, rules[:models], weights, consensus, scale=-0.9, pick=True)
                    combine_both(ops, request, operands, dtype, length, out_dtypes=("bfloat16", dtype))
                    for extra in ((votes, ()), ((), alone), (votes, alone), ((np.inf,) * models, ())):
                        request = TaskMerge(0, sources, rules[:models], weights, consensus, weights, True, 0.9, *extra)
                        combine_both(ops, request, operands, dtype, length, out_dtypes=("bfloat16", dtype))

    def test_row_divergence(self, ops: Ops, dtype: str, special: bool) -> None:
        for rows, length in ROWS:
            for size, move in SIZES if rows * length < cases.TILE else SIZES[:2]:
                if not cases.is_chosen(rows, length, size, dtype, special):
                    continue
                base, tuned = (t.astype(np.float64) for t in cases.make(dtype, rows * length, 1, special=special))
                with np.errstate(all="ignore"):
                    tuned = base * size + (tuned - base) * move
                    operands = [cases.unaligned(t.astype(NUMPY_DTYPES[dtype])) for t in (base * size, tuned)]
                request = RowDivergence((1,), 0, Lines(rows, length))
                answers = [np.asarray(each.measure(request, operands, compute_of(dtype))) for each in (ops, REFERENCE)]
                np.testing.assert_array_equal(*answers, err_msg=str((rows, length, size, move)))

    def test_select_and_fusion_by_lines(self, ops: Ops, dtype: str, special: bool) -> None:
        for rows, length in ROWS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, rows * length, 2, special=special)]
            for lines in (Lines(rows, length), Lines(length, rows, strided=True)):
                values = np.random.default_rng(rows).random(lines.count) * 1e-3
                values[::7] = 0
                if special:
                    values[::11] = np.nan
                factors, count = array("d", values), rows * length
                counts = (count, count // 2, count // 5, count // 3)
                if not cases.is_chosen(lines, dtype, special):
                    continue
                request = Select((1, 1, 1, 2), counts, 0, factors=factors, lines=lines)
                answers = [each.measure(request, operands, compute_of(dtype)) for each in (ops, REFERENCE)]
                assert answers[0] == answers[1], (rows, length)
                for threshold in (answers[0][2].magnitude(wide=dtype == "float64"), 0.0, np.nan):
                    request = Fusion(0, (1,), factors, lines, threshold)
                    combine_both(ops, request, operands, dtype, count, out_dtypes=("bfloat16", dtype))

    def test_near_swap(self, ops: Ops, dtype: str, special: bool) -> None:
        for length in cases.LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 1, special=special)]
            for t in (0.01, 1e-7, 0.0, 1e300):
                combine_both(ops, NearSwap(0, (1,), t), operands, dtype, length)

    @pytest.mark.parametrize("rules", RULE_SETS, ids=range(len(RULE_SETS)))
    def test_task_merge_by_rules_of_one_kind(
        self, ops: Ops, dtype: str, special: bool, rules: tuple[object, ...]
    ) -> None:
        for length in SEVERAL_LENGTHS:
            operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 4, special=special)]
            for models in (1, 2, 3, 4):
                sources = tuple(range(1, models + 1))
                weights = (-0.5, 0.25, 1.0, np.inf)[:models]
                for consensus, normalize in MODES:
                    request = TaskMerge(0, sources, rules[:models], weights, consensus, weights, normalize, 0.9)
                    combine_both(ops, request, operands, dtype, length, out_dtypes=("bfloat16", dtype))


def combine_both(
    ops: Ops,
    request: object,
    operands: list[object],
    dtype: str,
    length: int,
    out_dtypes: tuple[str, ...] = cases.DTYPES,
) -> None:
    """Combine into every output dtype on both backends; same bits, guards untouched."""
    chosen = [each for each in dict.fromkeys(out_dtypes) if cases.is_chosen(request, dtype, length, each)]
    if not chosen:
        return
    # The specification rounds once, at the end: it takes most of the time, and is worked out once for all types.
    compute = compute_of(dtype)
    specified = np.empty(length, NUMPY_DTYPES[compute.name])
    REFERENCE.combine(request, operands, compute, specified)
    for out_dtype in chosen:
        whole, inner = cases.guarded(length, NUMPY_DTYPES[out_dtype])
        ops.combine(request, operands, compute, inner)
        assert inner.tobytes() == encode(specified, out_dtype).tobytes(), (length, out_dtype, request)
        assert cases.guards_untouched(whole)


class TestEveryThreadCount:
    def test_same_bits(self, threads: int) -> None:
        length = 9 * (3 * cases.TILE // 9 + 1_371)
        operands = cases.make("bfloat16", length, 2)
        one, many = CpuOps(1), CpuOps(threads)
        compute = BY_NAME["float32"]
        cuts = one.measure(Select((1, 2), (length // 2, length // 5), 0), operands, compute)
        lines = Lines(9, length // 9)
        factors = one.measure(RowDivergence((1,), 0, lines), operands, compute)
        rules = (TopK(cuts[0]), Bernoulli(20_000, 5))
        for request in (
            Gram((0, 1, 2)),
            Select((1, 2), (length // 2, length // 5), 0),
            MaskedSum((1, 2), rules, 0),
            RowDivergence((1,), 0, lines),
            Select((1, 1), (length // 2, length // 5), 0, factors=factors, lines=lines),
        ):
            assert one.measure(request, operands, compute) == many.measure(request, operands, compute)
        for combine in (
            WeightedSum((0, 1, 2), (0.2, 0.3, 0.5)),
            TaskMerge(0, (1, 2), rules, (1.0, 0.5), "sum", (1.0, 0.5), True, 1.0),
            TaskMerge(0, (1, 2), rules, (1.0, 0.5), "sum", (1.0, 0.5), True, 1.0),
            NearSwap(0, (1,), 0.01),
            Fusion(0, (1,), factors, lines, 1e-6),
        ):
            outs = [np.empty(length, NUMPY_DTYPES["bfloat16"]) for _ in range(2)]
            one.combine(combine, operands, compute, outs[0])
            many.combine(combine, operands, compute, outs[1])
            assert outs[0].tobytes() == outs[1].tobytes()


@settings(max_examples=8 if cases.INTERPRETED else 60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), dtype=st.sampled_from(cases.DTYPES), length=st.integers(0, 3000))
def test_any_bit_pattern(best: Ops, data: st.DataObject, dtype: str, length: int) -> None:
    """Tensors of arbitrary bits, NaN payloads and denormals included, merge to the reference's bits."""
    raw = np.random.default_rng(data.draw(st.integers(0, 2**32))).bytes(3 * length * NUMPY_DTYPES[dtype].itemsize)
    operands = list(np.frombuffer(raw, NUMPY_DTYPES[dtype]).reshape(3, length))
    compute = compute_of(dtype)
    counts = (data.draw(st.integers(0, length)), data.draw(st.integers(0, length)))
    select = Select((1, 2), counts, 0)
    cuts = best.measure(select, operands, compute)
    assert cuts == REFERENCE.measure(select, operands, compute)
    rules = (TopK(cuts[0]), TopK(cuts[1]))
    request = TaskMerge(0, (1, 2), rules, (0.5, 1.5), "sum", (0.5, 1.5), True, 1.0)
    combine_both(best, request, operands, dtype, length)


def test_select_survives_any_bracket(best: Ops) -> None:
    """Values that a sample misjudges (sorted, constant, two clusters) still give the exact cut."""
    length = 2 * cases.TILE + 17
    ramp = np.arange(length, dtype=np.float32)
    shapes = {
        "ramp": ramp,
        "constant": np.full(length, 0.5, np.float32),
        "two clusters": np.where(ramp < length // 3, np.float32(1e-6), np.float32(1e6)),
        # The sample takes runs of 64 every length/1024: large values hide between them.
        "hidden": np.where((ramp % (length // 1024)) < 64, np.float32(1e-6), ramp + 1),
    }
    for name, values in shapes.items():
        for count in (1, 2, length // 3, length // 2, length - 1, length):
            request = Select((0,), (count,))
            answers = [ops.measure(request, [values], BY_NAME["float32"]) for ops in (best, REFERENCE)]
            assert answers[0] == answers[1], (name, count)


def test_select_bounds_what_it_gathers(best: Ops) -> None:
    """Nine million equal magnitudes are more than may be gathered; the tie still ends at the right index."""
    values = np.full(9_000_000, -2.0, np.float32)
    (cut,) = best.measure(Select((0,), (4_500_000,)), [values], BY_NAME["float32"])
    assert cut == Cut(0x40000000, 4_499_999)


def test_levels_are_listed_lowest_first() -> None:
    names = [name for name, _ in _core.isa_levels()]
    assert names[0] == "generic"
    assert names == sorted(names)


def test_a_level_that_differs_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = EachLevel()
    ops.levels = [_core.active_isa()] * 2
    for answers, differ in (((0.0, 0.0), False), ((np.nan, -np.nan), False), ((0.0, -0.0), True), ((b"a", b"b"), True)):
        given = iter(answers)
        monkeypatch.setattr(CpuOps, "measure", lambda *_, given=given: next(given))
        with pytest.raises(AssertionError, match="does not answer as") if differ else nullcontext():
            ops.measure(Gram((0, 1)), [], BY_NAME["float32"])
