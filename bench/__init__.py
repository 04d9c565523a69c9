"""Benchmarks, and what they share; installed as `pymerge.bench`.

kernels.py: compiled kernels against the machine's memory. merge.py: whole merges against the floor.
scaling.py: sizes, threads, planning. picture.py: draws what merge.py recorded. Nothing but the
command line may import this package.
"""
