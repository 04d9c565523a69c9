"""What must not be loaded before it is needed: start-up stays short, torch stays optional."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toys

from pymerge.cli import COMMANDS

HEAVY = {"torch", "triton", "transformers", "numpy", "rich", "jinja2", "yaml", "typer", "huggingface_hub"}


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys; print('LOADED', *sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(answer.rsplit("LOADED", 1)[1].split())


def loaded_by(code: str) -> set[str]:
    """Of these, the top-level packages."""
    return {name.split(".")[0] for name in modules_after(code)}


def running(*command: str) -> str:
    """The code that runs a command line."""
    return f"from pymerge.cli import app\ntry: app({command!r})\nexcept SystemExit as end: assert not end.code"


def test_importing_the_package_loads_nothing() -> None:
    assert not loaded_by("import pymerge") & HEAVY


@pytest.mark.parametrize("command", ["methods", "methods ties", "--version", "merge --help"])
def test_a_small_command_loads_neither_arrays_nor_rich(command: str) -> None:
    assert not loaded_by(running(*command.split())) & (HEAVY - {"typer", "yaml"})


def test_a_merge_loads_its_own_command_alone(tmp_path: Path) -> None:
    for seed in range(2):
        toys.write_llama(tmp_path / str(seed), seed=seed, layers=1, width=16)
    recipe = tmp_path / "recipe.yml"
    models = ", ".join(f"{{model: {tmp_path / str(seed)}, parameters: {{weight: 0.5}}}}" for seed in range(2))
    recipe.write_text(f"{{merge_method: linear, models: [{models}]}}")
    loaded = modules_after(
        running("merge", str(recipe), str(tmp_path / "out"), "--backend", "cpu", "--format", "quiet")
    )
    assert "pymerge.cli.merge" in loaded
    others = {f"pymerge.cli.{name.replace('-', '_')}" for name in COMMANDS} - {"pymerge.cli.merge", "pymerge.cli.plan"}
    assert not loaded & {*others, "numpy", "concurrent.futures", "rich"}


def test_an_unknown_command_is_told_with_those_that_it_may_be() -> None:
    done = subprocess.run([sys.executable, "-m", "pymerge", "merge-file"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'merge-files'" in done.stderr


def test_the_api_needs_no_torch_and_little_of_the_standard_library() -> None:
    # email comes with importlib.metadata.
    needless = {"torch", "transformers", "rich", "typer", "huggingface_hub", "platform", "socket", "email"}
    assert not loaded_by("import pymerge; pymerge.__version__, pymerge.merge, pymerge.plan") & needless


def test_the_installed_version_is_what_the_package_says() -> None:
    from importlib.metadata import version

    import pymerge

    assert version("pymerge") == pymerge.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    import pymerge

    with pytest.raises(AttributeError, match="nonsense"):
        pymerge.nonsense  # noqa: B018


def test_every_public_name_is_there() -> None:
    import pymerge

    for name in pymerge.__all__:
        assert getattr(pymerge, name) is not None


def test_plan_is_a_function_whatever_was_imported_before() -> None:
    loaded_by("import pymerge.plan.values, pymerge; assert pymerge.plan.__module__ == 'pymerge.api'")
    loaded_by("from pymerge import merge, plan; from pymerge.plan import make_plan; assert callable(plan)")


def test_formats_that_few_models_have_are_not_loaded_for_others() -> None:
    rare = ("gguf", "unpickling", "standins", "zip_directory", "adapters", "pymerge.vocabulary", "pymerge.hub")
    code = f"import sys, pymerge.api; print([m for m in sys.modules if any(word in m for word in {rare!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
