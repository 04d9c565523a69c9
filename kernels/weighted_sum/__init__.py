"""The weighted_sum kernel; its contract is spec.py."""
