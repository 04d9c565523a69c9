"""Whatever strangers send, as a model or as a recipe: the answer that is owed, and nothing else happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import toys
from attacks.models import MODELS, PLANTED
from attacks.pickles import PICKLES
from attacks.recipes import RECIPES
from attacks.values import Attack
from typer.testing import CliRunner

from pymerge.cli import app

#: What an attack that runs alone may take: bytes of address space (of which threads and libraries need most), seconds.
ADDRESSES, SECONDS = 3 << 30, 60
LIMITED = ["sh", "-c", f'ulimit -v {ADDRESSES >> 10} && exec "$0" "$@"']
RECIPE = "merge_method: linear\nmodels: [{model: bad}, {model: good}]\nparameters: {weight: 1}\nbase_model: bad\n"


@pytest.fixture
def good(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two good models, `good` and `bad`; whoever asks for a connection fails."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("good", "bad"):
        toys.write_checkpoint(here / name, {"w": np.ones(4, np.float32)}, {})
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "x.jinja").write_text("private")
    return here


def run(alone: bool, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; of one that is alone, within limits of time and memory."""
    if not alone:
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, (SystemExit, type(None))), result.exception
        return result.exit_code, result.stdout, result.stderr
    command = [*LIMITED, sys.executable, "-m", "pymerge", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


def list_files(folder: Path) -> set[str]:
    """Everything in a folder, links not followed, but what is in `out`."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, folders, files in os.walk(folder)
        for name in [*folders, *files]
    } - {"out", *(f"out/{path.name}" for path in (folder / "out").glob("**/*"))}


def check(attack: Attack, folder: Path) -> None:
    """Merge; the answer is the one that is owed, and nothing was made or changed outside of the output."""
    before = list_files(folder)
    status, _, said = run(attack.alone, "merge", "recipe.yml", "out", "--trust-remote-code", "--memory", "1GB")
    assert (status, attack.says in said) == (attack.exit, True), said[:2000]
    assert "internal error" not in said
    # Nothing that a terminal would act on, no line that pymerge did not begin.
    assert all(c.isprintable() or c == "\n" for c in said)
    assert not any(line.startswith("error: none") for line in said.splitlines())
    assert list_files(folder) == before
    assert not (folder / PLANTED).exists()
    assert (folder / "out" / "config.json").exists() == (status == 0)


@pytest.mark.parametrize("name", [*MODELS, *PICKLES])
def test_a_model_of_a_stranger(good: Path, name: str) -> None:
    attack = {**MODELS, **PICKLES}[name]
    attack.layout(good / "bad")
    (good / "recipe.yml").write_text(RECIPE)
    check(attack, good)
    for command in (["inspect", "bad", "--tensors"], ["plan", "recipe.yml", "--tensors", "--format", "json"]):
        status, shown, said = run(attack.alone, *command)
        assert status in (0, attack.exit), said
        assert all(c.isprintable() or c == "\n" for c in shown + said)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_a_stranger(good: Path, name: str) -> None:
    attack = RECIPES[name]
    attack.layout(good / "recipe.yml")
    check(attack, good)


def test_a_recipe_may_come_through_a_pipe_but_not_without_end(good: Path) -> None:
    assert run(True, "plan", "/dev/zero")[0] == 2
    command = f"{sys.executable} -m pymerge plan /dev/stdin"
    done = subprocess.run(command.split(), input=RECIPE, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def test_memory_is_bounded_by_the_size_of_a_header(good: Path) -> None:
    count = 100_000
    entries = ",".join(f'"t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(count))
    content = f"{{{entries}}}".encode()
    (good / "bad" / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    program = (
        "import resource, sys\n"
        "from pymerge.output.inventory import take_inventory\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "take_inventory('good')\n"
        "before = peak()\n"
        "assert take_inventory('bad')['count'] == int(sys.argv[1])\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    assert int(done.stdout) < 25 * len(content)
