"""The output folder: made ready before a merge, completed after it.

Weights are written by `pymerge.execute`; this stage adds everything else that makes a folder a
model, in an order that never lets a half-written folder look complete.
"""

from pymerge.output.extras import find_extras
from pymerge.output.folder import Preparation, finish, is_made, make_folder, prepare
from pymerge.output.report import MergeReport

__all__ = ["MergeReport", "Preparation", "find_extras", "finish", "is_made", "make_folder", "prepare"]
