"""The overlap kernel; its contract is spec.py."""
