"""pymerge plan RECIPE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pymerge.backends.choice import say_seconds
from pymerge.cli import options
from pymerge.cli.console import Format, note, print_facts, print_json, print_table
from pymerge.cli.quantities import format_bytes, format_count

if TYPE_CHECKING:
    from pymerge.schedule import Schedule


def plan(
    recipe: options.recipe,
    out: Annotated[Path, typer.Option("--out", help="Where the merge would go; its disk is looked at.")] = Path(),
    threads: options.threads = None,
    memory: options.memory = None,
    vram: options.vram = None,
    seed: options.seed = 0,
    shard_size: options.shard_size = "5B",  # type: ignore[assignment]  # Typer parses it
    lenient: options.lenient = False,
    allow_crimes: options.allow_crimes = False,
    reflink: options.reflink = True,
    cache: options.cache = None,
    tensors: options.tensors = False,
    out_format: options.out_format = None,
    gguf_like: options.gguf_like = None,
    answer: options.answer = Format.HUMAN,
    verbose: options.verbose = False,
) -> None:
    """Check RECIPE and say what its merge would read, write and need. No weight is read."""
    schedule = make_schedule(
        recipe, out, threads, memory, seed, shard_size, lenient, allow_crimes, cache, out_format, gguf_like
    )
    show_plan(schedule, out, answer, reflink=reflink, tensors=tensors, vram=vram)


def make_schedule(
    recipe: str,
    out: Path,
    threads: int | None,
    memory: int | None,
    seed: int,
    shard_size: int,
    lenient: bool,
    allow_crimes: bool,
    cache: Path | None,
    out_format: str | None,
    gguf_like: Path | None,
) -> Schedule:
    """What a merge would carry out; no weight is read."""
    from pymerge import api

    planned = api.plan(recipe, lenient=lenient, seed=seed, allow_crimes=allow_crimes, cache=cache)
    return api.lay_out(
        planned,
        out,
        shard_size=shard_size,
        threads=threads,
        memory=memory,
        out_format=out_format,
        gguf_like=gguf_like,
        cache=cache,
    )


def parse_out(text: str) -> Path:
    """An output's path; an empty one would be the folder that the command runs in."""
    if not text:
        raise typer.BadParameter("is empty; name the folder or file to make")
    return Path(text)


def show_plan(
    schedule: Schedule, out: Path, answer: Format, *, reflink: bool, tensors: bool = False, vram: int | None = None
) -> None:
    """Say what a merge into the folder `out` would read, write and need."""
    from pymerge.output.forecast import describe_tasks, forecast

    facts = forecast(schedule, out, reflink=reflink, vram=vram)
    if answer is Format.JSON:
        print_json({**facts, "tensors": describe_tasks(schedule.plan)} if tensors else facts)
        return
    for warning in facts["warnings"]:
        note(f"warning: {warning}")
    if answer is Format.QUIET:
        return
    print_facts(_phrase(facts))
    if tensors:
        print()
        rows = ((task["name"], task["dtype"], task["shape"], _join(task)) for task in describe_tasks(schedule.plan))
        print_table(("tensor", "dtype", "shape", "from"), rows)


def _phrase(facts: dict[str, Any]) -> dict[str, str]:
    shared = f"{format_bytes(facts['shared'])} with the inputs, instead of writing them again"
    room = "" if facts["needed"] <= facts["free"] else "; NOT ENOUGH"
    return {
        "method": facts["method"],
        "models": ", ".join(facts["models"]),
        "layers": str(facts["layers"]),
        "tensors": f"{facts['merged']:,} merged, {facts['copied']:,} copied",
        **({"shares": shared} if facts["shared"] else {}),
        **({"to fetch": f"{format_bytes(facts['fetched'])} from the hub"} if facts["fetched"] else {}),
        "reads": f"{format_bytes(facts['read'])} in {facts['passes']} passes at most",
        "writes": f"{format_bytes(facts['written'])} in {facts['shards']} x {facts['format']}",
        "memory": f"up to {format_bytes(facts['memory'])}, {facts['threads']} threads",
        "time": _phrase_time(facts),
        **({"GPU": _phrase_room(facts)} if facts["room"] is not None else {}),
        "disk": f"{format_bytes(facts['needed'])} needed, {format_bytes(facts['free'])} free{room}",
    }


def _phrase_time(facts: dict[str, Any]) -> str:
    """What each backend is expected to take, and what that does not count."""
    found = ", ".join(f"{say_seconds(seconds)} by {backend}" for backend, seconds in facts["seconds"].items())
    rest = [
        "files as fast as memory",
        *(["without what deriving sources takes"] if facts["partial"] else []),
        *([f"no GPU: {facts['no_device']}"] if facts["no_device"] else []),
    ]
    return f"{found} ({'; '.join(rest)})"


def _phrase_room(facts: dict[str, Any]) -> str:
    room = format_bytes(facts["room"])
    if not facts["no_room"]:
        return f"room for every tensor, {room}"
    return f"{room}, too little for {format_count(facts['no_room'], 'tensor')}, which the processors merge"


def _join(task: dict[str, Any]) -> str:
    sources = ", ".join(
        " ".join([source["model"], *(f"{name}={value}" for name, value in source["parameters"].items())])
        for source in task["sources"]
    )
    values = " ".join(f"{name}={value}" for name, value in task["parameters"].items())
    return f"{values} | {sources}" if values else sources
