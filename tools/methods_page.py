"""docs/methods.md, made from what the methods declare.

python -m tools.methods_page            # 1 if the page is out of date
python -m tools.methods_page --update   # write it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pymerge.cli.methods import describe_method
from pymerge.methods import get_method, method_names

__all__ = ["PAGE", "make_page"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"

_INTRODUCTION = """# Methods

Made by `python -m tools.methods_page --update` from the declarations in `pymerge/methods`; `pymerge methods NAME` shows
the same. *Models* counts those besides the base. In formulas B is the base, X_i a model, D_i = X_i - B its task
vector, w_i its weight. Where results differ from mergekit's: [differences](compatibility.md).
"""


def _section(name: str) -> Iterator[str]:
    facts = describe_method(get_method(name))
    yield f"\n## {name}\n"
    yield f"{facts['title']}. {facts['reference'][0].upper()}{facts['reference'][1:]}.\n"
    yield f"    {facts['formula']}\n"
    yield f"Models: {facts['models']}. Base: {facts['base_model']}.\n"
    if facts["parameters"]:
        yield "| parameter | type | default | allowed | given | meaning |"
        yield "|---|---|---|---|---|---|"
        for each in facts["parameters"]:
            default = str(each["default"]).lower() if isinstance(each["default"], bool) else each["default"]
            cells = (each["name"], each["kind"], default, each["allowed"], each["scope"], each["doc"])
            yield f"| {' | '.join(map(str, cells))} |"
        yield ""
    yield f"```yaml\n{facts['example']}```"


def make_page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION.rstrip(), *(line for name in method_names() for line in _section(name))]) + "\n"


def main() -> int:
    """Write the page, or tell if it is current."""
    if "--update" in sys.argv[1:]:
        PAGE.write_text(make_page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == make_page():
        return 0
    print("docs/methods.md is out of date; run: python -m tools.methods_page --update", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
