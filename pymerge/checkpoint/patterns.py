"""Keys of PEFT's rank_pattern and alpha_pattern: regular expressions of strangers, matched in bounded time.

Python's `re` goes back and tries again, for some expressions longer than anyone waits. Here all places of a module's
name that an expression reaches are kept at once, as the bits of a number, and steps are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pymerge.errors import FormatError

__all__ = ["Patterns"]

#: Characters of an expression, and groups inside of each other, at most.
_LONGEST, _DEEPEST = 500, 20
#: Steps that all expressions of one setting may take for all modules; some seconds.
_STEPS = 10_000_000
_PLAIN = re.compile(r"[\w-]+(\.[\w-]+)*")
_TOKEN = re.compile(
    r"(?P<repeat>[*+?]\??|\{(?P<least>\d{1,3})(?P<upto>,(?P<most>\d{0,3}))?\}\??)"
    r"|(?P<open>\((\?:)?)|(?P<mark>[)|^$])"
    r"|(?P<one>\\[dDsSwW]|\\[^A-Za-z0-9]|\[\^?(\\[dDsSwW]|\\[^A-Za-z0-9]|(?!--|&&|\|\||~~)[^\\\[\]^])+\]|[^\\\[\](){}*+?|^$])"
)
#: Places that are reached from others, as bits: bit i stands before character i.
_Step: TypeAlias = Callable[["_Walk", int], int]


class Patterns:
    """The values that a setting gives to modules by expressions, as PEFT reads them: the first that matches counts.

    An expression is of the end of a module's name, from its beginning or behind a dot. A plain name is taken as it is.
    """

    def __init__(self, path: Path, setting: str, given: object) -> None:
        """Read what `setting` of the file `path` is.

        Raises:
            FormatError: it is no object, or a key is no expression of those that are known.
        """
        self._where = f"{path}: {setting}"
        self._steps = _STEPS
        self._plain: dict[str, int] = {}
        self._expressions: list[tuple[int, _Step]] = []
        if not isinstance(given, Mapping | None):
            raise FormatError(f"{self._where}: expected an object of names and numbers, not {repr(given)[:100]}")
        self._values: list[Any] = list((given or {}).values())
        for place, key in enumerate(given or {}):
            name = re.sub(r"\\(\W)", r"\1", key.removesuffix("$"))
            if _PLAIN.fullmatch(name):
                self._plain.setdefault(name, place)
            else:
                self._expressions.append((place, self._read(key)))

    def find(self, module: str, default: Any) -> Any:
        """The value of a module; `default` where no key matches.

        Raises:
            FormatError: expressions take too many steps.
        """
        starts = [0, *(at + 1 for at, char in enumerate(module) if char == ".")]
        first = min((place for at in starts if (place := self._plain.get(module[at:])) is not None), default=None)
        walk = _Walk(module, self._steps)
        for place, step in self._expressions:
            if first is not None and place > first:
                break
            if step(walk, sum(1 << at for at in starts)) >> len(module):
                first = place
                break
            if walk.steps < 0:
                raise FormatError(f"{self._where}: its expressions take too long to match; name modules in full")
        self._steps = walk.steps
        return default if first is None else self._values[first]

    def _read(self, key: str) -> _Step:
        try:
            if len(key) > _LONGEST:
                raise _UnknownError(f"is longer than {_LONGEST} characters")
            return _Reader(key).read()
        except _UnknownError as error:
            raise FormatError(
                f"{self._where}: the key {repr(key)[:100]} {error}; a module's name will do, or an expression of "
                "characters, classes, repeats, groups and alternatives"
            ) from None


class _UnknownError(Exception):
    """What is wrong with an expression."""


class _Walk:
    """A module's name, and how many steps may still be taken."""

    def __init__(self, name: str, steps: int) -> None:
        self.size, self.steps = len(name), steps
        self._name = name
        self._masks: dict[str, int] = {}

    def spend(self) -> bool:
        """Take a step; False if there is none left."""
        # Numbers of many bits take longer.
        self.steps -= 1 + self.size // 1024
        return self.steps >= 0

    def mask(self, one: str) -> int:
        """The places whose character is the one that an expression of one character matches."""
        known = self._masks.get(one)
        if known is None:
            self.steps -= self.size
            matches = re.compile(one).fullmatch
            known = self._masks[one] = sum(1 << at for at, char in enumerate(self._name) if matches(char))
        return known


class _Reader:
    """Reads one expression, from left to right."""

    def __init__(self, key: str) -> None:
        self._key, self._at = key, 0

    def read(self) -> _Step:
        step = self._alternatives(0)
        if self._at < len(self._key):
            raise _UnknownError('has a ")" too many')
        # What is left has to end where the name does.
        return lambda walk, reached: step(walk, reached) >> walk.size << walk.size

    def _next(self) -> re.Match[str] | None:
        if self._at == len(self._key):
            return None
        token = _TOKEN.match(self._key, self._at)
        if token is None:
            raise _UnknownError(f"is not understood from {self._key[self._at : self._at + 10]!r} on")
        return token

    def _alternatives(self, depth: int) -> _Step:
        if depth > _DEEPEST:
            raise _UnknownError(f"has groups inside of each other, over {_DEEPEST}")
        choices = [self._sequence(depth)]
        while (token := self._next()) is not None and token["mark"] == "|":
            self._at = token.end()
            choices.append(self._sequence(depth))
        return choices[0] if len(choices) == 1 else _choose(choices)

    def _sequence(self, depth: int) -> _Step:
        steps: list[_Step] = []
        repeatable = False
        while (token := self._next()) is not None and token["mark"] not in ("|", ")"):
            self._at = token.end()
            if token["repeat"]:
                if not repeatable:
                    raise _UnknownError(f"has nothing that {token['repeat']!r} repeats")
                steps.append(_repeat(steps.pop(), *_read_counts(token)))
                repeatable = False
                continue
            repeatable = not token["mark"]
            if token["open"]:
                steps.append(self._alternatives(depth + 1))
                if self._next() is None:
                    raise _UnknownError('has a "(" without its ")"')
                self._at += 1
            elif token["one"]:
                steps.append(_take(token["one"]))
            else:
                steps.append(_stay(token["mark"] == "^"))
        return _follow(steps)


def _read_counts(token: re.Match[str]) -> tuple[int, int | None]:
    """How often at least, and at most."""
    if token["least"] is None:
        return int(token["repeat"][0] == "+"), 1 if token["repeat"][0] == "?" else None
    least = int(token["least"])
    most = least if token["upto"] is None else int(token["most"]) if token["most"] else None
    if most is not None and most < least:
        raise _UnknownError(f"has {token['repeat']}, which ends before it begins")
    return least, most


def _take(one: str) -> _Step:
    try:
        re.compile(one)
    except re.error as error:
        raise _UnknownError(f"is not understood: {one}: {error.msg}") from None
    return lambda walk, reached: (reached & walk.mask(one)) << 1 if walk.spend() else 0


def _stay(begin: bool) -> _Step:
    """The name's beginning, or its end."""
    return lambda walk, reached: reached & (1 if begin else 1 << walk.size)


def _follow(steps: list[_Step]) -> _Step:
    def step(walk: _Walk, reached: int) -> int:
        for each in steps:
            if not reached:
                break
            reached = each(walk, reached)
        return reached

    return step


def _choose(choices: list[_Step]) -> _Step:
    def step(walk: _Walk, reached: int) -> int:
        found = 0
        for each in choices:
            found |= each(walk, reached)
        return found

    return step


def _repeat(part: _Step, least: int, most: int | None) -> _Step:
    def step(walk: _Walk, reached: int) -> int:
        for _ in range(least):
            if not reached or not walk.spend():
                return 0
            reached = part(walk, reached)
        fresh, count = reached, least
        # A place that was reached before leads nowhere new.
        while fresh and (most is None or count < most) and walk.spend():
            fresh = part(walk, fresh) & ~reached
            reached |= fresh
            count += 1
        return reached

    return step
