"""pymerge verify OUT, and pymerge verify A B."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import pymerge
from pymerge.cli import options
from pymerge.cli.console import Format, note, print_json, print_table
from pymerge.cli.quantities import format_count, parse_memory

if TYPE_CHECKING:
    from pymerge.verify.compare import Comparison
    from pymerge.verify.values import Verification

#: Exit codes by the status of a verification: that of a mistake elsewhere means that nothing was checked.
_CODES = {"passed": 0, "failed": 1, "incomplete": 6}
#: Lines of a kind that people are shown; JSON has all.
_SHOWN = 20


def verify(
    out: Annotated[str, typer.Argument(help="A folder that a merge made, or a model to compare.", metavar="OUT")],
    other: Annotated[str | None, typer.Argument(help="A model that OUT is compared with.", metavar="[OTHER]")] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=0, help="Tensors to make again from the inputs. [default: 4]")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Make all tensors again.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample.")] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=FOLDER", help="Where a model of the recipe is now; one each."),
    ] = None,
    max_ulp: Annotated[
        int | None,
        typer.Option("--max-ulp", min=0, help="Units in the last place that two models may be apart. [default: 0]"),
    ] = None,
    threads: options.threads = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            parser=options.explained(parse_memory),
            metavar="SIZE",
            help="Memory that making tensors again may take.",
        ),
    ] = None,
    tensors: options.tensors = False,
    answer: options.answer = Format.HUMAN,
    verbose: options.verbose = False,
) -> None:
    """Check what a merge wrote, and make some of its tensors again; or compare two models."""
    again = {"--sample": sample is not None, "--all": every, "--model": bool(model), "--memory": memory is not None}
    if other is not None:
        _refuse(again, "two models are only compared")
        compared = pymerge.compare(out, other, max_ulp=max_ulp or 0, threads=threads)
        if answer is Format.JSON:
            print_json(compared.to_json())
        elif answer is Format.HUMAN:
            _print_comparison(compared, tensors)
        raise typer.Exit(0 if compared.agree else _CODES["failed"])
    _refuse({"--max-ulp": max_ulp is not None}, "it is for comparing two models")
    if every:
        _refuse({"--sample": sample is not None}, "--all is given")
    from pymerge.verify.folder import SAMPLE

    found = pymerge.verify(
        out,
        sample=None if every else SAMPLE if sample is None else sample,
        seed=seed,
        memory=memory,
        models=dict(map(_split, model or ())),
        threads=threads,
        on_step=note if answer is Format.HUMAN and sys.stderr.isatty() else lambda step: None,
    )
    if answer is Format.JSON:
        print_json(found.to_json())
    elif answer is Format.HUMAN:
        _print_verification(found, tensors)
    raise typer.Exit(_CODES[found.status.value])


def _refuse(given: dict[str, bool], why: str) -> None:
    for name in (name for name, is_given in given.items() if is_given):
        raise typer.BadParameter(why, param_hint=name)


def _split(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise typer.BadParameter(f"{text!r} is not NAME=FOLDER", param_hint="--model")
    return name, path


def _print_verification(found: Verification, tensors: bool) -> None:
    print_table(("check", "result", "of"), ((check.name, check.status.value, check.summary) for check in found.checks))
    for check in found.checks:
        _print_some([f"{check.name}: {finding}" for finding in check.wrong])
        _print_some([f"{check.name}: not checked: {finding}" for finding in check.unchecked])
    judged = [(tensor, tensor.accuracy) for tensor in found.recomputed if tensor.accuracy]
    if judged:
        print()
        worst = sorted(judged, key=lambda pair: -pair[1].largest)[: None if tensors else _SHOWN]
        header = ("of float64", "dtype", "units: largest", "rms", "within 1", "rounded once", "decided otherwise")
        rows = (
            (
                tensor.name,
                tensor.dtype,
                f"{far.largest:.2f}",
                f"{far.rms:.2f}",
                f"{far.within:.4%}",
                f"{far.rounded:.4%}",
                f"{far.otherwise:,}",
            )
            for tensor, far in worst
        )
        print_table(header, rows)
    note(f"{found.folder}: {found.status.value}")


def _print_comparison(compared: Comparison, tensors: bool) -> None:
    _print_some([f"{name}: only in {compared.first}" for name in compared.missing])
    _print_some([f"{name}: only in {compared.second}" for name in compared.surplus])
    _print_some([f"{each.name}: {list(each.first)} and {list(each.second)}" for each in compared.misfits])
    differing = compared.differing
    shown = compared.tensors if tensors else differing[:_SHOWN]
    if shown:
        header = ("tensor", "dtype", "equal", "largest ulp", "apart", "relative")
        rows = (
            (
                each.name,
                " ".join(dict.fromkeys(each.dtypes)),
                f"{each.share:.4%}",
                f"{each.max_ulp:,}",
                f"{each.apart:,}",
                f"{each.relative:.2e}",
            )
            for each in shown
        )
        print_table(header, rows)
        if len(shown) < len(differing):
            print(f"and {len(differing) - len(shown):,} more")
    verdict = "agree" if compared.agree else f"{len(differing):,} differ"
    note(f"{format_count(len(compared.tensors), 'tensor')} compared: {verdict}")


def _print_some(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(line)
    if len(lines) > _SHOWN:
        print(f"and {len(lines) - _SHOWN:,} more (--format json has all)")
