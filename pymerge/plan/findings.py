"""Problems collected while planning, so that one run shows all of them."""

from __future__ import annotations

import math

from pymerge.errors import Location, Problem, PymergeError, RecipeError

__all__ = ["Findings"]


class Findings:
    """Collects problems; `check` raises those that stand in the way, all at once."""

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self._fatal: dict[Problem, type[PymergeError]] = {}
        self._warnings: dict[Problem, None] = {}

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was tolerated or is only worth knowing, in the order found."""
        return tuple(self._warnings)

    @property
    def fatal(self) -> bool:
        """True if `check` would raise."""
        return bool(self._fatal)

    def fatal_at(self, where: Location | None) -> bool:
        """True if something fatal is known at that place."""
        return where is not None and any(problem.where == where for problem in self._fatal)

    def add(
        self,
        message: str,
        where: Location | None = None,
        hint: str | None = None,
        *,
        tolerable: bool = False,
        error: type[PymergeError] = RecipeError,
    ) -> None:
        """Add a problem; `error` is the class to raise if nothing but such problems is found."""
        problem = Problem(message, where, hint, tolerable)
        if tolerable and self._lenient:
            self._warnings[problem] = None
        else:
            self._fatal[problem] = error

    def warn(self, message: str, where: Location | None = None, hint: str | None = None) -> None:
        """Add what the user should know though nothing is wrong with it."""
        self._warnings[Problem(message, where, hint, tolerable=True)] = None

    def take(self, error: PymergeError, where: Location | None = None) -> None:
        """Add an error that was raised while one of several things was looked at."""
        if isinstance(error, RecipeError):
            for problem in error.problems:
                self._fatal[problem] = RecipeError
        else:
            self._fatal[Problem(str(error), where)] = type(error)

    def check(self) -> None:
        """Raise if anything fatal was found.

        Raises:
            RecipeError: mistakes in the recipe, or several kinds of problems.
            FormatError, DTypeError, ShapeError, ...: if all problems are of that one kind.
        """
        if not self._fatal:
            return
        kinds = set(self._fatal.values())
        kind = kinds.pop() if len(kinds) == 1 else RecipeError
        problems = sorted(self._fatal, key=_place)
        if kind is RecipeError:
            raise RecipeError(problems)
        raise kind(*(str(problem) for problem in problems))


def _place(problem: Problem) -> tuple[float, int]:
    """Order of the recipe; what has no place comes last, in the order found."""
    return (problem.where.line, problem.where.column) if problem.where else (math.inf, 0)
