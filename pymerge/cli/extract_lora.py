"""pymerge extract-lora --model FT --base-model B --out-path OUT."""

from __future__ import annotations

import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, note, print_facts, print_json, print_table
from pymerge.cli.quantities import format_bytes, format_count, parse_memory

if TYPE_CHECKING:
    from pymerge.api_extract import Extraction, ExtractionPlan

__all__ = ["extract_lora"]

_NEEDED: Any = ...  # Typer's way to say that an option must be given


class Method(str, Enum):
    """How matrices are decomposed, as `--method` spells it."""

    AUTO = "auto"
    RANDOMIZED = "randomized"
    EXACT = "exact"


def extract_lora(
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="The fine-tuned model.")] = _NEEDED,
    base_model: Annotated[
        str, typer.Option("--base-model", metavar="MODEL", help="The model that it comes from.")
    ] = _NEEDED,
    out: Annotated[
        Path, typer.Option("--out-path", "--out", "-o", metavar="OUT", help="The adapter's folder.")
    ] = _NEEDED,
    max_rank: Annotated[int, typer.Option("--max-rank", help="The largest rank of a matrix's factors.")] = 128,
    energy: Annotated[
        float | None,
        typer.Option("--energy", metavar="SHARE", help="Least rank that keeps this share of the difference's squares."),
    ] = None,
    sv_epsilon: Annotated[float, typer.Option("--sv-epsilon", help="Drop singular values up to this.")] = 0.0,
    distribute_scale: Annotated[
        bool,
        typer.Option(
            "--distribute-scale/--no-distribute-scale", help="Share singular values out between both factors."
        ),
    ] = True,
    embed_lora: Annotated[
        bool, typer.Option("--embed-lora/--no-embed-lora", help="Factors for embeddings and output head too.")
    ] = False,
    save_module: Annotated[
        list[str] | None, typer.Option("--save-module", metavar="NAME", help="Store this module whole.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include-regex", "-i", metavar="REGEX", help="Modules to look at.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude-regex", "-e", metavar="REGEX", help="Modules to leave out.")
    ] = None,
    skip_undecomposable: Annotated[
        bool,
        typer.Option(
            "--skip-undecomposable/--no-skip-undecomposable", help="Leave out what is no matrix; do not store it whole."
        ),
    ] = False,
    method: Annotated[
        Method, typer.Option("--method", help="Find singular values by a sketch, or all of them.")
    ] = Method.AUTO,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="Type of the factors. [default: the model's]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "--random-seed", help="Seed of the sketch.")] = 0,
    threads: options.threads = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            parser=options.explained(parse_memory),
            metavar="SIZE",
            help="Memory that matrices may take, such as 2GiB.",
        ),
    ] = None,
    cache: options.cache = None,
    cuda: options.cuda = False,
    dry_run: options.dry_run = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the adapter that OUT holds.")] = False,
    tensors: options.tensors = False,
    answer: options.answer = Format.HUMAN,
    quiet: options.quiet = False,
    verbose: options.verbose = False,
) -> None:
    """Extract what a fine-tuned model adds to its base as a LoRA adapter, into the folder OUT."""
    from pymerge import api_extract

    answer = Format.QUIET if quiet else answer
    if cuda:
        note("--cuda has no effect: matrices are decomposed by the CPU")
    settings: dict[str, Any] = {
        "max_rank": max_rank,
        "energy": energy,
        "sv_epsilon": sv_epsilon,
        "distribute_scale": distribute_scale,
        "embed_lora": embed_lora,
        "save_modules": tuple(save_module or ()),
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "skip_undecomposable": skip_undecomposable,
        "method": method.value,
        "dtype": dtype,
        "seed": seed,
    }
    resources: dict[str, Any] = {"threads": threads, "memory": memory, "cache": cache}
    if dry_run:
        _show_plan(api_extract.plan_lora(model, base_model, **settings, **resources), out, answer, tensors)
        return
    report = api_extract.extract_lora(
        model,
        base_model,
        out,
        **settings,
        **resources,
        overwrite=overwrite,
        on_step=note if answer is Format.HUMAN and sys.stderr.isatty() else None,
    )
    _show_report(report, answer, tensors)


def _show_plan(plan: ExtractionPlan, out: Path, answer: Format, tensors: bool) -> None:
    facts = plan.describe()
    if answer is Format.JSON:
        print_json(facts)
        return
    for warning in plan.warnings:
        note(f"warning: {warning}")
    if answer is Format.QUIET:
        return
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    matrices, whole = facts["matrices"], facts["whole"]
    sketched = sum(each["method"] == "randomized" for each in matrices)
    print_facts(
        {
            "model": facts["model"],
            "base": facts["base_model"],
            "matrices": f"{len(matrices):,}, rank up to {max((each['max_rank'] for each in matrices), default=0)}; "
            f"{sketched:,} by a sketch, {len(matrices) - sketched:,} exactly",
            "stored whole": f"{len(whole):,} if they differ, {format_bytes(sum(each['size'] for each in whole))}",
            **({"left out": f"{len(facts['left_out']):,}"} if facts["left_out"] else {}),
            **({"to fetch": f"{format_bytes(facts['fetched'])} from the hub"} if facts["fetched"] else {}),
            "writes": f"up to {format_bytes(facts['size'])}; what is equal in both models is not written",
            "memory": f"up to {format_bytes(facts['memory'])}, {facts['threads']} matrices at a time",
            "disk": f"{format_bytes(shutil.disk_usage(place).free)} free",
        }
    )
    if tensors:
        print()
        rows = [
            (each["module"], each["kind"], each["shape"], f"rank {each['max_rank']}", each["method"])
            for each in matrices
        ]
        rows += [(each["name"], "whole", "", "", each["why"]) for each in whole]
        rows += [(name, "left out", "", "", why) for name, why in facts["left_out"].items()]
        print_table(("module", "kind", "shape", "rank", "how"), rows)


def _show_report(report: Extraction, answer: Format, tensors: bool) -> None:
    for warning in report.warnings if answer is not Format.QUIET else ():
        note(f"warning: {warning}")
    if answer is Format.JSON:
        print_json(report.to_json())
    if answer is not Format.HUMAN:
        return
    for name, why in report.left_out.items():
        note(f"left out: {name} ({why})")
    if tensors:
        rows: list[tuple[object, ...]] = [
            (each.module, each.kind, list(each.shape), each.rank, f"{each.norm:.4g}", f"{each.error:.2e}", each.method)
            for each in report.matrices
        ]
        rows += [(name, "whole", "", "", "", "", why) for name, why in report.whole.items()]
        rows += [(name, "equal", "", "", "", "", "") for name in report.equal]
        print_table(("module", "kind", "shape", "rank", "norm", "error", "how"), rows)
    note(
        f"{format_count(len(report.matrices), 'matrix').replace('matrixs', 'matrices')} of rank up to {report.rank}, "
        f"relative error {report.error:.2e} in all; {len(report.whole):,} stored whole, {len(report.equal):,} equal in "
        f"both models; {format_bytes(report.size)} in {report.seconds:.1f} s"
    )
    print(report.folder)
