"""Random merges under random faults: `python -m tools.soak --help`."""

import os

# Threads of a library would not survive the forks; before numpy is loaded.
for library in ("OPENBLAS", "MKL", "OMP"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
