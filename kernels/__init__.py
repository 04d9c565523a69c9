"""The arithmetic of merging: one folder per kernel, its contract in spec.py, one file per backend.

`SPECS` lists the kernels; a new one is a folder and a line here and in CMakeLists.txt.
"""

from __future__ import annotations

SPECS = (
    "fusion",
    "gram",
    "mask",
    "masked_sum",
    "near_swap",
    "overlap",
    "row_divergence",
    "select",
    "task_merge",
    "weighted_sum",
)
