"""The masked_sum kernel; its contract is spec.py."""
