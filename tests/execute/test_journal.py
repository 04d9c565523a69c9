"""The journal: what it tells a later attempt, and who may write to a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.errors import ResourceError
from pymerge.execute.journal import JOURNAL, claim

IDENTITY = {"seed": 1, "recipe": "models: [\u00e9]\n"}
DIGESTS = {"a.weight": "0" * 32, "strange \u2028 \n name": "f" * 32}


def test_a_later_attempt_reads_what_was_recorded(tmp_path: Path) -> None:
    with claim(tmp_path) as journal:
        assert journal.identity is None
        journal.begin(IDENTITY)
        journal.record(DIGESTS)
    with claim(tmp_path) as journal:
        assert journal.identity == IDENTITY
        assert journal.recorded == DIGESTS
        journal.begin(IDENTITY)
        journal.record({"b": "1" * 32})
    with claim(tmp_path) as journal:
        assert journal.recorded == {**DIGESTS, "b": "1" * 32}


def test_what_is_forgotten_is_begun_anew(tmp_path: Path) -> None:
    with claim(tmp_path) as journal:
        journal.begin(IDENTITY)
        journal.record(DIGESTS)
    with claim(tmp_path) as journal:
        journal.forget()
        journal.begin({**IDENTITY, "seed": 2})
        assert journal.recorded == {}
    with claim(tmp_path) as journal:
        assert journal.identity == {**IDENTITY, "seed": 2}
        assert journal.recorded == {}


@given(st.data())
def test_a_journal_cut_anywhere_tells_whole_lines_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    with claim(folder) as journal:
        journal.begin(IDENTITY)
        for name, digest in DIGESTS.items():
            journal.record({name: digest})
    path = folder / JOURNAL
    content = path.read_bytes()
    kept = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(kept + data.draw(st.sampled_from([b"", bytes(100), b"\n", b"{}", b"\xff"])))
    # A line that lost nothing but its end may have been given one again.
    now, before = (text.splitlines(keepends=True) for text in (path.read_bytes(), content))
    whole = next((at for at, line in enumerate(now) if at >= len(before) or line != before[at]), len(now))
    with claim(folder) as journal:
        assert (journal.identity == IDENTITY) == (whole >= 1)
        assert list(journal.recorded) == list(DIGESTS)[: max(0, whole - 2)]
        if journal.identity is None:
            return
        journal.begin(IDENTITY)
        journal.record({"b": "1" * 32})
    with claim(folder) as journal:
        assert list(journal.recorded) == [*list(DIGESTS)[: max(0, whole - 2)], "b"]


def test_a_first_line_that_is_something_else_is_damage(tmp_path: Path) -> None:
    for content in (
        b"{}\n",
        b"[1]\n",
        b'{"journal": 2, "identity": {}}\n',
        b'{"journal": 1}\n',
        b"\0\0\n",
        b"\xff\xfe\n",
    ):
        (tmp_path / JOURNAL).write_bytes(content)
        with claim(tmp_path) as journal:
            assert journal.damaged
            assert journal.identity is None


def test_a_second_claim_learns_who_holds_the_first(tmp_path: Path) -> None:
    with claim(tmp_path) as journal:
        journal.begin(IDENTITY)
        journal.record(DIGESTS)
        with pytest.raises(
            ResourceError, match=rf"is in use: process {os.getpid()} on .* \(since .*\) is merging"
        ) as caught:
            claim(tmp_path)
        assert caught.value.exit_code == 5
    claim(tmp_path).close()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from pymerge.execute.journal import claim\n"
        "journal = claim(pathlib.Path(sys.argv[1])); journal.begin({'seed': 5}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    with claim(tmp_path) as journal:
        assert journal.identity == {"seed": 5}


def test_an_error_takes_a_new_journal_away_and_leaves_one_that_records(tmp_path: Path) -> None:
    for recorded in ({}, DIGESTS):
        journal = claim(tmp_path)
        journal.begin(IDENTITY)
        journal.record(recorded)
        journal.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert bool(list(tmp_path.iterdir())) == bool(recorded)
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


def test_a_journal_that_was_removed_is_not_claimed(tmp_path: Path) -> None:
    first = claim(tmp_path)
    first.begin(IDENTITY)
    first.remove()
    with claim(tmp_path) as journal:
        assert (tmp_path / JOURNAL).stat().st_ino == os.fstat(journal._descriptor).st_ino
        assert journal.identity is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / JOURNAL).symlink_to(target)
    with pytest.raises(ResourceError, match="the journal cannot be written"):
        claim(folder)
    assert target.read_text() == "mine"


def test_lines_are_json_that_people_can_read(tmp_path: Path) -> None:
    with claim(tmp_path) as journal:
        journal.begin(IDENTITY)
        journal.record({"a": "0" * 32})
        lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert lines[0] == {"journal": 1, "identity": IDENTITY}
    assert lines[1]["process"] == os.getpid()
    assert lines[2] == {"tensor": "a", "digest": "0" * 32}
