"""Benchmarks: whole merges against the floor of the same run. `python -m bench` runs them."""
