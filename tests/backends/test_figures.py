"""Figures of a GPU: found without torch, measured once, kept under all that they depend on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import pymerge
from pymerge.backends import figures
from pymerge.backends.choice import DeviceFigures
from pymerge.backends.figures import find_devices, load_figures, measure_figures

FOUND = DeviceFigures(into=25e9, out=24e9, copy=3e12, start=4.0, memory=80e9)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pymerge"


class Counting:
    """Measures FOUND, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> DeviceFigures:
        self.calls += 1
        return FOUND


def write_driver(folder: Path, *models: str) -> None:
    for place, model in enumerate(models):
        gpu = folder / "gpus" / f"0000:0{place}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\n")
    folder.mkdir(exist_ok=True)
    (folder / "version").write_text("NVRM version: NVIDIA UNIX 570.1  Thu\nGCC version: 12\n")


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_are_named_as_the_driver_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_driver(tmp_path / "nvidia", "NVIDIA H100", "NVIDIA L4")
    monkeypatch.setattr(figures, "_DRIVER", tmp_path / "nvidia")
    version = "NVRM version: NVIDIA UNIX 570.1  Thu"
    assert find_devices() == [f"NVIDIA H100, {version}", f"NVIDIA L4, {version}"]


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("1", 2)])
def test_what_is_hidden_is_not_there_and_what_is_ordered_is_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, count: int
) -> None:
    write_driver(tmp_path / "nvidia", "NVIDIA H100", "NVIDIA L4")
    monkeypatch.setattr(figures, "_DRIVER", tmp_path / "nvidia")
    whole = find_devices()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_devices()
    assert len(found) == count
    assert not set(found) & set(whole)


@pytest.mark.parametrize("there", ["nothing", "a driver alone", "an empty version"])
def test_without_a_gpu_or_a_driver_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    monkeypatch.setattr(figures, "_DRIVER", tmp_path / "nvidia")
    if there != "nothing":
        write_driver(tmp_path / "nvidia", *(["NVIDIA L4"] if there == "an empty version" else []))
    if there == "an empty version":
        (tmp_path / "nvidia" / "version").write_text("")
    assert find_devices() == []


def test_figures_are_measured_once_and_kept(cache: Path) -> None:
    measure = Counting()
    assert load_figures("L4, 570.1", measure) == load_figures("L4, 570.1", measure) == FOUND
    assert measure.calls == 1
    assert len(list(cache.iterdir())) == 1


def test_another_device_driver_or_version_is_measured_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Counting()
    for device in ("L4, 570.1", "H100, 570.1", "L4, 580.2"):
        load_figures(device, measure)
    monkeypatch.setattr(pymerge, "__version__", "99.0")
    load_figures("L4, 570.1", measure)
    assert measure.calls == 4


@pytest.mark.parametrize("text", ["", "[]", '{"key": "another"}', '{"key": 1, "into": "x"}'])
def test_a_damaged_file_is_measured_anew_and_replaced(cache: Path, text: str) -> None:
    measure = Counting()
    load_figures("L4, 570.1", measure)
    (path,) = cache.iterdir()
    path.write_text(text)
    assert load_figures("L4, 570.1", measure) == load_figures("L4, 570.1", measure) == FOUND
    assert measure.calls == 2


def test_a_cache_that_cannot_be_written_costs_only_the_measurement(cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder would be")
    measure = Counting()
    assert load_figures("L4, 570.1", measure) == load_figures("L4, 570.1", measure) == FOUND
    assert measure.calls == 2


def test_a_measurement_that_fails_is_not_kept(cache: Path) -> None:
    def fail() -> DeviceFigures:
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel image"):
        load_figures("L4, 570.1", fail)
    assert not cache.exists()


class Memory:
    """A tensor that is copied at once."""

    def __init__(self, size: int, copied: list[int]) -> None:
        self.size, self.copied = size, copied

    def copy_(self, other: Memory, non_blocking: bool = False) -> None:
        self.copied.append(other.size)


class Torch:
    """As much of torch as a measurement takes."""

    uint8 = "uint8"

    def __init__(self) -> None:
        self.copied: list[int] = []
        self.cuda = self

    def device(self, name: str) -> str:
        return name

    def synchronize(self) -> None:
        pass

    def get_device_properties(self, device: str) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80e9)

    def empty(self, size: int, **_: object) -> Memory:
        return Memory(size, self.copied)

    def empty_like(self, other: Memory) -> Memory:
        return Memory(other.size, self.copied)


def test_a_measurement_copies_each_way_after_a_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Torch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    found = measure_figures(began=time.perf_counter() - 5)
    assert 5 <= found.start < 60
    assert found.memory == 80e9
    assert fake.copied == [64 << 20] * 6
    assert min(found.into, found.out, found.copy) > 0
