"""Memory budget: how large the working pieces of a merge may be, so that all of them fit.

What a merge holds does not depend on how large its tensors are. Per worker: the mapped parts of the
inputs it reads, and room for the keys of a tile. Shared: the output buffers, the keys that a select
gathers, the plan, and, of what is left, random masks. What grows with a tensor is left out: 8 bytes
per sum and 262,144 elements; numbers per row or column, a few times the 32 MiB at most that
methods/_lines.py lets pass, mostly far less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pymerge.checkpoint.sources import Dequantized, Given, LowRank, Rows
from pymerge.checkpoint.values import Source
from pymerge.errors import RecipeError, ResourceError
from pymerge.ops import MaskedSum, RankBernoulli, Select, SelectSpread, TaskMerge
from pymerge.plan.costs import Trace, iterate_staged, trace_program
from pymerge.plan.values import MergePlan, TensorTask
from pymerge.schedule.machine import usable_memory, usable_processors
from pymerge.schedule.values import Resources

__all__ = ["assign_resources", "count_cuts", "count_ranked"]

KIB = 1 << 10
MIB = 1 << 20
#: What Python and its libraries take before any data is touched: 40 MiB with the command line.
_RESIDENT_AT_REST = 48 * MIB
#: What each source of each tensor takes in plan, schedule and engine (150 MB for 20,000 tensors of 4 models).
_PER_SOURCE = 2 * KIB
#: Blocks are 4 MiB where they fit: smaller ones cost more system calls, larger ones gain nothing
#: (direct writes of 1, 4 and 8 MiB took 1.27, 1.16 and 1.35 s for 2.2 GB).
_BLOCKS = tuple(size * KIB for size in (4096, 2048, 1024, 512, 256, 128, 64))
#: The first blocks, which are given up before a select's keys are: a pass more costs much more.
_LARGE_BLOCKS = _BLOCKS[:3]
_BUFFERS = 8
#: Elements of a measuring tile (kernels/common/canonical.h).
_TILE = 256 * KIB
#: Copies of inputs that a worker holds where it does not read in place: pieces of all of them together
#: (kPiece in kernels/common/inputs.cc), or a block of one where integers of two models are compared.
_PIECES = 512 * KIB
#: Elements of an input that stay mapped until the last of them is read, and bytes that become resident
#: on either side of what is read (kernels/common/inputs.cc, csrc/io/mapped_file.h).
_WINDOW = 2 * MIB
_EDGE = 2 * MIB
#: What a worker holds besides for each time that one derived source is read from another: copies, and a kernel's
#: working memory.
_NESTED = _PIECES + (1 << 20)
#: Bytes of output whose tasks are under way at once (pymerge/execute/flow.py: decided, and measured).
_UNDER_WAY = 512 * MIB
#: A worker that scans has this many keys for each element of a tile at most, however many cuts there are:
#: the more inputs, the shorter are the pieces.
_SCANNED = 2
#: Keys gathered per cut. A bracket is meant to hold 4 % of a small tensor, 1.4 % of a large one
#: (kernels/select/job.cc), and half as much again by chance; what is larger than the most is counted first.
_MOST_GATHERED = 16 * MIB
_LEAST_GATHERED = 256 * KIB
_BRACKET = 0.06
#: Where elements are ranked, a worker has this of each input besides: a segment of a row at either end of a
#: copy, and of each model what it has ranked (RankedRun in kernels/common/segments.h).
_RANKED = 3 * 65536 + 2 * 65536 * 4
#: Random masks that are kept, one bit an element and model: all of those between measure and combine, which
#: are 43 MB of two models in 16 bits, by what is in flight (_AHEAD in execute/run.py).
_MOST_MASKS = 64 * MIB


def count_cuts(plan: MergePlan) -> int:
    """The most cuts that one select of this plan asks for; 0 if there is none."""
    requests = (request for trace in _trace_different(plan) for request in trace.measures)
    cuts = (
        len(request.counts) if isinstance(request, Select) else int(isinstance(request, SelectSpread))
        for request in requests
    )
    return max(cuts, default=0)


def count_ranked(plan: MergePlan) -> int:
    """The most inputs that one request on elements ranked by row reads; 0 if there is none."""
    requests = (request for trace in _trace_different(plan) for request in (*trace.measures, trace.combine))
    masking = (request for request in requests if isinstance(request, (MaskedSum, TaskMerge)))
    return max((_inputs_ranked(request) for request in masking), default=0)


def _trace_different(plan: MergePlan) -> Iterator[Trace]:
    """Traces of tasks whose programs see different parameters: the others ask for the same."""
    programs = [(plan.method, task) for task in plan.tasks]
    programs += [(staged.method, staged.task) for task in plan.tasks for staged in iterate_staged(task)]
    different = {
        (method.name, task.inputs.models, *task.inputs.per_model.values()): (method, task)
        for method, task in programs
        if task.inputs
    }
    return (trace_program(method, task) for method, task in different.values())


def _inputs_ranked(request: MaskedSum | TaskMerge) -> int:
    """All of a request's inputs, which reach over whole rows if one rule ranks."""
    return 1 + len(request.rules) if any(isinstance(rule, RankBernoulli) for rule in request.rules) else 0


def assign_resources(
    tasks: Sequence[TensorTask], threads: int | None, memory: int | None, *, cuts: int = 0, ranked: int = 0
) -> Resources:
    """Return the resources for these tasks.

    Args:
        threads: None takes every processor that the process may use, or as many as the budget allows.
        memory: bytes; None takes a quarter of what the machine (or its cgroup) has.
        cuts: the most cuts of one select.
        ranked: the most inputs of one request whose elements are ranked by row.

    Raises:
        RecipeError: less than one thread.
        ResourceError: the budget is too small for any block size.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads = {threads} must be at least 1")
    most = threads if threads is not None else usable_processors()
    budget = memory if memory is not None else usable_memory() // 4
    key = max((task.compute.bits // 8 for task in tasks), default=4)
    room = min(cuts, _SCANNED) * key * _TILE + ranked * _RANKED
    wanted = _wanted_keys(tasks, key) if cuts else 0
    for workers in range(most, most - 1 if threads is not None else 0, -1):
        # First with all the keys, then with whatever is left for them; only in the first and best case
        # are inputs read in place.
        for block in _LARGE_BLOCKS:
            for in_place in (True, False):
                need = _need(tasks, workers, block, room, in_place)
                if need + _held(cuts) * wanted <= budget:
                    gathered = max(wanted, _LEAST_GATHERED)
                    masks = _count_masks(budget - need - _held(cuts) * gathered)
                    return Resources(workers, budget, block, _count_buffers(workers), gathered, in_place, masks)
        for block in _BLOCKS:
            left = (budget - _need(tasks, workers, block, room, False)) // _held(cuts)
            if left >= _LEAST_GATHERED:
                gathered = min(left, _MOST_GATHERED)
                return Resources(workers, budget, block, _count_buffers(workers), gathered, False)
    models = max((len(task.sources) for task in tasks), default=1)
    fewest = threads if threads is not None else 1
    least = _need(tasks, fewest, _BLOCKS[-1], room, False) + _held(cuts) * _LEAST_GATHERED
    raise ResourceError(
        f"a memory budget of {budget // MIB} MiB is too small for {fewest} threads and {models} models; "
        f"give at least {-(-least // MIB)} MiB with --memory{', or fewer --threads' if fewest > 1 else ''}"
    )


def _count_buffers(workers: int) -> int:
    return max(_BUFFERS, 2 * workers)


def _count_masks(left: int) -> int:
    """Bytes of masks: half of what nothing else has a claim on, in steps."""
    return max(0, min(_MOST_MASKS, left // (2 * MIB) * MIB))


def _held(cuts: int) -> int:
    """How many cuts' keys are there at once: those of a select that ends, of the next, and of each a copy."""
    return 2 * (cuts + 1)


def _wanted_keys(tasks: Sequence[TensorTask], key: int) -> int:
    largest = max((task.count for task in tasks), default=0)
    return min(_MOST_GATHERED, int(_BRACKET * key * largest))


def _need(tasks: Sequence[TensorTask], workers: int, block: int, room: int, in_place: bool) -> int:
    """Bytes without the gathered keys; `room`: what each worker has besides inputs."""
    held = max((_mapped(task, block) if in_place else _copied(task, block) for task in tasks), default=0)
    rest = _RESIDENT_AT_REST + _PER_SOURCE * sum(len(task.sources) for task in tasks) + _count_derived(tasks)
    depth = max((_count_depth(source) for task in tasks for source in task.sources), default=0)
    return rest + _count_buffers(workers) * block + workers * (held + depth * (_NESTED + room) + room)


def _count_depth(source: Source) -> int:
    """How many derivations a source is away from what is stored."""
    return 1 + max(map(_count_depth, source.parts)) if source.parts else 0


def _count_derived(tasks: Sequence[TensorTask]) -> int:
    """What derived sources hold as long as their tasks are under way: factors as float32, choices of rows, scales."""
    most = total = 0.0
    for task in tasks:
        held = sum(map(_held_by, task.sources))
        total += held
        most = max(most, held / max(task.nbytes, 1))
    return int(min(total, most * _UNDER_WAY))


def _held_by(source: Source) -> int:
    own = 0
    if isinstance(source, LowRank):
        own = sum(4 * (update.a.count + update.b.count) for update in source.updates)
    elif isinstance(source, Rows):
        own = 2 * 8 * (len(source.choice.starts) + 2 * len(source.choice.rows))
    elif isinstance(source, Dequantized):
        own = source.held
    elif isinstance(source, Given):
        own = source.nbytes
    return own + sum(map(_held_by, source.parts))


def _copied(task: TensorTask, block: int) -> int:
    """Bytes of inputs that a worker has copied while it works on this task."""
    return max(_PIECES, block) if task.must_agree else _PIECES


def _mapped(task: TensorTask, block: int) -> int:
    """Bytes of inputs that a worker has mapped while it works on this task."""
    total = 0
    for source in task.sources:
        filled = int(block * source.nbytes / task.nbytes) if task.nbytes else 0
        window = _WINDOW * source.dtype.bits // 8 if task.inputs else 0
        total += min(max(filled, window), source.nbytes) + max(window, 2 * _EDGE)
    return total
