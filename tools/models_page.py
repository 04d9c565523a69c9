"""docs/models.md's table, made from the families that tests/e2e/test_models.py merges, loads and runs.

python -m tools.models_page --update
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
_BEGIN, _END = "<!-- families -->\n", "<!-- end of families -->\n"


def make_table(families: dict[str, Any]) -> str:
    """The table, in Markdown."""
    rows = [
        f"| {family.title} | `{family.model}` | yes | yes | {'yes' if family.stacks else 'by modules'} |"
        for family in families.values()
    ]
    head = "| model | class in transformers | averaged | passed through | layers stacked |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def make_page(families: dict[str, Any]) -> str:
    """The page with its table as it should be."""
    text = PAGE.read_text()
    before, rest = text.split(_BEGIN)
    return before + _BEGIN + make_table(families) + _END + rest.split(_END)[1]


def main() -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    from e2e.test_models import FAMILIES

    if update:
        PAGE.write_text(make_page(FAMILIES))
    else:
        print(make_table(FAMILIES))


if __name__ == "__main__":
    main()
