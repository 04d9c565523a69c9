"""The mask kernel; its contract is spec.py."""
