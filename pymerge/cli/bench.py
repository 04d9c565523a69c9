"""pymerge bench ...: how fast this machine runs what a merge is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, print_json

__all__ = ["bench"]

bench = typer.Typer(
    name="bench",
    help="Measure speed on this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in _split(text)]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers", param_hint="--models") from None


@bench.command()
def kernels(
    kernel: Annotated[str | None, typer.Option("--kernel", metavar="NAMES", help="Kernels. [default: all]")] = None,
    dtype: Annotated[str, typer.Option("--dtype", metavar="NAMES", help="Dtypes of the inputs.")] = "bf16,f16,f32",
    models: Annotated[str, typer.Option("--models", metavar="NUMBERS", help="How many models.")] = "2,3",
    isa: Annotated[
        str | None, typer.Option("--isa", metavar="NAMES", help="Instruction-set levels. [default: all there are]")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Elements of an input. [default: four times the cache]")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed passes of each.")] = 5,
    history: Annotated[
        Path | None, typer.Option("--history", metavar="FILE", help="Append the records to a file of JSON lines.")
    ] = None,
    answer: options.answer = Format.HUMAN,
) -> None:
    """Time the compiled kernels on one thread against copying and reading memory."""
    from pymerge.bench.kernels import KERNELS, bench_kernels, show

    found = bench_kernels(
        kernels=KERNELS if kernel is None else _split(kernel),
        dtypes=_split(dtype),
        models=_numbers(models),
        isa=None if isa is None else _split(isa),
        size=size,
        rounds=rounds,
        history=history,
    )
    try:
        if answer is Format.HUMAN:
            show(found, lambda line: print(line, flush=True))
        else:
            records = list(found)
            if answer is Format.JSON:
                print_json(records)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
