"""The command line: one file per command, and nothing is decided here.

Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import gc
import os
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.main import get_command

from pymerge.cli.guard import GuardedGroup, report_bug
from pymerge.cli.options import show_version
from pymerge.cli.streams import end_streams, exit_code_of, is_of_stdout, prepare_streams, tell

__all__ = ["app", "main", "run"]

#: In the order that --help has; each is a function, or a group, of its name in the file of its name.
COMMANDS = (
    "merge",
    "merge-files",
    "moe",
    "extract-lora",
    "plan",
    "push",
    "inspect",
    "verify",
    "methods",
    "doctor",
    "bench",
)
_make_app = partial(typer.Typer, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Commands(GuardedGroup):
    """The commands, each loaded when it is asked for: Typer needs the types of all options of all that are there."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; of an unknown name None, with all loaded for those that it may have meant."""
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(_load(name), name)
        return super().get_command(ctx, cmd_name)


def _load(name: str) -> Any:
    subject = name.replace("-", "_")
    found = getattr(import_module(f"pymerge.cli.{subject}"), subject)
    if not isinstance(found, typer.Typer):
        alone = _make_app()
        alone.command(name)(found)
        found = alone
    return get_command(found)


app = _make_app(
    name="pymerge",
    cls=Commands,
    help="Merge language-model checkpoints as fast as copying them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        tell(str(stop.code))
        return 1
    except Exception as error:
        if isinstance(error, OSError) and is_of_stdout(error):
            return exit_code_of(error)
        return report_bug(error)
    return 0


def main() -> NoReturn:
    """Run the command line and end the process at once.

    All that matters is on the disk by then, and taking Python apart takes 15 ms.
    """
    gc.set_threshold(_COLLECT_EVERY)
    prepare_streams()
    os._exit(end_streams(run()))
