"""Which backend a name means, and why one that was asked for cannot run."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import pymerge
from pymerge.backends import available, device, load_device_ops, resolve_backend, resolve_devices
from pymerge.errors import BackendError, DTypeError


def test_auto_needs_nothing_but_the_compiled_core() -> None:
    assert resolve_backend("auto") == "cpu"


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(BackendError, match="unknown backend 'gpu'; it is one of auto, cpu, reference, cuda, triton"):
        resolve_backend("gpu")


@pytest.mark.parametrize("finds", [True, False])
def test_triton_says_what_stands_against_it(monkeypatch: pytest.MonkeyPatch, finds: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: finds)
    rows = {name: (usable, reason) for name, usable, reason in available()}
    assert rows["triton"][0] == finds
    assert (rows["triton"][1] == "") == finds
    if finds:
        assert resolve_backend("triton") == "triton"
    else:
        with pytest.raises(BackendError, match=r"backend 'triton' is not available: torch .*; .* use --backend cpu"):
            resolve_backend("triton")


def test_a_torch_without_cuda_and_a_machine_without_gpu_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert "is built without CUDA" in device.why_no_device()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "finds no GPU" in device.why_no_device()


def test_without_triton_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymerge.backends, "find_spec", lambda name: None if name == "triton" else object())
    with pytest.raises(BackendError, match=r"triton cannot be imported; pip install 'pymerge\[gpu\]'"):
        resolve_backend("triton")


def without_cuda_kernels(name: str) -> object:
    return None if name == "pymerge._cuda" else object()


def test_a_build_without_cuda_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymerge.backends, "find_spec", without_cuda_kernels)
    with pytest.raises(BackendError, match=r"built without CUDA kernels; install it where nvcc is, or use --backend"):
        resolve_backend("cuda")


class NoDriver:
    """Compiled CUDA kernels on a machine that has a GPU for torch alone."""

    EMULATED = False

    @staticmethod
    def why_unavailable() -> str:
        return "no kernel image is available for execution on the device"


def test_what_cuda_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymerge.backends, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "pymerge._cuda", NoDriver)
    monkeypatch.setattr(pymerge, "_cuda", NoDriver, raising=False)
    with pytest.raises(BackendError, match=r"'cuda' is not available: no kernel image .*; .* use --backend cpu"):
        resolve_backend("cuda")


def test_tensors_on_a_device_get_the_best_backend_that_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pymerge.backends, "find_spec", without_cuda_kernels)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_device_ops("auto", "cuda:0").name == "triton"
    assert load_device_ops("triton", "cuda:0").name == "triton"


def test_tensors_on_a_device_are_not_merged_by_the_cpu_in_silence() -> None:
    with pytest.raises(BackendError, match=r"'cpu' does not merge tensors on cuda:0; move them with \.cpu\(\)"):
        load_device_ops("cpu", "cuda:0")


@pytest.mark.parametrize(("devices", "memory"), [(("cuda:0",), None), ((), 1 << 30)])
def test_a_backend_without_gpus_takes_none(devices: tuple[str, ...], memory: int | None) -> None:
    with pytest.raises(BackendError, match="uses no GPU and none of its memory; add --backend cuda or triton"):
        resolve_devices("cpu", devices, memory)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "xpu:0"])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendError, match=f"no device '{name}'; torch finds cuda:0, cuda:1"):
        resolve_devices("cuda", [name])
    assert resolve_devices("cuda", ["cuda:1"]) == [torch.device("cuda:1")]


def test_tensors_in_two_places_are_refused() -> None:
    here = np.zeros(4, np.float32)
    there = torch.zeros(4, device="meta")
    with pytest.raises(DTypeError, match="tensors on cpu and meta cannot be merged; move them to one device"):
        pymerge.merge_tensors("linear", [here, there], parameters={"weight": 1.0})
