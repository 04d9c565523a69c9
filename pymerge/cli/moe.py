"""pymerge moe CONFIG OUT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, note
from pymerge.cli.merge import show_report
from pymerge.cli.plan import parse_out, show_plan
from pymerge.cli.progress import show_progress

#: mergekit's ways to run the base model in less memory.
_QUANTIZED = "the base is run in bfloat16, on a GPU if one has room; gate_mode cheap_embed and random run nothing"


@options.accept_peer_options
def moe(
    config: Annotated[str, typer.Argument(help="What the mixture is made of: a YAML file.", metavar="CONFIG")],
    out: Annotated[Path, typer.Argument(parser=parse_out, help="The folder to make.", metavar="OUT")],
    untrained: Annotated[
        bool,
        typer.Option(
            "--i-understand-this-is-not-useful-without-training", help="Permit experts that are all one model."
        ),
    ] = False,
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
    answer: options.answer = Format.HUMAN,
    quiet: options.quiet = False,
    verbose: options.verbose = False,
    cuda: options.cuda = False,
    gpu_rich: options.gpu_rich = False,
    load_in_4bit: Annotated[bool, typer.Option("--load-in-4bit", hidden=True)] = False,
    load_in_8bit: Annotated[bool, typer.Option("--load-in-8bit", hidden=True)] = False,
) -> None:
    """Put dense models together as the experts of a mixture, such as a Mixtral, in OUT."""
    from pymerge import api_moe

    answer = Format.QUIET if quiet else answer
    chosen, devices = options.choose_backend(backend, device, cuda or gpu_rich)
    for name, wanted in (("--load-in-4bit", load_in_4bit), ("--load-in-8bit", load_in_8bit)):
        if wanted:
            note(f"{name} has no effect: {_QUANTIZED}")
    if dry_run:
        from pymerge.api_checks import check_output
        from pymerge.schedule import make_schedule

        planned = api_moe.plan_mixture(
            config, lenient=lenient, seed=seed, allow_crimes=allow_crimes, untrained=untrained, cache=cache
        )
        schedule = make_schedule(planned, shard_size=shard_size, threads=threads, memory=memory)
        show_plan(schedule, out, answer, reflink=reflink)
        check_output(
            schedule,
            out,
            out_format="safetensors",
            backend=chosen,
            devices=devices,
            vram=vram,
            overwrite=overwrite,
            restart=restart,
            reflink=reflink,
            copy_tokenizer=copy_tokenizer,
        )
        return
    with show_progress(visible=answer is Format.HUMAN) as on_progress:
        report = api_moe.moe(
            config,
            out,
            untrained=untrained,
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
            on_progress=on_progress,
        )
    show_report(report, report.folder, answer)
