"""Where the rows of a matrix come from that has others than the stored ones."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

__all__ = ["RowChoice"]


@dataclass(frozen=True, slots=True, eq=False)
class RowChoice:
    """For each row of a new matrix, the rows of which tensors it is the mean of.

    Row r is the mean (float32, in the order listed) of rows `rows[k]` of parts `parts[k]`, starts[r] <= k <
    starts[r + 1]; one entry is a plain copy, none a row of zeros. rows[k] = -1 stands for the mean of all rows of
    that part.

    Attributes:
        starts: array("q"), [rows + 1]. parts, rows: array("q"), [starts[-1]].
    """

    starts: array[int]
    parts: array[int]
    rows: array[int]
