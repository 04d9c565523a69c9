"""Whole merges against the floor: fresh processes, alternating with the floor, in one run.

    python -m bench.merge [FOLDER] [--size 1.1B] [--methods slerp,ties] [--rounds 5] [--threads 2] [--cold]
                          [--peer 'NAME=COMMAND {recipe} {out}'] [--out results.jsonl] [--picture results.svg]

Each round reads every input byte once, writes the output's bytes by each plain means, and runs every
command. The floor is the best read plus the best write of all rounds. Ratios are wall time over that:
the median, with best and worst. Inputs are warm, having been read once from the disk; `--cold` drops
them from the page cache before each timed thing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import records
from .checkpoints import Shape, add_shape_options, shape_of, write_models
from .floor import Floor, drop_caches, warm_caches
from .process import CommandFailedError, Usage, run
from .recipes import METHODS, choose, make_recipe, models_needed
from .spread import Spread
from .table import MERGE_COLUMNS, show_header, show_row

__all__ = ["OURS", "Setting", "describe", "fill_template", "main", "measure", "pymerge_command"]

OURS = "pymerge"


def pymerge_command(threads: int) -> str:
    """The template of this version's command; it answers with its report."""
    return f"{shlex.quote(sys.executable)} -m pymerge merge {{recipe}} {{out}} --threads {threads} --format json"


def fill_template(template: str, recipe: Path, out: Path) -> list[str]:
    """A command line with {recipe} and {out} put in, as words; other braces stay."""
    return [word.replace("{recipe}", str(recipe)).replace("{out}", str(out)) for word in shlex.split(template)]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all merges of a run.

    Attributes:
        folder: for checkpoints (kept), recipes and outputs (removed).
        commands: name to template; the first is pymerge's, the others are peers, which may fail.
        facts: goes into every record.
    """

    folder: Path
    shape: Shape
    dtype: str
    models: Sequence[Path]
    commands: Mapping[str, str]
    rounds: int
    cold: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure(setting: Setting, name: str) -> Iterator[dict[str, Any]]:
    """All rounds of one merge; a record per command.

    Raises:
        CommandFailedError: pymerge's command failed. A peer's failure is told and leaves no record.
    """
    content, used = make_recipe(name, list(setting.models), setting.shape.layers, setting.dtype)
    recipe, out = setting.folder / f"{name}.yml", setting.folder / "out"
    recipe.write_text(json.dumps(content, indent=1))  # JSON is YAML
    files = [model / "model.safetensors" for model in used]
    floor = Floor(files, files[0], setting.folder, cold=setting.cold)
    if not setting.cold:
        warm_caches(files)
    usages: dict[str, list[Usage]] = {command: [] for command in setting.commands}
    try:
        for _ in range(setting.rounds):
            floor.measure()
            for command in list(usages):
                shutil.rmtree(out, ignore_errors=True)
                if setting.cold:
                    drop_caches(files)
                try:
                    usages[command].append(run(fill_template(setting.commands[command], recipe, out)))
                except CommandFailedError as error:
                    if command == OURS:
                        raise
                    del usages[command]
                    print(f"{name}: {command} is left out: {error}", file=sys.stderr)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    facts = {
        "method": name,
        "cold": setting.cold,
        "rounds": setting.rounds,
        "input_bytes": sum(file.stat().st_size for file in files),
        "output_bytes": files[0].stat().st_size,
        **setting.facts,
    }
    ours = statistics.median(usage.wall for usage in usages[OURS])
    for command, results in usages.items():
        yield {"bench": "merge", "command": command, **facts, **describe(name, results, floor, ours)}


def describe(name: str, usages: Sequence[Usage], floor: Floor, ours: float) -> dict[str, Any]:
    """What the rounds of one command come to; seconds and bytes.

    Args:
        name: of the merge, whose target it is.
        usages: one per round.
        floor: of the same rounds.
        ours: pymerge's median wall time, in seconds.
    """
    wall = Spread.of([usage.wall for usage in usages])
    record = {
        "wall": wall.to_json(),
        "cpu": statistics.median(usage.cpu for usage in usages),
        "anonymous": max(usage.anonymous for usage in usages),
        "file_backed": max(usage.file_backed for usage in usages),
        "disk_read": max(usage.disk_read for usage in usages),
        "disk_written": max(usage.disk_written for usage in usages),
        "floor": floor.to_json(),
        "ratio": wall.over(floor.best).to_json(),
        "synced_ratio": wall.over(floor.synced).to_json(),
        "read_ratio": wall.over(statistics.median(floor.reads)).to_json(),
        "times_ours": wall.median / ours,
        "target": METHODS[name].target,
    }
    return record | _describe_report(usages)


def _describe_report(usages: Sequence[Usage]) -> dict[str, Any]:
    """What pymerge's own reports add; nothing for commands that print none."""
    try:
        answers = [json.loads(usage.stdout) for usage in usages]
        reports = [answer["execution"] for answer in answers]
        stages = {name: statistics.median(each["stages"][name] for each in answers) for name in answers[0]["stages"]}
    except (ValueError, KeyError, TypeError):
        return {}
    rest = statistics.median(
        usage.wall - sum(answer["stages"].values()) for usage, answer in zip(usages, answers, strict=True)
    )
    first = [usage.first_write for usage in usages if usage.first_write is not None]
    return {
        "read": reports[0]["read"],
        "written": reports[0]["written"],
        "limit": statistics.mode(report["limit"] for report in reports),
        # Starting and ending Python is what no stage accounts for.
        "stages": {"start": rest, **stages},
        "workers": {
            name: statistics.median(report[f"{name}_seconds"] for report in reports) for name in ("measure", "fill")
        },
        "first_write": statistics.median(first) if first else None,
    }


def parse_peers(peers: Sequence[str]) -> dict[str, str]:
    """Name and template of each 'NAME=COMMAND'.

    Raises:
        ValueError: one has no name, or no place for {recipe} and {out}.
    """
    parsed = {}
    for peer in peers:
        name, equals, template = peer.partition("=")
        if not (name and equals and "{recipe}" in template and "{out}" in template) or name == OURS:
            raise ValueError(f"--peer {peer!r} must be NAME=COMMAND with {{recipe}} and {{out}} in the command")
        parsed[name] = template
    return parsed


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(".cache/bench"), help="for checkpoints (kept) and outputs"
    )
    add_shape_options(parser)
    parser.add_argument("--methods", help="names, with commas between them; default: all there are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cold", action="store_true", help="drop the inputs from the page cache before each run")
    parser.add_argument("--peer", action="append", default=[], help="'NAME=COMMAND {recipe} {out}', may be repeated")
    parser.add_argument("--out", type=Path, help="append the records as JSON lines")
    parser.add_argument("--picture", type=Path, help="draw the ratios, as SVG or PNG")
    options = parser.parse_args(arguments)
    try:
        names, peers = choose(options.methods), parse_peers(options.peer)
    except ValueError as error:
        parser.error(str(error))
    if options.picture:
        from .picture import draw, require_matplotlib

        require_matplotlib()  # before an hour of measuring
    shape = shape_of(options.size, options.layers, options.vocab)
    folder = options.folder / f"{options.size}-{shape.layers}-{shape.vocab}-{options.dtype}"
    facts = {
        "size": options.size,
        "layers": shape.layers,
        "dtype": options.dtype,
        "threads": options.threads,
        "time": records.stamp(),
        "machine": records.machine(),
    }
    setting = Setting(
        folder=folder,
        shape=shape,
        dtype=options.dtype,
        models=write_models(folder, shape, models_needed(names), options.dtype),
        commands={OURS: pymerge_command(options.threads)} | peers,
        rounds=options.rounds,
        cold=options.cold,
        facts=facts,
    )
    print(show_header(MERGE_COLUMNS))
    found = []
    for name in names:
        try:
            for record in measure(setting, name):
                found.append(record)
                print(show_row(MERGE_COLUMNS, record), flush=True)
                if options.out:
                    records.append(options.out, [record])
        except CommandFailedError as error:
            raise SystemExit(f"{name}: {error}") from error
    if options.picture:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
