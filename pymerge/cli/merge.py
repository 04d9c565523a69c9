"""pymerge merge RECIPE OUT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, note, print_json
from pymerge.cli.plan import make_schedule, parse_out, show_plan
from pymerge.cli.progress import show_progress
from pymerge.cli.quantities import format_bytes, format_count

if TYPE_CHECKING:
    from pymerge.output.report import MergeReport


@options.accept_peer_options
def merge(
    recipe: options.recipe,
    out: Annotated[Path, typer.Argument(parser=parse_out, help="The folder to make, or a .gguf file.", metavar="OUT")],
    backend: options.backend = options.Backend.AUTO,
    device: options.device = None,
    vram: options.vram = None,
    threads: options.threads = None,
    memory: options.memory = None,
    seed: options.seed = 0,
    shard_size: options.shard_size = "5B",  # type: ignore[assignment]  # Typer parses it
    dry_run: options.dry_run = False,
    lenient: options.lenient = False,
    overwrite: options.overwrite = False,
    restart: options.restart = False,
    hash_inputs: options.hash_inputs = False,
    allow_crimes: options.allow_crimes = False,
    allow_nonfinite: options.allow_nonfinite = False,
    reflink: options.reflink = True,
    cache: options.cache = None,
    push: options.push = None,
    private: options.private = False,
    copy_tokenizer: options.copy_tokenizer = True,
    write_model_card: options.write_model_card = True,
    keep_stages: options.keep_stages = False,
    out_format: options.out_format = None,
    gguf_like: options.gguf_like = None,
    answer: options.answer = Format.HUMAN,
    quiet: options.quiet = False,
    verbose: options.verbose = False,
    cuda: options.cuda = False,
    gpu_rich: options.gpu_rich = False,
) -> None:
    """Merge the models that RECIPE names into a new model in OUT."""
    answer = Format.QUIET if quiet else answer
    chosen, devices = options.choose_backend(backend, device, cuda or gpu_rich)
    if dry_run:
        from pymerge.api_checks import check_output

        schedule = make_schedule(
            recipe, out, threads, memory, seed, shard_size, lenient, allow_crimes, cache, out_format, gguf_like
        )
        show_plan(schedule, out, answer, reflink=reflink, vram=vram)
        check_output(
            schedule,
            out,
            out_format=out_format,
            gguf_like=gguf_like,
            backend=chosen,
            devices=devices,
            vram=vram,
            overwrite=overwrite,
            restart=restart,
            reflink=reflink,
            copy_tokenizer=copy_tokenizer,
        )
        return
    from pymerge import api

    with show_progress(visible=answer is Format.HUMAN) as on_progress:
        report = api.merge(
            recipe,
            out,
            backend=chosen,
            devices=devices,
            vram=vram,
            threads=threads,
            memory=memory,
            seed=seed,
            shard_size=shard_size,
            lenient=lenient,
            allow_crimes=allow_crimes,
            allow_nonfinite=allow_nonfinite,
            overwrite=overwrite,
            restart=restart,
            hash_inputs=hash_inputs,
            reflink=reflink,
            cache=cache,
            push=push,
            private=private,
            copy_tokenizer=copy_tokenizer,
            write_model_card=write_model_card,
            keep_stages=keep_stages,
            out_format=out_format,
            gguf_like=gguf_like,
            on_progress=on_progress,
        )
    # A file is named as such; of several shards the folder is.
    show_report(report, out if report.shards == (out.name,) else report.folder, answer)


def show_report(report: MergeReport, out: Path, answer: Format) -> None:
    """Say what was merged into `out`, and how."""
    for warning in report.warnings if answer is not Format.QUIET else ():
        note(f"warning: {warning}")
    if answer is Format.JSON:
        print_json(report.to_json())
    elif answer is Format.HUMAN:
        _summarize(report)
        print(out)
        if report.pushed:
            print(report.pushed)


def _summarize(report: MergeReport) -> None:
    done = report.execution
    seconds = max(done.seconds, 1e-9)
    note(
        f"{report.method}: {format_count(report.tensors, 'tensor')} ({report.copied:,} copied), "
        f"{format_bytes(report.size)} in {format_count(len(report.shards), 'file')}"
        + (f", {format_bytes(done.shared)} of it shared with the inputs" if done.shared else "")
        + (f", {format_bytes(done.kept)} of it kept from an earlier attempt" if done.kept else "")
    )
    note(
        f"{done.seconds:.1f} s ({done.cpu_seconds:.1f} s of CPU), "
        f"read {format_bytes(done.read / seconds)}/s, written {format_bytes(done.written / seconds)}/s, "
        f"bound by {done.limit}; peak memory {format_bytes(done.peak_resident)} of {format_bytes(report.memory)} "
        f"({format_bytes(done.peak_anonymous)} without mapped files)"
    )
    if done.reason:
        note(f"merged by {done.backend}: {done.reason}")
    if done.no_room:
        note(f"{format_count(done.no_room, 'tensor')} had no room on a GPU: merged by the processors")
    for tensor, count in done.nonfinite.items():
        note(f"warning: {tensor}: {format_count(count, 'value')} not finite")
