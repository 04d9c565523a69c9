"""Check which part of the tree may use which other part, where import-linter cannot see.

C++: every include points down (bindings -> kernels -> csrc/io -> csrc/runtime -> csrc/core), and only
the bindings know Python. Python under kernels/ stands on pymerge's bottom layer alone, and torch and
triton are imported by nothing but backends and kernels' Triton files.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Folder -> folders it may include from. A file belongs to the longest folder that holds it.
CPP_ARROWS = {
    "csrc/core": ("csrc/core",),
    # The shard writer runs on the runtime's threads and buffers; nothing points back.
    "csrc/io": ("csrc/io", "csrc/runtime", "csrc/core"),
    "csrc/runtime": ("csrc/runtime", "csrc/core"),
    "kernels": ("kernels", "csrc/runtime", "csrc/io", "csrc/core"),
    "pymerge/bindings": ("pymerge/bindings", "kernels", "csrc/runtime", "csrc/io", "csrc/core"),
}
CPP_SUFFIXES = (".cc", ".h", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

TRITON_FOLDERS = ("kernels/common/triton/", "kernels/select/triton/")
# Module prefix -> paths (prefixes, or a file name) that may import it.
PYTHON_USERS = {
    "torch": (
        "pymerge/backends/",
        "pymerge/execute/memory.py",
        "pymerge/gates/states.py",
        "triton.py",
        *TRITON_FOLDERS,
    ),
    "triton": ("pymerge/backends/", "triton.py", *TRITON_FOLDERS),
    "pymerge._cuda": ("pymerge/backends/",),
    "pymerge._core": (
        "pymerge/checkpoint/",
        "pymerge/backends/",
        "pymerge/execute/",
        "pymerge/output/",
        "pymerge/verify/",
        "kernels/",
    ),
}
KERNELS_MAY_IMPORT = ("pymerge.kernels", "pymerge.ops", "pymerge.dtypes", "pymerge.errors", "pymerge._core")


def find_part(path: str) -> str | None:
    """The folder of CPP_ARROWS that `path` (relative to the root) lies in."""
    return max((part for part in CPP_ARROWS if path.startswith(part + "/")), key=len, default=None)


def resolve_include(file: Path, target: str) -> str | None:
    """The path in the tree that `target` names from `file`; None for headers of others."""
    for folder in (file.parent, ROOT / "csrc", ROOT / "kernels", ROOT):
        found = (folder / target).resolve()
        if found.is_file() and found.is_relative_to(ROOT):
            return found.relative_to(ROOT).as_posix()
    return None


def check_cpp(file: Path) -> Iterator[str]:
    """Findings about the includes of one C++ file."""
    name = file.relative_to(ROOT).as_posix()
    part = find_part(name)
    if part is None:
        return
    text = file.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        place = f"{name}:{text.count(chr(10), 0, match.start(2)) + 1}"
        target = match[2]
        if target.startswith(("pybind11/", "Python.h")) and part != "pymerge/bindings":
            yield f"{place}: includes {target}; only pymerge/bindings may"
        found = resolve_include(file, target)
        if found is None:
            if match[1] == '"' and not target.startswith("pybind11/"):
                yield f'{place}: "{target}" is not in the tree'
        elif find_part(found) not in CPP_ARROWS[part]:
            yield f"{place}: includes {found}; {part} may include only {', '.join(CPP_ARROWS[part])}"


def list_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported at run time.

    `from a import b` counts as "a.b"; imports for type checkers alone do not count.
    """
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def check_python(file: Path) -> Iterator[str]:
    """Findings about the imports of one Python file."""
    name = file.relative_to(ROOT).as_posix()
    for line, module in list_imports(ast.parse(file.read_text(encoding="utf-8"))):
        for prefix, users in PYTHON_USERS.items():
            allowed = any(name.startswith(user) or file.name == user for user in users)
            if f"{module}.".startswith(f"{prefix}.") and not allowed:
                yield f"{name}:{line}: imports {module}; only {', '.join(users)} may"
        inside = f"{module}.".startswith(tuple(f"{allowed}." for allowed in KERNELS_MAY_IMPORT))
        if name.startswith("kernels/") and module.startswith("pymerge.") and not inside:
            yield f"{name}:{line}: imports {module}; kernels may import only {', '.join(KERNELS_MAY_IMPORT)}"


def main() -> int:
    """Check the tree; prints every finding and returns 1 if there is one."""
    findings: list[str] = []
    for folder in ("csrc", "kernels", "pymerge"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in CPP_SUFFIXES:
                findings += check_cpp(file)
            elif file.suffix == ".py":
                findings += check_python(file)
    print("\n".join(findings) or "check_includes: every arrow points down")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
