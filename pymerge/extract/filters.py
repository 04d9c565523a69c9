"""The options of an extraction, checked: what may be asked for, and which modules the patterns choose."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from pymerge.dtypes import BY_NAME
from pymerge.extract.values import Options
from pymerge.plan.findings import Findings

__all__ = ["Filters", "writes"]


@dataclass(slots=True)
class Filters:
    """The patterns that choose modules; those that never matched are mistakes."""

    include: tuple[re.Pattern[str], ...]
    exclude: tuple[re.Pattern[str], ...]
    save: tuple[str, ...]
    used: set[object] = field(default_factory=set)

    @classmethod
    def read(cls, options: Options, findings: Findings) -> Filters:
        """Check all options."""
        if options.max_rank < 1:
            findings.add(f"--max-rank {options.max_rank} is not a rank", hint="a rank is at least 1")
        if options.energy is not None and not 0 < options.energy <= 1:
            findings.add(f"--energy {options.energy} is not a share", hint="it is above 0 and at most 1, such as 0.99")
        if not (math.isfinite(options.sv_epsilon) and options.sv_epsilon >= 0):
            findings.add(f"--sv-epsilon {options.sv_epsilon} is below 0 or no number")
        if options.method not in ("auto", "randomized", "exact"):
            findings.add(f"--method {options.method} is unknown", hint="it is auto, randomized or exact")
        if options.dtype is not None and not writes(options.dtype):
            findings.add(f"--dtype {options.dtype} is no type of factors", hint="float32, float16 or bfloat16")
        compiled = {
            option: tuple(filter(None, (_compile(option, text, findings) for text in texts)))
            for option, texts in (("--include-regex", options.include), ("--exclude-regex", options.exclude))
        }
        return cls(compiled["--include-regex"], compiled["--exclude-regex"], options.save_modules)

    def find(self, module: str, *, embedding: bool) -> str | None:
        """Why a module is left out; None if it is not. Embeddings and head need not be included."""
        excluded = [pattern for pattern in self.exclude if pattern.search(module)]
        included = [pattern for pattern in self.include if pattern.search(module)]
        self.used.update(excluded, included)
        if excluded:
            return f"--exclude-regex {excluded[0].pattern}"
        return "no --include-regex matches" if self.include and not included and not embedding else None

    def saves(self, module: str) -> bool:
        """Whether a module was named to be stored as it is: whole, or by its last part."""
        named = {name for name in self.save if module == name or module.endswith(f".{name}")}
        self.used |= named
        return bool(named)

    def report_unused(self, findings: Findings) -> None:
        """Every pattern and name has to mean something."""
        for option, given in (("--include-regex", self.include), ("--exclude-regex", self.exclude)):
            for pattern in (pattern for pattern in given if pattern not in self.used):
                findings.add(f"{option} {pattern.pattern} matches no module", hint="pymerge inspect lists tensors")
        for name in (name for name in self.save if name not in self.used):
            findings.add(f"--save-module {name} is no module of the model", hint="pymerge inspect lists tensors")


def writes(dtype: str) -> bool:
    """Whether factors may be of a type."""
    return dtype in BY_NAME and BY_NAME[dtype].mergeable and dtype != "float64"


def _compile(option: str, text: str, findings: Findings) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error as error:
        findings.add(f"{option} {text} is no regular expression: {error}")
        return None
