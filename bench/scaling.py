"""How whole merges grow: with the model, with threads, and before the first byte is written.

    python -m bench.scaling [FOLDER] [--parts size,threads,plan,first] [--sizes 0.3B,1.1B,3B]
                            [--methods linear,ties] [--rounds 3] [--out results.jsonl]

size: time of the merge proper per byte of input and output, over the first size's. threads: speed of 2
threads over that of 1, middle size. plan: `pymerge plan` of two 70B models, 80 files each, headers
only. first: from the start of the process to its first written byte, first size. Rounds alternate
within each part; inputs are read before each run, so that they are warm where they fit in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import records
from .checkpoints import SIZES, Shape, shape_of, write_models
from .floor import read_all
from .merge import fill_template, pymerge_command
from .process import CommandFailedError, Usage, run
from .recipes import choose, make_recipe, models_needed
from .spread import Spread
from .table import Column, show_header, show_row

__all__ = ["PARTS", "Options", "main"]

Record = dict[str, Any]

_METHODS = "passthrough,linear,slerp,task_arithmetic,ties,dare_ties"
#: Targets: how far times per byte may be apart, the least gain from a second thread where computing is the
#: limit, seconds of planning and to the first byte.
_APART, _GAIN, _PLAN, _FIRST = 0.1, 1.8, 1.0, 0.5
#: Files of a stand-in model: as many as a 70B model on a hub has at most.
_SHARDS = 80


@dataclass(frozen=True, slots=True)
class Options:
    """What a part may need to know; `plan_shape` is that of the models which are only planned."""

    folder: Path
    sizes: Sequence[str]
    methods: Sequence[str]
    rounds: int
    threads: int
    dtype: str = "bf16"
    plan_shape: Shape = SIZES["70B"]


def _models(options: Options, size: str) -> list[Path]:
    shape = shape_of(size)
    folder = options.folder / f"{size}-{shape.layers}-{shape.vocab}-{options.dtype}"
    return write_models(folder, shape, models_needed(options.methods), options.dtype)


@dataclass(frozen=True, slots=True)
class _Job:
    """A merge to run: its recipe, the files that it reads, its threads."""

    recipe: Path
    files: Sequence[Path]
    threads: int

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs, once, and of the output."""
        return sum(file.stat().st_size for file in [*self.files, self.files[0]])


def _job(options: Options, size: str, method: str, threads: int) -> _Job:
    content, used = make_recipe(method, _models(options, size), shape_of(size).layers, options.dtype)
    path = options.folder / f"{size}-{method}.yml"
    path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    return _Job(path, [model / "model.safetensors" for model in used], threads)


def _alternate(options: Options, jobs: Mapping[Any, _Job]) -> dict[Any, list[Usage]]:
    """Each job once a round; the outputs are removed."""
    out = options.folder / "out"
    usages: dict[Any, list[Usage]] = {key: [] for key in jobs}
    for _ in range(options.rounds):
        for key, job in jobs.items():
            shutil.rmtree(out, ignore_errors=True)
            read_all(job.files)
            usages[key].append(run(fill_template(pymerge_command(job.threads), job.recipe, out)))
    shutil.rmtree(out, ignore_errors=True)
    return usages


def _report(usage: Usage) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(usage.stdout)["execution"]
    return report


def measure_sizes(options: Options) -> Iterator[Record]:
    """Nanoseconds per byte of the merge proper for each size; ratio to the first size's."""
    for method in options.methods:
        jobs = {size: _job(options, size, method, options.threads) for size in options.sizes}
        usages = _alternate(options, jobs)
        first = None
        for size in options.sizes:
            moved = jobs[size].nbytes
            spread = Spread.of([_report(usage)["seconds"] * 1e9 / moved for usage in usages[size]])
            whole = Spread.of([usage.wall * 1e9 / moved for usage in usages[size]])
            first = first or spread
            yield {
                "part": "size",
                "what": f"{method} {size}",
                "value": spread.to_json(),
                "unit": "ns/byte",
                "whole_process": whole.to_json(),
                "bytes": moved,
                "ratio": spread.median / first.median,
                "target": f"within {_APART:.0%}",
                "met": abs(spread.median / first.median - 1) <= _APART,
            }


def measure_threads(options: Options) -> Iterator[Record]:
    """Speed of the merge proper with 2 threads over that with 1; the middle one of the sizes."""
    size = options.sizes[len(options.sizes) // 2]
    for method in options.methods:
        usages = _alternate(options, {threads: _job(options, size, method, threads) for threads in (1, 2)})
        spreads = {t: Spread.of([_report(usage)["seconds"] for usage in found]) for t, found in usages.items()}
        gain = spreads[1].median / spreads[2].median
        yield {
            "part": "threads",
            "what": f"{method} {size}",
            "value": spreads[2].to_json(),
            "unit": "s",
            "one_thread": spreads[1].to_json(),
            "ratio": gain,
            "target": f">= {_GAIN:g}",
            "met": gain >= _GAIN,
        }


def measure_planning(options: Options) -> Iterator[Record]:
    """Wall seconds of `pymerge plan` for a pair of models that are headers over holes."""
    shape = options.plan_shape
    folder = options.folder / f"plan-{shape.layers}-{shape.hidden}"
    models = write_models(folder, shape, 2, options.dtype, shards=_SHARDS, stand_in=True)
    content, _ = make_recipe("slerp", models, shape.layers, options.dtype)
    recipe = folder / "slerp.yml"
    recipe.write_text(json.dumps(content, indent=1))
    command = [sys.executable, "-m", "pymerge", "plan", str(recipe), "--format", "json"]
    usages = [run(command) for _ in range(options.rounds)]
    planned = json.loads(usages[0].stdout)
    spread = Spread.of([usage.wall for usage in usages])
    yield {
        "part": "plan",
        "what": f"2 models, {len(shape.tensors())} tensors in {_SHARDS} files each",
        "value": spread.to_json(),
        "unit": "s",
        "bytes": planned["read"],
        "ratio": spread.median,
        "target": f"<= {_PLAN:g} s",
        "met": spread.median <= _PLAN,
    }


def measure_first_byte(options: Options) -> Iterator[Record]:
    """Seconds from the start of a process to the return of its first write into the output."""
    size = options.sizes[0]
    jobs = {method: _job(options, size, method, options.threads) for method in options.methods}
    for method, usages in _alternate(options, jobs).items():
        spread = Spread.of([usage.wall if usage.first_write is None else usage.first_write for usage in usages])
        yield {
            "part": "first",
            "what": f"{method} {size}",
            "value": spread.to_json(),
            "unit": "s",
            "ratio": spread.median,
            "target": f"<= {_FIRST:g} s",
            "met": spread.median <= _FIRST,
        }


PARTS: dict[str, Callable[[Options], Iterator[Record]]] = {
    "size": measure_sizes,
    "threads": measure_threads,
    "plan": measure_planning,
    "first": measure_first_byte,
}

COLUMNS = (
    Column("part", -8, lambda record: record["part"]),
    Column("what", -44, lambda record: record["what"]),
    Column("median (best..worst)", 24, lambda record: Spread(**record["value"]).show(3)),
    Column("unit", -8, lambda record: record["unit"]),
    Column("ratio", 6, lambda record: f"{record['ratio']:.2f}"),
    Column("target", -20, lambda record: record["target"]),
    Column("", -6, lambda record: "met" if record["met"] else "MISSED"),
)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".cache/bench"), help="for checkpoints, kept")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--sizes", default="0.3B,1.1B,3B")
    parser.add_argument("--methods", default=_METHODS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="append the records as JSON lines")
    given = parser.parse_args(arguments)
    parts, sizes = given.parts.split(","), given.sizes.split(",")
    for names, known in ((parts, PARTS), (sizes, SIZES)):
        for name in names:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    try:
        methods = choose(given.methods)
    except ValueError as error:
        parser.error(str(error))
    options = Options(given.folder, sizes, methods, given.rounds, given.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    facts = {"bench": "scaling", "time": records.stamp(), "machine": records.machine(), "threads": given.threads}
    print(show_header(COLUMNS))
    for part in parts:
        try:
            for record in PARTS[part](options):
                print(show_row(COLUMNS, record), flush=True)
                if given.out:
                    records.append(given.out, [facts | record])
        except CommandFailedError as error:
            raise SystemExit(f"{part}: {error}") from error


if __name__ == "__main__":
    main()
