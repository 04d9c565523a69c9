"""The command line: one file per command, and nothing is decided here.

Results go to stdout, progress and notes to stderr.
"""

from __future__ import annotations

import typer

from pymerge.cli.bench import bench
from pymerge.cli.doctor import doctor
from pymerge.cli.guard import GuardedGroup, report_bug
from pymerge.cli.inspect import inspect
from pymerge.cli.merge import merge
from pymerge.cli.methods import methods
from pymerge.cli.options import show_version
from pymerge.cli.plan import plan

__all__ = ["app", "main"]

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
for command in (merge, plan, inspect, methods, doctor):
    app.command()(command)
app.add_typer(bench)


@app.callback()
def _root(version: show_version = False) -> None:
    pass


def main() -> None:
    """Run the command line; every way out is an exit code (see docs/cli.md)."""
    try:
        app()
    except Exception as error:
        raise SystemExit(report_bug(error)) from error
