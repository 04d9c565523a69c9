"""The near_swap kernel; its contract is spec.py."""
