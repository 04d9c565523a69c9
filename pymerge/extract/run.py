"""An extraction carried out: matrices decomposed side by side and written in order, the folder made whole last."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from pymerge.checkpoint.adapters import CONFIG, WEIGHTS
from pymerge.checkpoint.sources import list_stored
from pymerge.errors import NonFiniteError, RecipeError, ResourceError
from pymerge.extract.beside import copy_tokenizer, make_card, make_config
from pymerge.extract.blas import one_thread_each
from pymerge.extract.decompose import Decomposition, Matrix, Wanted, decompose, measure_error
from pymerge.extract.plan import list_sources
from pymerge.extract.reading import differ, read_delta, read_stored
from pymerge.extract.values import Extracted, Extraction, ExtractionPlan, Factors, OnStep, Options, Whole
from pymerge.extract.write import PARTIAL, AdapterWriter
from pymerge.kernels.common.convert import encode
from pymerge.output.files import sync_folder, write_json, write_text
from pymerge.output.manifest import MANIFEST

__all__ = ["Coming", "extract"]

#: Seconds between two looks for a file that is being fetched.
_PATIENCE = 0.05
#: Parts that are under way or wait to be written, for each thread: what waits is small.
_AHEAD = 2
_CARD = "README.md"


class Coming(Protocol):
    """Weight files that are still fetched; `pymerge.hub.Fetcher`."""

    def expect(self, paths: Sequence[str]) -> None: ...
    def ready(self, paths: Iterable[str]) -> bool: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class _Found:
    """What has been found out so far; see `Extraction`."""

    matrices: list[Extracted] = field(default_factory=list)
    whole: list[Whole] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


#: A part with what was found of it: factors of a matrix, or whether tensors differ.
_Result = tuple[Extracted, Matrix, Matrix] | bool | None


def extract(
    plan: ExtractionPlan,
    folder: Path,
    *,
    overwrite: bool = False,
    coming: Coming | None = None,
    on_step: OnStep | None = None,
) -> Extraction:
    """Extract an adapter into a folder, which has an adapter_config.json only when all of it is there.

    Raises:
        RecipeError: the folder holds something, nothing differs, or something differs that no adapter can hold.
        NonFiniteError: a difference is not finite, or factors overflow.
        FormatError: a file is damaged, or cannot be fetched.
        ResourceError: disk or memory ran out, or another run is writing to the folder.
    """
    began = time.perf_counter()
    made = _make_folder(plan, folder, overwrite)
    say = on_step or (lambda step: None)
    found = _Found(left_out=dict(plan.left_out))
    try:
        if coming is not None:
            coming.expect(list(plan.missing))
        with AdapterWriter(folder, _list_names(plan)) as writer:
            found.equal += _refuse_unwritable(plan, coming)
            with one_thread_each() as single:
                workers = plan.threads if single else 1
                for number, (part, result) in enumerate(_work(plan, workers, coming), start=1):
                    _take(part, result, writer, found)
                    say(f"{number} of {len(plan.parts)}: {part.module if isinstance(part, Factors) else part.name}")
            return _finish(plan, folder, writer, found, began)
    except BaseException:
        if made:
            _remove_empty(folder)
        raise
    finally:
        if coming is not None:
            coming.close()


def _make_folder(plan: ExtractionPlan, folder: Path, overwrite: bool) -> bool:
    """Make the folder; returns whether it is new. An adapter in it stays until another one is found."""
    try:
        # Looking for it already fails where its name is too long.
        for model in (plan.tuned, plan.base):
            if model.folder.resolve() == folder.resolve():
                raise RecipeError(f'output folder {folder} is the folder of model "{model.ref}"; name another one')
        if folder.exists() and not folder.is_dir():
            raise RecipeError(f"output {folder} is a file, not a folder; name another one")
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir() if path.name != PARTIAL)
        if present and not overwrite:
            raise RecipeError(
                f"output folder {folder} is not empty ({len(present)} entries, such as {present[0]}); name a new "
                "folder, or give --overwrite to replace the adapter in it"
            )
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be made: {error.strerror or error}") from error
    return new


def _remove_adapter(folder: Path) -> None:
    """Make a folder look like no adapter, whatever becomes of it."""
    try:
        for name in (CONFIG, *WEIGHTS, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be replaced: {error.strerror or error}") from error
    sync_folder(folder)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _list_names(plan: ExtractionPlan) -> Iterator[str]:
    for part in plan.parts:
        if isinstance(part, Factors):
            yield from part.names
        else:
            yield from (_beside_factors(tensor.name) if not part.modules else tensor.name for tensor in part.tensors)


def _beside_factors(bias: str) -> str:
    """A bias's name where its module has factors: there PEFT has the module itself below `base_layer`."""
    return f"{bias.removesuffix('.bias')}.base_layer.bias"


def _refuse_unwritable(plan: ExtractionPlan, coming: Coming | None) -> list[str]:
    """What no adapter can hold must not differ; looked at before anything is decomposed. Returns its names."""
    equal, differing = [], []
    for part in plan.parts:
        if isinstance(part, Whole) and not part.writable:
            _wait(part, coming)
            if _differs(part):
                differing.append(part)
            else:
                equal.append(part.name)
    if differing:
        listed = ", ".join(f'"{part.name}" ({part.why})' for part in differing[:5])
        more = f" and {len(differing) - 5:,} more" if differing[5:] else ""
        raise RecipeError(
            f"{listed}{more} {'differs' if len(differing) == 1 else 'differ'}, and no adapter can hold that; "
            "--skip-undecomposable, or --exclude-regex, leaves it out"
        )
    return equal


def _work(plan: ExtractionPlan, workers: int, coming: Coming | None) -> Iterator[tuple[Factors | Whole, _Result]]:
    """Every part with what was found of it, in order; matrices are decomposed ahead."""

    def look(part: Factors | Whole) -> _Result:
        _wait(part, coming)
        return _differs(part) if isinstance(part, Whole) else _extract_factors(part, plan.options)

    parts = deque(part for part in plan.parts if isinstance(part, Factors) or part.writable)
    under_way: deque[tuple[Factors | Whole, Future[_Result]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while parts or under_way:
            while parts and len(under_way) < workers * _AHEAD:
                part = parts.popleft()
                under_way.append((part, pool.submit(look, part)))
            part, future = under_way.popleft()
            yield part, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _wait(part: Factors | Whole, coming: Coming | None) -> None:
    if coming is None:
        return
    paths = [stored.path for source in list_sources(part) for stored in list_stored(source)]
    while not coming.ready(paths):
        time.sleep(_PATIENCE)


def _differs(part: Whole) -> bool:
    return any(differ(tensor.tuned, tensor.base) for tensor in part.tensors)


def _extract_factors(part: Factors, options: Options) -> tuple[Extracted, Matrix, Matrix] | None:
    """The factors A and B of a matrix, flat, as they are stored; None if it does not differ."""
    delta = read_delta(part.tuned, part.base)
    if delta is None:
        return None
    wanted = Wanted(part.rank, options.energy, options.sv_epsilon)
    found: Decomposition = decompose(delta, wanted, method=part.method, seed=options.seed, name=part.module)
    turned = part.kind != "linear"
    a, b = (found.turned() if turned else found).factors(distribute=options.distribute_scale)
    a, b = (encode(np.ascontiguousarray(factor), part.dtype.name) for factor in (a, b))
    if not all(np.isfinite(factor.astype(np.float32)).all() for factor in (a, b)):
        raise NonFiniteError(f"{part.module}: the factors are not finite in {part.dtype}; give --dtype float32")
    missed = measure_error(delta, b.T, a.T) if turned else measure_error(delta, a, b)
    facts = Extracted(
        module=part.module,
        kind=part.kind,
        shape=part.shape,
        rank=found.rank,
        norm=math.sqrt(found.square),
        error=math.sqrt(missed / found.square) if found.square else 0.0,
        kept=found.kept,
        largest=found.largest,
        method=found.method,
    )
    return facts, a, b


def _take(part: Factors | Whole, result: _Result, writer: AdapterWriter, found: _Found) -> None:
    """Write what differs, and note everything."""
    if result is None or result is False:
        found.equal.append(part.module if isinstance(part, Factors) else part.name)
    elif isinstance(part, Whole):
        found.whole.append(part)
        for tensor in part.tensors:
            writer.add(tensor.name, tensor.dtype, tensor.tuned.shape, read_stored(tensor.tuned, tensor.dtype.name))
    else:
        assert isinstance(result, tuple)
        facts, *factors = result
        if not facts.rank:
            found.left_out[part.module] = f"--sv-epsilon: its largest singular value is {facts.largest:.3g}"
            return
        found.matrices.append(facts)
        for name, factor in zip(part.names, factors, strict=True):
            writer.add(name, part.dtype, factor.shape, (factor,))


def _finish(plan: ExtractionPlan, folder: Path, writer: AdapterWriter, found: _Found, began: float) -> Extraction:
    if not found.matrices:
        others = ", ".join(part.name for part in found.whole[:3])
        raise RecipeError(
            f'no matrix of "{plan.tuned.ref}" differs from "{plan.base.ref}"'
            + (f", only {others}; PEFT loads no adapter without factors" if others else "; there is nothing to extract")
        )
    targets = {each.module for each in found.matrices}
    for part in found.whole:
        for tensor in part.tensors if not part.modules else ():
            if tensor.name.removesuffix(".bias") in targets:
                writer.rename(tensor.name, _beside_factors(tensor.name))
    rank = max(each.rank for each in found.matrices)
    _remove_adapter(folder)
    report = Extraction(
        folder=folder,
        matrices=tuple(found.matrices),
        whole={part.name: part.why for part in found.whole},
        equal=tuple(found.equal),
        left_out=found.left_out,
        extras=copy_tokenizer(plan, folder),
        rank=rank,
        size=0,
        seconds=0.0,
        warnings=plan.warnings,
    )
    write_text(folder / _CARD, make_card(plan, folder.resolve().name, rank=rank, error=report.error))
    size = writer.finish()
    write_json(folder / CONFIG, make_config(plan, found.matrices, found.whole))
    sync_folder(folder)
    return report.finished(size, time.perf_counter() - began)
