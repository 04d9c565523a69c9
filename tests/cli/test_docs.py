"""The documentation says what the program does: its recipes load, its options exist, all are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pymerge.cli import app
from pymerge.cli.options import PEER_OPTIONS, PeerOption
from pymerge.config import load_recipe
from pymerge.config.moe_document import load_moe
from pymerge.methods import get_method, method_names

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = [
    (page.name, block) for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
]
DEMO = sorted((ROOT / "demo" / "recipes").glob("*.yml"))


@pytest.mark.parametrize(("page", "block"), RECIPES)
def test_every_recipe_in_the_docs_loads_without_a_warning(page: str, block: str) -> None:
    load = load_moe if "\nexperts:" in block else load_recipe
    assert load(block).warnings == ()


@pytest.mark.parametrize("path", DEMO, ids=lambda path: path.stem)
def test_every_recipe_of_the_demo_loads_without_a_warning(path: Path) -> None:
    assert load_recipe(path).warnings == ()


@pytest.mark.parametrize(
    "command",
    [
        "merge",
        "merge-files",
        "moe",
        "extract-lora",
        "verify",
        "bench kernels",
        "bench io",
        "bench merge",
        "bench compare",
    ],
)
def test_every_option_of_a_command_is_documented(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", shown)) - {"--help"}
    page = (ROOT / "docs" / "cli.md").read_text()
    missing = {name for name in options if f"`{name}" not in page and not name.startswith("--no-")}
    assert not missing


@pytest.mark.parametrize("option", PEER_OPTIONS, ids=lambda option: option.name)
def test_every_option_without_effect_is_documented_with_its_reason(option: PeerOption) -> None:
    assert f"| `{option.name}` | {option.reason} |" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("name", method_names())
def test_every_method_is_documented_with_its_parameters(name: str) -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    method = get_method(name)
    *_, once, each, _ = (cell.strip() for cell in row.split("|"))
    documented = (set(filter(None, once.split(", "))), set(filter(None, each.split(", "))))
    assert documented == (
        {parameter.name for parameter in method.parameters if not parameter.per_model},
        {parameter.name for parameter in method.parameters if parameter.per_model},
    )


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([\w/.-]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
