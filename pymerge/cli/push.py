"""pymerge push OUT USER/NAME."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, print_json


def push(
    out: Annotated[Path, typer.Argument(help="The folder that a merge made.", metavar="OUT")],
    repo: Annotated[str, typer.Argument(help="Where it goes on the hub.", metavar="USER/NAME")],
    private: options.private = False,
    revision: Annotated[str | None, typer.Option("--revision", help="The branch; made if it is not there.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    answer: options.answer = Format.HUMAN,
    verbose: options.verbose = False,
) -> None:
    """Upload the finished merge in OUT to the hub: weights, config, tokenizer, recipe, card, manifest."""
    from pymerge import hub

    bars = answer is Format.HUMAN and sys.stderr.isatty()
    more = {} if message is None else {"message": message}
    place = hub.push(out, repo, private=private, revision=revision, progress=bars, **more)
    if answer is Format.JSON:
        print_json({"url": place})
    elif answer is Format.HUMAN:
        print(place)
