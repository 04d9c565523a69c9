"""pymerge bench ...: how fast this machine runs what a merge is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pymerge.backends import DEVICE_BACKENDS, resolve_backend
from pymerge.cli import options
from pymerge.cli.console import Format, note, print_json
from pymerge.cli.quantities import parse_memory

__all__ = ["bench"]

bench = typer.Typer(
    name="bench",
    help="Measure speed on this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


Record = dict[str, Any]

history = Annotated[
    Path | None, typer.Option("--history", metavar="FILE", help="Append the records to a file of JSON lines.")
]


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(word) for word in _split(text)]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers", param_hint=option) from None


@bench.command()
def kernels(
    kernel: Annotated[str | None, typer.Option("--kernel", metavar="NAMES", help="Kernels. [default: all]")] = None,
    dtype: Annotated[str, typer.Option("--dtype", metavar="NAMES", help="Dtypes of the inputs.")] = "bf16,f16,f32",
    models: Annotated[str, typer.Option("--models", metavar="NUMBERS", help="How many models.")] = "2,3",
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="cpu; cuda or triton: their kernels on the GPU.")
    ] = "cpu",
    isa: Annotated[
        str | None, typer.Option("--isa", metavar="NAMES", help="Instruction-set levels. [default: all there are]")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="NUMBERS", help="Elements of an input. [default: four caches]")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAMES", help="numpy, torch, torch.compile or none. [default: those here]"),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed passes of each.")] = 5,
    history: history = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="DIR", help="Draw shares, a roofline and sizes, as SVG.")
    ] = None,
    answer: options.answer = Format.HUMAN,
) -> None:
    """Time kernels against copying and reading memory: the compiled ones on one thread, or a GPU's."""
    from pymerge.bench.kernels import KERNELS, bench_kernels, show

    if pictures is not None:
        from pymerge.bench.kernel_pictures import draw_all, require_matplotlib

        require_matplotlib()  # before minutes of measuring
    chosen = KERNELS if kernel is None else _split(kernel)
    sizes = [] if size is None else _numbers(size, "--size")
    libraries = None if against is None else [name for name in _split(against) if name != "none"]
    what = chosen, _split(dtype), _numbers(models, "--models")
    kept: list[Record] = []
    try:
        if backend == "cpu":
            levels = None if isa is None else _split(isa)
            found = bench_kernels(*what, levels, sizes, rounds, history, libraries)
        elif isa is not None:
            raise typer.BadParameter("levels are the CPU's; leave it out", param_hint="--isa")
        elif backend not in DEVICE_BACKENDS:
            raise typer.BadParameter(f"it is cpu or {' or '.join(DEVICE_BACKENDS)}", param_hint="--backend")
        else:
            resolve_backend(backend)
            from pymerge.bench.device import bench_device

            found = bench_device(backend, *what, sizes, rounds, history, libraries)
        _answer(_keep(found, kept), functools.partial(show, sizes=max(1, len(sizes))), answer)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if pictures is not None:
        for path in draw_all(kept, pictures):
            note(str(path))


def _keep(found: Iterator[Record], kept: list[Record]) -> Iterator[Record]:
    for record in found:
        kept.append(record)
        yield record


@bench.command()
def io(
    folder: Annotated[Path, typer.Argument(help="Whose disk; a file is written there, and removed.", metavar="DIR")],
    size: Annotated[
        int, typer.Option("--size", parser=options.explained(parse_memory), metavar="SIZE", help="Bytes of the file.")
    ] = "512MiB",  # type: ignore[assignment]  # Typer parses it
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed passes of each means.")] = 5,
    history: history = None,
    answer: options.answer = Format.HUMAN,
) -> None:
    """Time reading and writing a file: buffered, past the page cache, and mapped."""
    from pymerge.bench.io import bench_io, show

    try:
        _answer(bench_io(folder, size, rounds, history), show, answer)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@bench.command()
def merge(
    recipe: options.recipe,
    merge_options: Annotated[
        list[str] | None, typer.Argument(help="Options of merge, after --.", metavar="[-- OPTIONS]")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Whose disk outputs go to; they are removed.")
    ] = Path(),
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed merges; one more comes first.")] = 5,
    cold: Annotated[bool, typer.Option("--cold", help="Drop the inputs from the page cache before each.")] = False,
    history: history = None,
    answer: options.answer = Format.HUMAN,
) -> None:
    """Merge RECIPE several times and say where the time goes."""
    from pymerge.bench.process import CommandFailedError
    from pymerge.bench.recipe import bench_recipe, show

    try:
        record = bench_recipe(Path(recipe), out, merge_options or (), rounds, cold, history)
    except (ValueError, CommandFailedError) as error:
        raise typer.BadParameter(str(error)) from error
    if answer is Format.HUMAN:
        show(record, print)
    elif answer is Format.JSON:
        print_json(record)


@bench.command()
def compare(
    file: Annotated[Path, typer.Argument(help="A history, as --history makes it.", metavar="FILE")],
    before: Annotated[
        str, typer.Option("--before", metavar="RUN", help="A run: 1 the oldest, -1 the latest, or its time.")
    ] = "-2",
    after: Annotated[str, typer.Option("--after", metavar="RUN", help="The run to compare with it.")] = "-1",
    answer: options.answer = Format.HUMAN,
) -> None:
    """Compare two runs of a history, and say what is faster or slower beyond their noise."""
    from pymerge.bench.compare import compare_runs, show

    try:
        found = compare_runs(file, before, after)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if answer is Format.HUMAN:
        show(found, print)
    elif answer is Format.JSON:
        print_json(found)


def _answer(
    found: Iterator[Record], show: Callable[[Iterator[Record], Callable[[str], None]], None], how: Format
) -> None:
    if how is Format.HUMAN:
        show(found, lambda line: print(line, flush=True))
        return
    records = list(found)
    if how is Format.JSON:
        print_json(records)
