"""From exceptions to messages and exit codes: the one place where errors meet the user."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import typer
import typer.core

from pymerge.cli.streams import exit_code_of, is_of_stdout, tell
from pymerge.errors import InternalError, PymergeError, RecipeError, ResourceError, find_interrupt, printable

__all__ = ["GuardedGroup", "Session", "report_bug"]

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """Somebody asked the process to end: handled as Ctrl-C is, with the exit code of the signal."""


@dataclass(slots=True)
class Session:
    """What one run of the program carries from its options to its error handling."""

    verbose: bool = False


class GuardedGroup(typer.core.TyperGroup):
    """A group of commands in which pymerge's errors become messages with their exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        session = ctx.ensure_object(Session)
        signal.signal(signal.SIGTERM, _terminate)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where what it meets is told
            return result
        except (KeyboardInterrupt, RuntimeError) as error:
            interrupt = find_interrupt(error)
            if interrupt is None:
                raise
            _complain(
                str(interrupt) or "interrupted; nothing that looks like a finished model was left behind", interrupt
            )
            raise typer.Exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED) from None
        except InternalError as error:
            raise typer.Exit(report_bug(error, session)) from error
        except PymergeError as error:
            _complain(_phrase(error), error)
            _trace(error, session)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if not is_of_stdout(error):
                raise
            raise typer.Exit(exit_code_of(error)) from None
        except MemoryError as error:
            _complain("out of memory; give --memory a smaller budget or --threads a smaller number")
            _trace(error, session)
            raise typer.Exit(ResourceError.exit_code) from error


def report_bug(error: BaseException, session: Session | None = None) -> int:
    """Say that pymerge is at fault; returns the exit code."""
    what = str(error) if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
    _complain(
        f"internal error: {what}\n"
        "This is a bug in pymerge. Please report it with the traceback that PYMERGE_TRACEBACK=1 prints."
    )
    _trace(error, session or Session())
    return InternalError.exit_code


def _phrase(error: PymergeError) -> str:
    if isinstance(error, RecipeError) and len(error.problems) > 1:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        return f"{len(error.problems)} problems:\n{lines}"
    return str(error)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _complain(message: str, error: BaseException | None = None) -> None:
    for line in (f"error: {message}", *getattr(error, "__notes__", ())):
        tell(printable(line, lines=True))


def _trace(error: BaseException, session: Session) -> None:
    if session.verbose or os.environ.get("PYMERGE_TRACEBACK", "") not in ("", "0"):
        with suppress(OSError):
            traceback.print_exception(error)
