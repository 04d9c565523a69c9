"""The row_divergence kernel; its contract is spec.py."""
