"""The runner of commands: what it says about a process is what the process did."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pymerge.bench.process import CommandFailedError, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_time_memory_and_output_are_the_process_own() -> None:
    usage = run(python("import time; held = b'x' * (64 << 20); time.sleep(0.2); print('done')"))
    assert 0.2 < usage.wall < 5
    assert 0 < usage.cpu < usage.wall
    assert 64 << 20 < usage.anonymous < 128 << 20
    assert usage.stdout == "done\n"


def test_the_first_write_is_seen_when_it_happens(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.2); f = open('f', 'wb', 0); f.write(bytes(1 << 20)); time.sleep(0.1)"
    usage = run(python(f"import os; os.chdir({str(tmp_path)!r}); {code}"))
    assert usage.first_write is not None
    assert 0.2 < usage.first_write < usage.wall - 0.05


def test_no_write_says_nothing() -> None:
    assert run(python("pass")).first_write is None


def test_variables_reach_the_process() -> None:
    assert run(python("import os; print(os.environ['A'])"), {"A": "b"}).stdout == "b\n"


def test_python_keeps_what_it_compiles_as_users_pythons_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert run(python("import sys; print(sys.dont_write_bytecode)")).stdout == "False\n"


def test_a_failure_shows_what_the_command_said() -> None:
    with pytest.raises(CommandFailedError, match="status 3:\nno such model"):
        run(python("import sys; sys.stderr.write('no such model'); sys.exit(3)"))


def test_a_command_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(CommandFailedError, match="no-such-program: No such file"):
        run(["no-such-program"])
