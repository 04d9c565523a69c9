"""Random merges under random faults: `python -m tools.soak --help`."""
