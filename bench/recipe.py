"""One recipe merged again and again by fresh processes: where the time of a real merge goes.

`pymerge bench merge` is its command line. The first merge warms the page cache and tells which files are read;
it is not counted. How far a merge is from what the disk allows is what bench/merge.py measures.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import records
from .floor import drop_caches
from .process import Usage, run
from .spread import Spread
from .table import Column, show_header, show_row

__all__ = ["bench_recipe", "show"]

Record = dict[str, Any]

_MANIFEST = "pymerge_manifest.json"

COLUMNS = (
    Column("stage", -8, lambda row: row["stage"]),
    Column("ms (best..worst)", 26, lambda row: Spread(**row["ms"]).show(0)),
    Column("of wall", 7, lambda row: f"{row['share']:.1%}"),
)


def bench_recipe(
    recipe: Path,
    place: Path,
    options: Sequence[str] = (),
    rounds: int = 5,
    cold: bool = False,
    history: Path | None = None,
) -> Record:
    """Merge a recipe `rounds` times, and once before.

    Args:
        place: a folder on whose disk outputs are written; they are removed.
        options: of `pymerge merge`.
        cold: drop the inputs from the page cache before each merge.
        history: a file of JSON lines that gets the record.

    Raises:
        ValueError: the place is no folder.
        CommandFailedError: the merge failed; the message has its own.
    """
    if not place.is_dir():
        raise ValueError(f"{place} is no folder")
    usages = []
    with tempfile.TemporaryDirectory(prefix=".pymerge-bench-", dir=place) as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "pymerge", "merge", str(recipe), str(out), *options, "--format", "json"]
        run(command)
        inputs = _list_inputs(out)
        for _ in range(rounds):
            shutil.rmtree(out)
            if cold:
                drop_caches(inputs)
            usages.append(run(command))
    record = {
        "bench": "recipe",
        "time": records.stamp(),
        "machine": records.machine(),
        "recipe": recipe.name,
        "options": list(options),
        "cold": cold,
        "rounds": rounds,
        **_describe(usages),
    }
    if history is not None:
        records.append(history, [record])
    return record


def _list_inputs(out: Path) -> list[Path]:
    """The files that a merge has read; models are where the recipe says, before a revision if that is given."""
    found = []
    for model in json.loads((out / _MANIFEST).read_text(encoding="utf-8"))["inputs"]:
        named = Path(model["model"]).expanduser()
        folder = named if named.is_dir() else Path(model["model"].partition("@")[0]).expanduser()
        found += [folder / file["name"] for file in model["files"]]
    return found


def _describe(usages: Sequence[Usage]) -> Record:
    """What the rounds come to; bytes, and milliseconds."""
    answers = [json.loads(usage.stdout) for usage in usages]
    reports = [answer["execution"] for answer in answers]
    stages = {name: [answer["stages"][name] for answer in answers] for name in answers[0]["stages"]}
    # Starting and ending Python is what no stage accounts for.
    rest = [usage.wall - sum(answer["stages"].values()) for usage, answer in zip(usages, answers, strict=True)]

    def spread(seconds: Sequence[float]) -> dict[str, float]:
        return Spread.of([value * 1e3 for value in seconds]).to_json()

    return {
        "method": answers[0]["method"],
        "tensors": answers[0]["tensors"],
        "ms": spread([usage.wall for usage in usages]),
        "stages": {name: spread(seconds) for name, seconds in {"start": rest, **stages}.items()},
        "workers": {name: spread([report[f"{name}_seconds"] for report in reports]) for name in ("measure", "fill")},
        "cpu_ms": spread([usage.cpu for usage in usages]),
        "limit": statistics.mode(report["limit"] for report in reports),
        **{name: reports[0][name] for name in ("read", "written", "shared")},
        "disk_read": max(usage.disk_read for usage in usages),
        "disk_written": max(usage.disk_written for usage in usages),
        "anonymous": max(usage.anonymous for usage in usages),
        "file_backed": max(usage.file_backed for usage in usages),
    }


def show(record: Record, out: Callable[[str], None]) -> None:
    """Print a record: where wall time goes, then what the merge stage's worker threads did."""
    wall, merging = record["ms"]["median"], record["stages"]["merge"]["median"] / 1e3
    machine = record["machine"]
    out(
        f"{record['recipe']}: {record['method']}, {record['tensors']:,} tensors, {'cold' if record['cold'] else 'warm'}"
    )
    out(f"{machine['processor']}, {machine['processors']} processors, pymerge {machine['pymerge']}")
    out(show_header(COLUMNS))
    for stage, ms in {**record["stages"], "wall": record["ms"]}.items():
        out(show_row(COLUMNS, {"stage": stage, "ms": ms, "share": ms["median"] / wall}))
    workers = ", ".join(f"{name} {Spread(**ms).show(0)} ms" for name, ms in record["workers"].items())
    out(f"worker threads, in merge: {workers}; bound by {record['limit']}")
    out(
        f"read {record['read'] / 1e9 / merging:.2f} GB/s, written {record['written'] / 1e9 / merging:.2f} GB/s; "
        f"memory {record['anonymous'] >> 20} MiB, mapped files {record['file_backed'] >> 20} MiB"
    )
