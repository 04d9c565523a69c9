"""Threads and files of the C++ core by themselves: plain, and under sanitizers, which see what is planted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from native.watched import CSRC, Watched, build

HERE = Path(__file__).resolve().parent
CORE = [*(CSRC / "runtime").glob("*.cc"), CSRC / "core" / "error.cc"]
FILES = [HERE / "io_test.cc", *CORE, *(CSRC / "io").glob("*.cc")]
#: What to build with -> how a planted fault of its kind is reported.
PLANTED = {
    "thread": {"race": "data race"},
    "address,undefined": {"overrun": "heap-buffer-overflow", "overflow": "signed integer overflow"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The test of files, without a sanitizer."""
    return build(FILES, "", tmp_path_factory.mktemp("files"))


def test_pools_and_jobs(tmp_path: Path) -> None:
    assert build([HERE / "runtime_test.cc", *CORE], "", tmp_path).run() == (0, "")


def test_files_that_are_cut_and_shards_of_many_threads(files: Watched, tmp_path: Path) -> None:
    assert files.run(str(tmp_path)) == (0, "")


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("foreign", -signal.SIGBUS, ""),
        ("handled", 42, ""),
        ("sent", -signal.SIGBUS, ""),
        ("sent and ignored", 0, ""),
        ("passed back", -signal.SIGBUS, "seen\n"),
    ],
)
def test_a_signal_that_is_not_of_a_guarded_file_goes_where_it_went_before(
    files: Watched, tmp_path: Path, fault: str, status: int, said: str
) -> None:
    assert files.run(str(tmp_path), fault) == (status, said)


def test_pools_and_jobs_have_no_races(tmp_path: Path) -> None:
    assert build([HERE / "runtime_test.cc", *CORE], "thread", tmp_path).run() == (0, "")


@pytest.mark.parametrize("sanitizer", PLANTED)
def test_sanitizers_see_nothing_but_what_is_planted(tmp_path: Path, sanitizer: str) -> None:
    program = build(FILES, sanitizer, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    assert program.run(str(work)) == (0, "")
    for fault, report in PLANTED[sanitizer].items():
        status, found = program.run(str(work), fault)
        assert status != 0
        assert report in found
