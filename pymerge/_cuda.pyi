"""Types of the compiled CUDA kernels (pymerge/bindings/cuda); a test holds it to what is compiled."""

from collections.abc import Sequence
from typing import Any

_Rule = tuple[Any, ...]
_Lines = tuple[int, int, bool]

COMPILER: str
EMULATED: bool

def why_unavailable() -> str: ...

class DeviceTensor:
    def __init__(self, pointer: int, code: str, count: int) -> None: ...

def gram(tensors: Sequence[DeviceTensor], base: DeviceTensor | None, compute: str, stream: int) -> Any: ...
def gram_lines(
    tensors: Sequence[DeviceTensor], base: DeviceTensor | None, compute: str, lines: _Lines, stream: int
) -> bytes: ...
def weighted_sum(
    tensors: Sequence[DeviceTensor],
    base: None,
    compute: str,
    out_dtype: str,
    coefficients: Sequence[float],
    out: DeviceTensor,
    stream: int,
) -> None: ...
def weighted_sum_lines(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    out_dtype: str,
    coefficients: Any,
    lines: _Lines,
    out: DeviceTensor,
    stream: int,
) -> None: ...
def task_merge(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor,
    compute: str,
    out_dtype: str,
    rules: Sequence[_Rule],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    votes: Sequence[float],
    alone: Sequence[float],
    pick: bool,
    out: DeviceTensor,
    stream: int,
) -> None: ...
def masked_sum(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    rules: Sequence[_Rule],
    norm: str,
    stream: int,
) -> Any: ...
def overlap(
    tensors: Sequence[DeviceTensor], base: DeviceTensor | None, compute: str, rules: Sequence[_Rule], stream: int
) -> Any: ...
def row_divergence(
    tensors: Sequence[DeviceTensor], base: DeviceTensor, compute: str, lines: _Lines, stream: int
) -> bytes: ...
def mask(delta: DeviceTensor, rule: _Rule, compute: str, out: DeviceTensor, stream: int) -> None: ...
def near_swap(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor,
    compute: str,
    out_dtype: str,
    t: float,
    out: DeviceTensor,
    stream: int,
) -> None: ...
def fusion(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor,
    compute: str,
    out_dtype: str,
    factors: Any,
    lines: _Lines,
    threshold: float,
    out: DeviceTensor,
    stream: int,
) -> None: ...
def select(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    counts: Sequence[int],
    stream: int,
    bracket: tuple[int, int, int] | None = ...,
) -> Any: ...
def select_spread(
    tensors: Sequence[DeviceTensor],
    base: None,
    compute: str,
    share: float,
    stream: int,
    bracket: tuple[int, int, int] | None = ...,
) -> Any: ...
def select_lines(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    counts: Sequence[int],
    factors: Any,
    lines: _Lines,
    stream: int,
) -> Any: ...
def key_counts(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    lows: Sequence[int],
    shift: int,
    buckets: int,
    stream: int,
) -> bytes: ...
def key_counts_open(
    tensors: Sequence[DeviceTensor],
    base: DeviceTensor | None,
    compute: str,
    lows: Sequence[int],
    shift: int,
    buckets: int,
    stream: int,
) -> bytes: ...
def key_sample(
    tensors: Sequence[DeviceTensor], base: DeviceTensor | None, compute: str, apart: int, stream: int
) -> bytes: ...
