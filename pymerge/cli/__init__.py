"""The command line: one file per command, and nothing is decided here.

Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

import typer

from pymerge.cli.bench import bench
from pymerge.cli.doctor import doctor
from pymerge.cli.extract_lora import extract_lora
from pymerge.cli.guard import GuardedGroup, report_bug
from pymerge.cli.inspect import inspect
from pymerge.cli.merge import merge
from pymerge.cli.merge_files import merge_files
from pymerge.cli.methods import methods
from pymerge.cli.moe import moe
from pymerge.cli.options import show_version
from pymerge.cli.plan import plan
from pymerge.cli.push import push
from pymerge.cli.verify import verify

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="pymerge",
    cls=GuardedGroup,
    help="Merge language-model checkpoints as fast as copying them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (merge, merge_files, moe, extract_lora, plan, push, inspect, verify, methods, doctor):
    app.command()(command)
app.add_typer(bench)


@app.callback()
def _root(version: show_version = False) -> None:
    pass


#: Allocations between two looks for cyclic garbage, of which a merge makes next to none: with Python's
#: 700, looking takes 6 ms of a start.
_COLLECT_EVERY = 50_000


def run() -> int:
    """Run the command line; every way out is an exit code (see docs/cli.md)."""
    try:
        app()
    except SystemExit as stop:
        if isinstance(stop.code, int):
            return stop.code
        if stop.code is None:
            return 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception as error:
        return report_bug(error)
    return 0


def main() -> NoReturn:
    """Run the command line and end the process at once.

    All that matters is on the disk by then, and taking Python apart takes 15 ms.
    """
    gc.set_threshold(_COLLECT_EVERY)
    status = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody listens any more
            status = status or 1
    os._exit(status)
