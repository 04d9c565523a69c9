"""The parser of safetensors headers, given millions of headers that nobody would write.

A bounded number here; `make fuzz` goes on for minutes. The same target runs under libFuzzer, where clang is:
clang++ -std=c++20 -g -fsanitize=fuzzer,address,undefined -Icsrc tests/native/fuzz/header_target.cc
csrc/io/{safetensors_header,json_reader}.cc csrc/core/error.cc -o fuzz && ./fuzz tests/native/fuzz/corpus
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from native.watched import CSRC, Watched, compile_all

FUZZ = Path(__file__).resolve().parent / "fuzz"
CORPUS = sorted((FUZZ / "corpus").iterdir())
PARSER = [CSRC / "io" / "safetensors_header.cc", CSRC / "io" / "json_reader.cc"]
SANITIZER = "address,undefined"
#: Inputs, and seconds at most; of the latter more by the environment, and then as many inputs as there is time for.
INPUTS, SECONDS = 2_400_000, 120
WANTED = int(os.environ.get("PYMERGE_FUZZ_SECONDS", "0"))
SEED = os.environ.get("PYMERGE_FUZZ_SEED", "1")

#: A check that is there -> the same with a hole: what would be read or accepted then.
PLANTED = {
    "read past the end": (
        "json_reader.cc", "if (text_.size() - at_ < 4) fail", "if (text_.size() < 4) fail", "heap-buffer-overflow",
    ),
    "size that overflows": (
        "safetensors_header.cc", "if (__builtin_mul_overflow(bits, dim, &bits)) return std::nullopt;", "bits *= dim;",
        "signed integer overflow",
    ),
    "gap": ("safetensors_header.cc", "entry.begin != expected", "entry.begin < expected", "tensors follow each other"),
}  # fmt: skip


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The objects of the target and its driver."""
    folder = tmp_path_factory.mktemp("harness")
    watched = compile_all([FUZZ / "header_target.cc", CSRC / "core" / "error.cc"], SANITIZER, folder / "watched")
    return [*watched, *compile_all([FUZZ / "driver.cc"], "", folder / "driver", ["-O2"])]


def finish(harness: list[Path], parser: list[Path], folder: Path) -> Watched:
    """The program; edges are counted in the parser only."""
    counted = compile_all(parser, SANITIZER, folder, ["-fsanitize-coverage=trace-pc"])
    return Watched([*counted, *harness], SANITIZER, folder)


def run(program: Watched, crash: Path, inputs: int, seconds: int) -> tuple[int, str]:
    """Exit status and what was found, with the input that did it."""
    files = map(str, CORPUS)
    status, said = program.run(SEED, str(inputs), str(seconds), str(crash), *files, seconds=seconds + 100)
    return status, said + (f"\ninput: {crash.read_bytes()!r}" if crash.exists() else "")


def test_no_header_makes_the_parser_break_a_promise(harness: list[Path], tmp_path: Path) -> None:
    inputs = INPUTS if not WANTED else 10**12
    status, said = run(finish(harness, PARSER, tmp_path), tmp_path / "crash", inputs, WANTED or SECONDS)
    print(said)
    assert status == 0, said


@pytest.mark.parametrize("kind", PLANTED)
def test_a_hole_in_the_parser_would_be_found(harness: list[Path], tmp_path: Path, kind: str) -> None:
    file, check, hole, report = PLANTED[kind]
    parser = []
    for source in PARSER:
        text = source.read_text()
        if source.name == file:
            assert text.count(check) == 1
            text = text.replace(check, hole)
        parser.append(tmp_path / source.name)
        parser[-1].write_text(text)
    status, said = run(finish(harness, parser, tmp_path), tmp_path / "crash", 10**12, 60)
    assert status != 0
    assert report in said
    assert "input: b" in said
