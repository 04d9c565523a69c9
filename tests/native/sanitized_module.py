"""That the module of `make sanitize` sees what is out of bounds. Named in that command, not found by itself."""

from __future__ import annotations

import re
import subprocess
import sys

from pymerge import _core

#: A buffer that says it has 128 floats, over memory for 100.
LYING = """
import ctypes
import numpy
from pymerge import _core

allocate = ctypes.CDLL(None).malloc
allocate.restype = ctypes.c_void_p
inside = (ctypes.c_float * 100).from_address(allocate(400))
lying = (ctypes.c_float * 128).from_address(allocate(400))
for buffer in (inside, lying):
    out = numpy.zeros(len(buffer), numpy.float32)
    _core.weighted_sum([_core.Tensor.from_buffer(buffer, "F32")], None, "float32", "F32", [1.0], out, 1)
    print(len(buffer), flush=True)
"""


def test_the_module_is_the_one_with_sanitizers() -> None:
    assert "sanitized" in _core.__file__


def test_an_overrun_in_a_kernel_would_be_found() -> None:
    command = [sys.executable, "-S", "-c", LYING]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode != 0
    assert done.stdout == "100\n"
    # A vector of which a part is inside has no name of its own.
    assert re.search("AddressSanitizer: (heap-buffer-overflow|unknown-crash)", done.stderr)
    # Where it was, in whatever function: pybind11 strips the names.
    assert re.search(r"#0 .*sanitized/site/pymerge/_core\.", done.stderr)
