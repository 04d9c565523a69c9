"""`pymerge methods`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.methods import get_method, method_names
from tools import methods_page


def test_the_list_has_every_method() -> None:
    lines = CliRunner().invoke(app, ["methods"]).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(method_names())


@pytest.mark.parametrize("name", method_names())
def test_one_method_shows_formula_and_every_parameter(name: str) -> None:
    text = CliRunner().invoke(app, ["methods", name]).stdout
    method = get_method(name)
    assert method.formula in text
    for parameter in method.parameters:
        assert parameter.doc in text


def test_json_holds_the_same() -> None:
    described = json.loads(CliRunner().invoke(app, ["methods", "ties", "--format", "json"]).stdout)
    assert described["name"] == "ties"
    assert {each["name"] for each in described["parameters"]} == {each.name for each in get_method("ties").parameters}


@pytest.mark.parametrize("name", method_names())
def test_the_example_can_be_planned(name: str, here: Path) -> None:
    for folder in ("base", "one", "two"):
        toys.write_llama(here / "models" / folder)
    text = CliRunner().invoke(app, ["methods", name]).stdout.partition("\nexample\n")[2]
    assert pymerge.plan(text).warnings == ()


def test_the_page_of_methods_is_current() -> None:
    assert methods_page.make_page() == methods_page.PAGE.read_text(), "run: python -m tools.methods_page --update"


def test_a_wrong_name_gets_a_suggestion() -> None:
    result = CliRunner().invoke(app, ["methods", "tise"])
    assert result.exit_code == 2
    assert "did you mean ties?" in result.stderr
