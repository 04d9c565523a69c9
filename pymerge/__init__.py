"""Merge language-model checkpoints as fast as copying them.

The names below are the whole public API. They are loaded on first use, so that `import pymerge`
costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymerge.api import MergeReport, merge, plan
    from pymerge.api_extract import extract_lora
    from pymerge.api_files import merge_files
    from pymerge.api_moe import moe
    from pymerge.errors import PymergeError
    from pymerge.execute.memory import mask, merge_tensors
    from pymerge.execute.state_dicts import merge_state_dicts
    from pymerge.verify.compare import compare
    from pymerge.verify.folder import verify

# The only place that says it: the build reads it from here.
__version__ = "0.1.0"

__all__ = [
    "MergeReport",
    "PymergeError",
    "__version__",
    "compare",
    "extract_lora",
    "mask",
    "merge",
    "merge_files",
    "merge_state_dicts",
    "merge_tensors",
    "moe",
    "plan",
    "verify",
]

_HOMES = {
    "MergeReport": "pymerge.api",
    "PymergeError": "pymerge.errors",
    "compare": "pymerge.verify.compare",
    "extract_lora": "pymerge.api_extract",
    "mask": "pymerge.execute.memory",
    "merge": "pymerge.api",
    "merge_files": "pymerge.api_files",
    "merge_state_dicts": "pymerge.execute.state_dicts",
    "merge_tensors": "pymerge.execute.memory",
    "moe": "pymerge.api_moe",
    "plan": "pymerge.api",
    "verify": "pymerge.verify.folder",
}


class _Package(ModuleType):
    """The module of the package: a public name in it is not lost to a sub-package.

    `plan` and `verify` are both functions and folders, and Python would bind a folder's module here as soon as
    anything imports from it. `from pymerge.plan import ...` works all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


# Hidden from type checkers: they see the names above, and nothing else passes.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'pymerge' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
