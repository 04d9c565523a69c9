"""The gram kernel; its contract is spec.py."""
