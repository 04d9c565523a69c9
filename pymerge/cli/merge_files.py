"""pymerge merge-files METHOD A B ... -o OUT."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from pymerge.cli import options
from pymerge.cli.console import Format
from pymerge.cli.merge import show_report
from pymerge.cli.plan import parse_out, show_plan
from pymerge.cli.progress import show_progress
from pymerge.cli.quantities import parse_settings


class Keys(str, Enum):
    """What to do with tensors that not all files have, as `--keys` spells it."""

    SAME = "same"
    UNION = "union"
    INTERSECTION = "intersection"


def merge_files(
    method: Annotated[str, typer.Argument(help="A merge method, or a recipe of files (.yml).", metavar="METHOD")],
    files: Annotated[
        list[str] | None, typer.Argument(help="The files to merge, without the base.", metavar="[FILE]...")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", parser=parse_out, metavar="OUT", help="The file to make, a safetensors file.")
    ] = ...,  # type: ignore[assignment]  # Typer's way to say that it must be given
    base: Annotated[str | None, typer.Option("--base", metavar="FILE", help="The base model's file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter: one value, or one for each file: density=0.5,0.7."
        ),
    ] = None,
    weight: Annotated[
        str | None, typer.Option("--weight", metavar="VALUES", help="Same as --set weight=VALUES.")
    ] = None,
    keys: Annotated[
        Keys, typer.Option("--keys", help="Tensors that not all files have: an error, merged from those, or left out.")
    ] = Keys.SAME,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="TEXT", help="Merge tensors with this in their names.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="TEXT", help="Leave them as the base has them.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="NAME", help="Type of the result's tensors.")] = None,
    backend: options.backend = options.Backend.AUTO,
    device: options.device = None,
    vram: options.vram = None,
    threads: options.threads = None,
    memory: options.memory = None,
    seed: options.seed = 0,
    dry_run: options.dry_run = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file OUT.")] = False,
    restart: options.restart = False,
    allow_nonfinite: options.allow_nonfinite = False,
    reflink: options.reflink = True,
    answer: options.answer = Format.HUMAN,
    quiet: options.quiet = False,
    verbose: options.verbose = False,
) -> None:
    """Merge single files of tensors, such as diffusion models or adapters, into the file OUT."""
    from pymerge import api_files

    answer = Format.QUIET if quiet else answer
    chosen, devices = options.choose_backend(backend, device, False)
    try:
        parameters = parse_settings([*(settings or ()), *(f"weight={values}" for values in (weight,) if values)])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None
    recipe: dict[str, Any] = {
        "method": method,
        "files": files or (),
        "out": out,
        "base": base,
        "parameters": parameters,
        "keys": keys.value,
        "include": include or (),
        "exclude": exclude or (),
        "dtype": dtype,
        "threads": threads,
        "memory": memory,
        "seed": seed,
    }
    if dry_run:
        from pymerge.api_checks import check_file

        schedule = api_files.schedule_files(**recipe)
        show_plan(schedule, out.parent, answer, reflink=reflink)
        check_file(
            schedule,
            out,
            backend=chosen,
            devices=devices,
            vram=vram,
            overwrite=overwrite,
            restart=restart,
            reflink=reflink,
        )
        return
    with show_progress(visible=answer is Format.HUMAN) as on_progress:
        report = api_files.merge_files(
            **recipe,
            backend=chosen,
            devices=devices,
            vram=vram,
            allow_nonfinite=allow_nonfinite,
            overwrite=overwrite,
            restart=restart,
            reflink=reflink,
            on_progress=on_progress,
        )
    show_report(report, out, answer)
