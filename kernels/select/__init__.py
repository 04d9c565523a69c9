"""The select kernel; its contract is spec.py."""
