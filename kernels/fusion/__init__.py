"""The fusion kernel; its contract is spec.py."""
